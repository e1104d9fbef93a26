"""The losses of A2MIM and SimMIM as plain arithmetic: element-wise regression, masked mean, frequency domain.

The formulas are those of the released code (OpenMixup), which is what produced the published numbers. float32 in gives
float32, float64 gives float64; callers cast lower precisions up. Nothing here waits for the device.

Shapes: B batch, C channels, H W pixels, g cells, V = W // 2 + 1 columns of a real FFT, N spectra (B, or 1 averaged).
"""

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from pretrain.masking import expand_mask

RegressionKind = Literal["l1", "mse", "focal_l1", "focal_mse", "huber", "charbonnier", "balanced_l1"]
Replacement = Literal["target", "prediction", "mean", "mixed"]
Criterion = Callable[[Tensor], Tensor]


def l1(difference: Tensor) -> Tensor:
    """|d| for every element of a difference of any shape."""
    return difference.abs()


def mse(difference: Tensor) -> Tensor:
    """d^2 for every element of a difference of any shape."""
    return difference.square()


def focal_l1(
    difference: Tensor, *, alpha: float = 0.2, gamma: float = 1.0, activate: str = "sigmoid", residual: bool = False
) -> Tensor:
    """|d| f(|d|) for every element of a difference of any shape, with f as in `focal_factor`; `residual` adds |d|.

    From Yang et al., Delving into Deep Imbalanced Regression (ICML 2021). A2MIM's ResNets use the defaults, which are
    |d| tanh(|d| / 10): about d^2 / 10 near zero, |d| far away. The factor takes part in the gradient.
    """
    if gamma == 1.0 and not residual:
        return difference * torch.tanh(_steepness(alpha, activate) * difference)  # even, so no |.| is needed
    return _focal(difference.abs(), focal_factor(difference, alpha, gamma, activate), residual)


def focal_mse(
    difference: Tensor, *, alpha: float = 0.2, gamma: float = 1.0, activate: str = "sigmoid", residual: bool = False
) -> Tensor:
    """d^2 f(|d|) for every element of a difference of any shape, with f as in `focal_factor`; `residual` adds d^2."""
    return _focal(difference.square(), focal_factor(difference, alpha, gamma, activate), residual)


def focal_factor(difference: Tensor, alpha: float, gamma: float, activate: str) -> Tensor:
    """(2 sigmoid(alpha |d|) - 1)^gamma, or tanh(alpha |d|)^gamma for `activate="tanh"`; values in [0, 1).

    2 sigmoid(z) - 1 = tanh(z / 2), which loses no digits near zero.
    """
    factor = torch.tanh(_steepness(alpha, activate) * difference.abs())
    if gamma == 1.0:
        return factor
    # The derivative of x^gamma is infinite at 0 for gamma < 1, and infinity times |d| = 0 is not a number.
    return factor.clamp_min(torch.finfo(factor.dtype).tiny) ** gamma


def _steepness(alpha: float, activate: str) -> float:
    return alpha if activate == "tanh" else alpha / 2


def _focal(base: Tensor, factor: Tensor, residual: bool) -> Tensor:
    return base * factor + base if residual else base * factor


def huber(difference: Tensor, *, beta: float = 1.0) -> Tensor:
    """d^2 / (2 beta) where |d| < beta, else |d| - beta / 2, for every element of a difference of any shape."""
    distance = difference.abs()
    return torch.where(distance < beta, 0.5 * difference.square() / beta, distance - 0.5 * beta)


def charbonnier(difference: Tensor, *, eps: float = 1e-10) -> Tensor:
    """sqrt(d^2 + eps) for every element of a difference of any shape (Lai et al., TPAMI 2018)."""
    return (difference.square() + eps).sqrt()


def balanced_l1(difference: Tensor, *, alpha: float = 0.5, gamma: float = 1.5, beta: float = 1.0) -> Tensor:
    """Balanced L1 of Libra R-CNN (Pang et al., CVPR 2019), for every element of a difference of any shape."""
    distance = difference.abs()
    b = math.expm1(gamma / alpha)
    near = alpha / b * (b * distance + 1) * torch.log(b * distance / beta + 1) - alpha * distance
    return torch.where(distance < beta, near, gamma * distance + gamma / b - alpha * beta)


