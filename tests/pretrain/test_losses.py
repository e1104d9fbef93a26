"""The losses against values computed with the published implementations, and at the points where naive ones break."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pretrain import losses
from pretrain.masking import expand_mask

GOLDEN = Path(__file__).parents[1] / "data" / "golden" / "losses"
FUNCTIONS = {
    "l1_loss": losses.l1,
    "mse_loss": losses.mse,
    "focal_l1_loss": losses.focal_l1,
    "focal_mse_loss": losses.focal_mse,
    "huber_loss": losses.huber,
    "charbonnier_loss": losses.charbonnier,
    "balanced_l1_loss": losses.balanced_l1,
}
PRECISIONS = pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.float64, 1e-10)])


def load(name):
    """[(settings, arrays)] of one golden file."""
    with np.load(GOLDEN / f"{name}.npz") as file:
        meta = json.loads(str(file["meta_json"]))
        arrays = {key: file[key] for key in file.files}
    return [(m, {k[3:]: v for k, v in arrays.items() if k.startswith(f"{i:02}/")}) for i, m in enumerate(meta)]


def cases(name):
    return pytest.mark.parametrize("settings, arrays", load(name), ids=lambda v: None if isinstance(v, dict) else v)


def assert_same(value, arrays, tolerance, key="value64"):
    expected = torch.from_numpy(np.asarray(arrays[key])).double()
    difference = (value.detach().double().cpu() - expected).abs().max()
    # The cancelling-errors case has a value of 3e-16: rounding noise of numbers of order 1, compared as such.
    assert difference <= tolerance * expected.abs().max() + (1e-13 if tolerance > 1e-9 else 1e-15)


def assert_same_gradient(value, prediction, arrays):
    (gradient,) = torch.autograd.grad(value.sum(), prediction)
    expected = torch.from_numpy(arrays["grad"])
    assert (gradient.double().cpu() - expected).abs().max() <= 1e-5 * expected.abs().max() + (
        1e-9 if prediction.dtype == torch.float32 else 1e-15
    )


def tensors(arrays, dtype, device):
    prediction = torch.from_numpy(arrays["pred"]).to(device, dtype).requires_grad_()
    return prediction, torch.from_numpy(arrays["target"]).to(device, dtype)


def criterion(settings):
    options = {k: v for k, v in settings.items() if k in ("alpha", "gamma", "activate", "residual")}
    function = FUNCTIONS[settings["mode"]]
    return partial(function, **options) if "focal" in settings["mode"] else function


@PRECISIONS
@cases("regression")
def test_regression_equals_the_published_values(settings, arrays, dtype, tolerance, device):
    prediction, target = tensors(arrays, dtype, device)
    loss = criterion(settings)(prediction - target)
    if "weight" in arrays:
        loss = loss * torch.from_numpy(arrays["weight"]).to(device, dtype)
    value = {"mean": torch.mean, "sum": torch.sum, "none": lambda x: x}[settings["reduction"]](loss)
    value = value * settings.get("loss_weight", 1.0)
    assert_same(value, arrays, tolerance)
    assert_same_gradient(value, prediction, arrays)


@PRECISIONS
@cases("focal_frequency")
def test_focal_frequency_equals_the_published_values(settings, arrays, dtype, tolerance, device):
    prediction, target = tensors(arrays, dtype, device)
    options = {k: settings[k] for k in ("average_spectrum", "log_matrix", "batch_matrix", "alpha") if k in settings}
    value = losses.focal_frequency_loss(
        prediction, target, average_spectrum=settings["ave_spectrum"], **options
    ) * settings.get("loss_weight", 1.0)
    assert_same(value, arrays, tolerance)
    assert_same_gradient(value, prediction, arrays)


@PRECISIONS
@cases("a2mim_head")
def test_the_two_terms_of_a2mim_equal_the_published_values(settings, arrays, dtype, tolerance, device):
    prediction, target = tensors(arrays, dtype, device)
    mask = torch.from_numpy(arrays["mask"]).to(device)
    spatial = losses.masked_mean(
        criterion(settings["loss"])(prediction - target), mask, unmask_weight=settings.get("unmask_weight", 0.0)
    )
    summed = tolerance
    if device.type == "cuda" and 0 < settings.get("unmask_weight", 0.0) < 1:
        # The released code sums the pixels' weights in float32 whatever the images are. Whole numbers are exact in any
        # order; fractions round as the order goes, and a GPU has another one: some units of 1.2e-7 apart.
        summed = max(tolerance, 1e-6)
    assert_same(spatial, arrays, summed, "spatial64")
    frequency = torch.zeros((), dtype=dtype, device=device)
    if settings["fft_weight"]:
        replace, unmask_weight = settings["fft_unmask_replace"] or "target", settings["fft_unmask_weight"]
        compared = losses.replace_visible(prediction, target, mask, replace=replace, unmask_weight=unmask_weight)
        frequency = settings["fft_weight"] * published_frequency(compared, target, settings)
    assert_same(frequency, arrays, tolerance, "freq_weighted64")
    assert_same(spatial + frequency, arrays, summed)
    assert_same_gradient(spatial + frequency, prediction, arrays)


def published_frequency(compared, target, settings):
    if settings["fft_focal"]:
        return losses.focal_frequency_loss(compared, target)
    focal = settings["loss"]["mode"] == "focal_l1_loss"
    return losses.frequency_distance_loss(
        compared, target, criterion(settings["loss"]) if focal else losses.l1, reweight=settings["fft_reweight"]
    )


@PRECISIONS
@cases("simmim_head")
def test_the_loss_of_simmim_equals_the_published_values(settings, arrays, dtype, tolerance, device):
    prediction, target = tensors(arrays, dtype, device)
    value = losses.masked_mean(losses.l1(prediction - target), torch.from_numpy(arrays["mask"]).to(device))
    assert_same(value, arrays, tolerance)
    assert_same_gradient(value, prediction, arrays)


def full_fft_loss(prediction, target, *, average, batch_matrix, matrix=None) -> Tensor:
    """The definition of the focal frequency loss, with full complex transforms averaged afterwards."""
    spectrum = torch.fft.fft2(prediction, norm="ortho") - torch.fft.fft2(target, norm="ortho")
    if average:
        spectrum = spectrum.mean(0, keepdim=True)
    power = spectrum.real.square() + spectrum.imag.square()
    weight = torch.log(1 + power.sqrt()).detach()
    weight = weight / (weight.max() if batch_matrix else weight.amax((2, 3), keepdim=True))
    return ((weight if matrix is None else matrix) * power).mean()


def random_pair(*shape, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    prediction, target = (torch.randn(*shape, generator=generator, dtype=dtype) for _ in range(2))
    return prediction.requires_grad_(), target


@pytest.mark.parametrize("size", [(16, 16), (15, 17), (7, 8), (8, 7), (1, 1), (4, 2)])
@pytest.mark.parametrize("average, batch_matrix", [(True, True), (True, False), (False, True), (False, False)])
def test_half_a_spectrum_equals_the_full_transform(size, average, batch_matrix):
    prediction, target = random_pair(4, 3, *size)
    value = losses.focal_frequency_loss(prediction, target, average_spectrum=average, batch_matrix=batch_matrix)
    expected = full_fft_loss(prediction, target, average=average, batch_matrix=batch_matrix)
    torch.testing.assert_close(value, expected, rtol=3e-7, atol=1e-7)
    (gradient,), (expected_gradient,) = (torch.autograd.grad(v, prediction) for v in (value, expected))
    assert (gradient - expected_gradient).abs().max() <= 1e-6 * expected_gradient.abs().max()


@pytest.mark.parametrize("size", [(16, 16), (15, 17), (4, 2)])
def test_half_a_spectrum_equals_the_full_transform_to_the_last_digits_of_float64(size):
    prediction, target = random_pair(4, 3, *size, dtype=torch.float64)
    value = losses.focal_frequency_loss(prediction, target)
    expected = full_fft_loss(prediction, target, average=True, batch_matrix=True)
    torch.testing.assert_close(value, expected, rtol=1e-14, atol=0)


@pytest.mark.parametrize("size", [(6, 8), (5, 7)])
def test_a_given_weight_matrix_needs_no_symmetry(size):
    prediction, target = random_pair(2, 3, *size, dtype=torch.float64)
    matrix = torch.rand(size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    value = losses.focal_frequency_loss(prediction, target, average_spectrum=False, matrix_hw=matrix)
    expected = full_fft_loss(prediction, target, average=False, batch_matrix=True, matrix=matrix)
    torch.testing.assert_close(value, expected)


def test_the_frequency_distance_counts_the_whole_spectrum():
    prediction, target = random_pair(2, 3, 6, 7, dtype=torch.float64)
    distance = (torch.fft.fft2(prediction, norm="ortho") - torch.fft.fft2(target, norm="ortho")).abs()
    for reweight in (False, True):
        expected = (distance**2 if reweight else distance).mean()
        value = losses.frequency_distance_loss(prediction, target, losses.l1, reweight=reweight)
        torch.testing.assert_close(value, expected)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("average_spectrum", [True, False])
@pytest.mark.parametrize("log_matrix", [True, False])
@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_equal_images_give_a_finite_spectrum_loss_and_gradient(batch, average_spectrum, log_matrix, alpha):
    prediction, target = torch.ones(batch, 3, 8, 8, requires_grad=True), torch.ones(batch, 3, 8, 8)
    value = losses.focal_frequency_loss(
        prediction, target, alpha=alpha, average_spectrum=average_spectrum, log_matrix=log_matrix, batch_matrix=False
    )
    (gradient,) = torch.autograd.grad(value, prediction)
    assert value == 0
    assert gradient.abs().max() == 0


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_equal_images_give_a_finite_regression_and_distance_loss(name):
    zeros = torch.zeros(2, 3, 4, 4, requires_grad=True)
    for gamma in (0.5, 1.0, 2.0):
        function = partial(FUNCTIONS[name], **({"gamma": gamma} if "focal" in name else {}))
        distance = losses.frequency_distance_loss(zeros, torch.zeros(2, 3, 4, 4), function, reweight=True)
        for value in (function(zeros).mean(), distance):
            (gradient,) = torch.autograd.grad(value, zeros)
            assert value.abs() <= 1e-5
            assert gradient.isfinite().all()


@given(
    st.sampled_from(sorted(FUNCTIONS)),
    st.floats(-1e4, 1e4, width=32, allow_subnormal=False),
)
@settings(max_examples=60, deadline=None)
def test_every_regression_is_even_finite_and_not_negative(name, value):
    difference = torch.tensor([value, -value, 0.0], requires_grad=True)
    loss = FUNCTIONS[name](difference)
    (gradient,) = torch.autograd.grad(loss.sum(), difference)
    assert loss.isfinite().all() and gradient.isfinite().all()
    assert loss[0] == loss[1]
    assert (loss >= -1e-7).all()


def test_masked_mean_counts_masked_pixels_and_channels_only():
    mask = torch.zeros(2, 2, 1, dtype=torch.uint8)  # two cells of 2 x 4 pixels in each image
    mask[0, 0] = 1
    loss = torch.full((2, 3, 4, 4), 7.0)
    loss[0, :, :2] = 2.0
    assert losses.masked_mean(loss, mask).item() == pytest.approx(2.0, rel=1e-5)
    everything = losses.masked_mean(loss, mask, unmask_weight=0.5).item()
    assert everything == pytest.approx((2 * 8 + 7 * 24 * 0.5) / (8 + 24 * 0.5), rel=1e-5)


def test_an_empty_mask_costs_nothing():
    assert losses.masked_mean(torch.ones(1, 3, 4, 4), torch.zeros(1, 2, 2)) == 0


@pytest.mark.parametrize("replace", ["target", "prediction", "mean", "mixed"])
@pytest.mark.parametrize("unmask_weight", [0.0, 0.25, 1.0])
def test_visible_pixels_are_replaced_and_keep_their_share_of_the_gradient(replace, unmask_weight):
    prediction, target = random_pair(2, 3, 4, 4)
    mask = torch.tensor([[[1, 0], [0, 1]]]).repeat(2, 1, 1)
    masked = expand_mask(mask, (4, 4)).expand(2, 3, 4, 4)
    replaced = losses.replace_visible(prediction, target, mask, replace=replace, unmask_weight=unmask_weight)
    other = {
        "target": target,
        "prediction": prediction,
        "mean": target.mean((2, 3), keepdim=True).expand_as(target),
        "mixed": (prediction + target) / 2,
    }[replace]
    torch.testing.assert_close(replaced[masked], prediction[masked])
    mixture = unmask_weight * prediction + (1 - unmask_weight) * other
    torch.testing.assert_close(replaced[~masked], mixture[~masked])
    (gradient,) = torch.autograd.grad(replaced.sum(), prediction)
    assert (gradient[masked] == 1).all()
    torch.testing.assert_close(gradient[~masked], torch.full_like(gradient[~masked], unmask_weight))


def test_a_lost_number_stays_visible_in_the_loss():
    """A guard that turned NaN into 0 would hide divergence from the finite check."""
    prediction, mask = torch.zeros(1, 3, 8, 8), torch.zeros(1, 2, 2)
    prediction[0, 0, 0, 0] = float("nan")
    assert losses.focal_frequency_loss(prediction, torch.zeros(1, 3, 8, 8)).isnan()
    assert losses.masked_mean(losses.l1(prediction), mask).isnan()