def elementwise(
    kind: RegressionKind,
    *,
    alpha: float | None = None,
    gamma: float | None = None,
    beta: float = 1.0,
    activate: str = "sigmoid",
    residual: bool = False,
) -> Criterion:
    """The element-wise loss called `kind`; of the settings those that it has, None leaving its own default."""
    shape = {name: value for name, value in (("alpha", alpha), ("gamma", gamma)) if value is not None}
    functions: dict[str, Criterion] = {
        "l1": l1,
        "mse": mse,
        "focal_l1": lambda difference: focal_l1(difference, **shape, activate=activate, residual=residual),
        "focal_mse": lambda difference: focal_mse(difference, **shape, activate=activate, residual=residual),
        "huber": lambda difference: huber(difference, beta=beta),
        "charbonnier": charbonnier,
        "balanced_l1": lambda difference: balanced_l1(difference, **shape, beta=beta),
    }
    return functions[kind]


def masked_mean(loss_bchw: Tensor, mask_bgg: Tensor, *, unmask_weight: float = 0.0) -> Tensor:
    """Mean of an element-wise loss over masked pixels and channels: sum(l m) / (sum(m) + 1e-5) / C.

    Args:
        loss_bchw: (batch, channels, height, width).
        mask_bgg: (batch, rows, columns), non-zero where a cell was hidden. None hidden gives 0.
        unmask_weight: weight of the visible pixels in both sums, 0 to 1 (published: 0).

    Returns:
        A scalar.
    """
    weight = pixel_weight(mask_bgg, loss_bchw, unmask_weight)
    return (loss_bchw * weight).sum() / (weight.sum() + 1e-5) / loss_bchw.shape[1]


def pixel_weight(mask_bgg: Tensor, image_bchw: Tensor, visible: float) -> Tensor:
    """1 where a pixel of the image was hidden, `visible` elsewhere, (batch, 1, height, width).

    bool for 0, else float32 even beside float64 images, as the released code has them: its counts round accordingly. A
    mask of single pixels has the images' type, for the same reason.
    """
    mask_b1hw = expand_mask(mask_bgg, image_bchw.shape[-2:])
    is_cellular = mask_bgg.shape[-2:] != image_bchw.shape[-2:]
    if is_cellular and not visible:
        return mask_b1hw
    mask = mask_b1hw.to(torch.float32 if is_cellular else image_bchw.dtype)
    return mask + (1 - mask) * visible


def replace_visible(
    prediction_bchw: Tensor,
    target_bchw: Tensor,
    mask_bgg: Tensor,
    *,
    replace: Replacement,
    unmask_weight: float,
) -> Tensor:
    """The image the frequency losses compare with the target: p m + r (1 - m).

    m is 1 on masked and `unmask_weight` on visible pixels, so masked pixels carry their whole gradient and visible ones
    that share of it. The released configurations use "mixed"; the paper's text describes "prediction".

    Args:
        prediction_bchw: p, (batch, channels, height, width).
        target_bchw: x, same shape.
        mask_bgg: (batch, rows, columns), non-zero where a cell was hidden.
        replace: r is "target" x, "prediction" stopgrad(p), "mean" the mean colour of x, "mixed" half of the first two.
        unmask_weight: 0 to 1.

    Returns:
        (batch, channels, height, width).
    """
    if unmask_weight == 1:
        return prediction_bchw
    if replace == "target":
        replacement = target_bchw
    elif replace == "prediction":
        replacement = prediction_bchw.detach()
    elif replace == "mean":
        replacement = target_bchw.mean((2, 3), keepdim=True)
    else:
        replacement = 0.5 * (prediction_bchw.detach() + target_bchw)
    if unmask_weight == 0:
        return torch.where(expand_mask(mask_bgg, prediction_bchw.shape[-2:]), prediction_bchw, replacement)
    weight = pixel_weight(mask_bgg, prediction_bchw, unmask_weight)
    return prediction_bchw * weight + replacement * (1 - weight)


def focal_frequency_loss(
    prediction_bchw: Tensor,
    target_bchw: Tensor,
    *,
    alpha: float = 1.0,
    average_spectrum: bool = True,
    log_matrix: bool = True,
    batch_matrix: bool = True,
    matrix_hw: Tensor | None = None,
) -> Tensor:
    """Focal frequency loss (Jiang et al., ICCV 2021): mean over (u, v) of w |E|^2, E = FFT(p) - FFT(x).

    w is |E|^alpha, or log(1 + |E|^alpha), divided by its maximum; it carries no gradient. The transforms are
    orthonormal and the images real, so half of the spectrum is computed and counted for the conjugate half. The FFT is
    linear: with `average_spectrum` the batch is averaged before ONE transform, instead of after one for each image.

    Args:
        prediction_bchw: p, (batch, channels, height, width).
        target_bchw: x, same shape.
        alpha: exponent of the weight.
        average_spectrum: average the spectra over the batch first (released A2MIM). Errors of opposite sign in
            different images then cancel, and the value falls with the number of images averaged.
        log_matrix: take the logarithm in w.
        batch_matrix: one maximum over all images and channels; else one for each.
        matrix_hw: use this w instead, (..., height, width), values in [0, 1].

    Returns:
        A scalar, finite for p = x.
    """
    if average_spectrum:
        error_nchw = prediction_bchw.mean(0, keepdim=True) - target_bchw.mean(0, keepdim=True)
    else:
        error_nchw = prediction_bchw - target_bchw
    power_nchv = torch.view_as_real(torch.fft.rfft2(error_nchw, norm="ortho")).square().sum(-1)
    if matrix_hw is not None:
        weight = _fold(matrix_hw)
    else:
        weight = _focal_weight(power_nchv.detach(), alpha, log_matrix, (0, 1, 2, 3) if batch_matrix else (2, 3))
    return _spectrum_mean(weight * power_nchv, error_nchw)


def _focal_weight(power: Tensor, alpha: float, log_matrix: bool, shared: tuple[int, ...]) -> Tensor:
    weight = power ** (alpha / 2)
    if log_matrix:
        weight = torch.log1p(weight)
    # Without any error the maximum is 0 and 0 / 0 must not reach the loss.
    return (weight / weight.amax(shared, keepdim=True)).nan_to_num(nan=0.0).clamp(0, 1)


def _fold(matrix_hw: Tensor) -> Tensor:
    """The half of a full-spectrum weight that gives the same sum over the whole (conjugate-symmetric) spectrum."""
    mirrored = matrix_hw.flip((-2, -1)).roll((1, 1), (-2, -1))
    return (0.5 * (matrix_hw + mirrored))[..., : matrix_hw.shape[-1] // 2 + 1].detach()


def frequency_distance_loss(
    prediction_bchw: Tensor, target_bchw: Tensor, criterion: Criterion, *, reweight: bool = False
) -> Tensor:
    """Mean over every image's spectrum of criterion(|E|), E = FFT(p) - FFT(x): the released non-focal frequency loss.

    Args:
        prediction_bchw: p, (batch, channels, height, width).
        target_bchw: x, same shape.
        criterion: an element-wise loss of this file, applied to the modulus.
        reweight: multiply by its own detached value.

    Returns:
        A scalar, finite for p = x.
    """
    error_bchw = prediction_bchw - target_bchw
    loss = criterion(torch.fft.rfft2(error_bchw, norm="ortho").abs())
    return _spectrum_mean(loss.detach() * loss if reweight else loss, error_bchw)


def mean_over_groups(
    loss: Callable[[Tensor, Tensor], Tensor], prediction_bchw: Tensor, target_bchw: Tensor, size: int | None
) -> Tensor:
    """Mean of a loss over groups of `size` images of a batch; a smaller batch, or any if size is None, is one group."""
    groups = max(len(target_bchw) // (size or len(target_bchw)), 1)
    pairs = zip(prediction_bchw.chunk(groups), target_bchw.chunk(groups), strict=True)
    return torch.stack([loss(*pair) for pair in pairs]).mean()


def _spectrum_mean(half: Tensor, image: Tensor) -> Tensor:
    """Mean over the full spectrum of a real image from the (..., H, V) half: columns 1 to V-1 stand for two each,
    except the last one of an even width."""
    width = image.shape[-1]
    edge = half[..., 0].sum()
    if width % 2 == 0:
        edge = edge + half[..., -1].sum()
    return (2 * half.sum() - edge) / image.numel()
