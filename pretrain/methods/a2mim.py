"""A2MIM: Architecture-Agnostic Masked Image Modeling - From ViT back to CNN (Li et al., ICML 2023, arXiv 2205.13943).

The masked cells of an image x are painted with its mean colour, a learnable token joins the features inside the
encoder (pretrain/model.py), and the prediction p of the whole image is compared with x on the masked pixels and in the
Fourier domain.

Shapes: B batch, H W pixels, g cells along a side.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Self

from engine.deviations import FLOAT16, FLOAT32, follows
from engine.fields import Count, NotNegative, Positive, Share
from pretrain.config import DataConfig, MethodOptions, OptimizerConfig, PretrainConfig
from pretrain.methods import released
from pretrain.methods.method import Method
from pretrain.methods.released import TokenOptions, fitted, with_options, without_norm_decay

if TYPE_CHECKING:
    from torch import Tensor

    from backbones import Backbone
    from pretrain.model import TokenModel


@dataclass(frozen=True, kw_only=True)
class LossOptions:
    """The spatial loss and the frequency loss."""

    kind: Literal["l1", "mse", "focal_l1", "focal_mse", "huber", "charbonnier", "balanced_l1"] = "focal_l1"
    """Element-wise loss on the masked pixels."""
    alpha: Positive | None = None
    """Steepness of the focal factor (0.2 if not given), or alpha of balanced_l1 (0.5)."""
    gamma: Positive | None = None
    """Exponent of the focal factor (1 if not given), or gamma of balanced_l1 (1.5)."""
    beta: Positive = 1.0
    """Where huber and balanced_l1 become linear."""
    activate: Literal["sigmoid", "tanh"] = "sigmoid"
    """Form of the focal factor."""
    residual: bool = False
    """Add the plain loss to the focal one."""
    unmask_weight: Share = 0.0
    """Weight of the visible pixels in the spatial loss."""

    frequency_weight: NotNegative = 0.5
    """Weight of the frequency loss in the total; 0 leaves it out."""
    focal: bool = True
    """Focal frequency loss; else `kind` applied to the modulus of the spectral difference (l1 for a kind that is
    neither l1, mse nor focal)."""
    frequency_unmask_weight: Share = 1e-3
    """Share of the prediction that visible pixels keep in the frequency loss."""
    replace: Literal["target", "prediction", "mean", "mixed"] = "mixed"
    """What the rest of the visible pixels becomes there; see `pretrain.losses.replace_visible`."""
    frequency_alpha: Positive = 1.0
    """Exponent of the focal weight."""
    average_spectrum: bool = True
    """Average the spectra over the images first (released code); else one spectrum for each image (paper)."""
    spectrum_images: Count | None = None
    """How many images share a spectrum and its maximum: the published per-GPU batch, so that the loss does not depend
    on how many devices or accumulation steps there are. A larger micro-batch is cut into groups of it; a smaller one,
    or any if this is none, is one group."""
    log_matrix: bool = True
    """Take the logarithm in the focal weight."""
    batch_matrix: bool = True
    """One maximum of the focal weight for all images and channels; else one for each."""
    reweight: bool = False
    """Multiply the non-focal frequency loss by its own detached value."""


@dataclass(frozen=True, kw_only=True)
class Options(MethodOptions):
    """What A2MIM alone can be told."""

    token: TokenOptions = field(default_factory=TokenOptions)
    """The mask token."""
    loss: LossOptions = field(default_factory=LossOptions)
    """The losses."""

    def for_demo(self) -> Self:
        """One spectrum for the whole batch."""
        return replace(self, loss=replace(self.loss, spectrum_images=None))


def build(encoder: Backbone, config: PretrainConfig) -> TokenModel:
    """Encoder, token, decoder and the two losses; raises ConfigError where cells or images do not fit the encoder."""
    from pretrain.model import token_model

    options: Any = config.options
    return token_model(encoder, config, token=options.token, terms=partial(losses, options.loss))


def losses(options: LossOptions, p: Tensor, x: Tensor, mask_bgg: Tensor) -> dict[str, Tensor]:
    """L = L_spa + lambda L_freq of a prediction p and its target x, both normalised images (B, 3, H, W).

    Args:
        options: which losses.
        p: the prediction.
        x: the untouched images.
        mask_bgg: (B, g, g), non-zero where a cell is hidden.

    Returns:
        {"spatial": scalar, "frequency": weighted scalar}; without the second if its weight is 0.
    """
    from pretrain.losses import masked_mean, replace_visible

    # L_spa = sum_masked l(p - x) / (3 masked pixels), l focal L1 for CNNs and L1 for ViTs
    spatial = masked_mean(criterion(options)(p - x), mask_bgg, unmask_weight=options.unmask_weight)
    if not options.frequency_weight:
        return {"spatial": spatial}
    # L_freq = mean_uv w(u, v) |F(p')(u, v) - F(x)(u, v)|^2, p' having its visible pixels replaced
    compared = replace_visible(p, x, mask_bgg, replace=options.replace, unmask_weight=options.frequency_unmask_weight)
    return {"spatial": spatial, "frequency": options.frequency_weight * frequency(options, compared, x)}


def criterion(options: LossOptions, *, spectral: bool = False) -> Callable[[Tensor], Tensor]:
    """The element-wise loss, for pixels or for the moduli of the non-focal frequency loss."""
    from pretrain.losses import elementwise

    has_spectral_form = options.kind in ("l1", "mse", "focal_l1", "focal_mse")
    shape = {name: getattr(options, name) for name in ("alpha", "gamma", "beta", "activate", "residual")}
    return elementwise("l1" if spectral and not has_spectral_form else options.kind, **shape)


def frequency(options: LossOptions, compared: Tensor, x: Tensor) -> Tensor:
    """L_freq without its weight: the mean over groups of `spectrum_images` images."""
    from pretrain.losses import focal_frequency_loss, frequency_distance_loss, mean_over_groups

    focal = ("average_spectrum", "log_matrix", "batch_matrix")
    if options.focal:
        settings = {name: getattr(options, name) for name in focal}
        loss = partial(focal_frequency_loss, alpha=options.frequency_alpha, **settings)
    else:
        distance = criterion(options, spectral=True)
        loss = partial(frequency_distance_loss, criterion=distance, reweight=options.reweight)
    return mean_over_groups(loss, compared, x, options.spectrum_images)


_FOCAL = LossOptions(kind="focal_l1", frequency_weight=0.5, frequency_unmask_weight=1e-3, spectrum_images=256)


def _resnet(model: str, epochs: int = 300) -> PretrainConfig:
    return PretrainConfig(
        model=model,
        method="a2mim",
        epochs=epochs,
        visualize_every_epochs=10 if (model, epochs) != ("r50", 300) else 25,
        data=DataConfig(crop_scale=(0.8, 1.0)),
        options=Options(token=TokenOptions(stage=3, form="gated"), loss=_FOCAL),
        optimizer=OptimizerConfig(
            base_learning_rate=3e-4,
            no_decay=released.RESNET_NO_DECAY,
            rate_scale=((released.TOKEN, 0.1),),
            clip_grad=None,
        ),
        schedule=released.COSINE,
    )


def _convnext(model: str) -> PretrainConfig:
    base = _resnet(model)
    loss = replace(_FOCAL, frequency_weight=0.0)
    return replace(
        base,
        visualize_every_epochs=25,
        options=Options(token=TokenOptions(stage=3, form="gated", init="zero"), loss=loss),
        optimizer=replace(
            base.optimizer,
            no_decay=released.CONVNEXT_NO_DECAY,
            rate_scale=((released.TOKEN, 0.1), (released.GATE, 0.1)),
        ),
    )


def _vit(model: str, spectrum_images: int = 128) -> PretrainConfig:
    loss = LossOptions(kind="l1", frequency_weight=0.1, frequency_unmask_weight=0.0, spectrum_images=spectrum_images)
    return released.vit("a2mim", model, Options(token=TokenOptions(stage=0, form="add"), loss=loss))


def for_family(family: str, model: str) -> PretrainConfig:
    """ResNets, ConvNeXts and ViTs by their own rules; Swins by the ViTs', with the frequency loss weighted 0.5 (no
    Swin run was released, only a model file); any other network by the ResNets', without decay on biases and norms."""
    if family == "convnext":
        return _convnext(model)
    if family in ("vit", "swin"):
        config = _vit(model)
        options: Any = config.options
        swin = with_options(config, loss=replace(options.loss, frequency_weight=0.5))
        return config if family == "vit" else replace(swin, drop_path=0.0)
    config = _resnet(model)
    return config if family == "resnet" else without_norm_decay(config)


def _as_in_the_paper(config: PretrainConfig) -> PretrainConfig:
    """Per-image spectra, detached predictions on visible pixels, a plainly added token, no decay on scales or gates."""
    options: Any = config.options
    token = replace(options.token, form="add", init="normal")
    loss = replace(options.loss, average_spectrum=False, spectrum_images=None, replace="prediction")
    return with_options(without_norm_decay(config), token=token, loss=loss)


@follows("A2MIM r50_l3_sz224_init_8xb256_cos_ep300", FLOAT32)
def a2mim_r50_300e() -> PretrainConfig:
    """A2MIM, ResNet-50, 300 epochs at 224 pixels.

    Source: A2MIM r50_l3_sz224_init_8xb256_cos_ep300. The gate has full rate and decay there (not so in the 100-epoch
    file).
    Expected: top-1 80.4 after rsb-a2, against 79.8 from scratch.
    Cost: 9.5 EFLOP.
    """
    return _resnet("r50")


@follows("A2MIM r50_l3_sz224_init_8xb256_cos_ep100", FLOAT32)
def a2mim_r50_100e() -> PretrainConfig:
    """A2MIM, ResNet-50, 100 epochs at 224 pixels.

    Source: A2MIM r50_l3_sz224_init_8xb256_cos_ep100: gate without decay, at a tenth of the rate.
    Expected: top-1 78.8 after rsb-a3 (the README prints it under an A2 heading), against 78.1 from scratch.
    Cost: 3.2 EFLOP.
    """
    base = _resnet("r50", epochs=100)
    rules = replace(
        base.optimizer,
        no_decay=(*released.RESNET_NO_DECAY, released.GATE),
        rate_scale=((released.TOKEN, 0.1), (released.GATE, 0.1)),
    )
    return replace(base, optimizer=rules)


@follows("A2MIM r50_l3_sz224_8xb256_cos_ep100", FLOAT32)
def a2mim_r50_100e_add() -> PretrainConfig:
    """Ablation of a2mim-r50-100e: the token is added to the features, without a gate.

    Source: A2MIM r50_l3_sz224_8xb256_cos_ep100. Expected: unknown. Cost: 3.2 EFLOP.
    """
    return with_options(_resnet("r50", epochs=100), token=TokenOptions(stage=3, form="add"))


@follows("A2MIM r50_l0_sz224_8xb256_cos_ep100", FLOAT32)
def a2mim_r50_100e_stem() -> PretrainConfig:
    """Ablation of a2mim-r50-100e: the token is added behind the stem.

    Source: A2MIM r50_l0_sz224_8xb256_cos_ep100. Expected: unknown. Cost: 3.2 EFLOP.
    """
    return with_options(_resnet("r50", epochs=100), token=TokenOptions(stage=0, form="add"))


@follows("a2mim-r50-300e")
def a2mim_r50_300e_paper() -> PretrainConfig:
    """a2mim-r50-300e with what the paper's text describes instead of what the released code does.

    A spectrum for each image instead of one for the mean error of 256; visible pixels replaced by the detached
    prediction; a plainly added token without gate; no decay on any norm scale.
    Expected: unknown. Cost: 9.5 EFLOP.
    """
    return _as_in_the_paper(_resnet("r50"))


@follows("A2MIM r101_l3_sz224_init_8xb256_cos_ep300", FLOAT32)
def a2mim_r101_300e() -> PretrainConfig:
    """A2MIM, ResNet-101, 300 epochs at 224 pixels; non-focal frequency loss of weight 0.1.

    Source: A2MIM r101_l3_sz224_init_8xb256_cos_ep300.
    Expected: top-1 81.9 after rsb-a2, against 81.3 from scratch.
    Cost: 18 EFLOP.
    """
    return with_options(_resnet("r101"), loss=replace(_FOCAL, focal=False, frequency_weight=0.1))


@follows("A2MIM r152_l3_sz224_init_8xb256_cos_ep300", FLOAT32)
@follows("OpenMixup r152 of 2023-05-25", {**FLOAT32, "options.loss.frequency_weight": 0.0})
def a2mim_r152_300e() -> PretrainConfig:
    """A2MIM, ResNet-152, 300 epochs at 224 pixels; non-focal frequency loss of weight 0.1.

    Source: A2MIM r152_l3_sz224_init_8xb256_cos_ep300; OpenMixup's copy of 2023-05-25 has frequency weight 0
    (`--options.loss.frequency-weight 0`). A2MIM is followed, as for the other ResNets.
    Expected: top-1 82.5 after rsb-a2, against 81.8 from scratch.
    Cost: 27 EFLOP.
    """
    return with_options(_resnet("r152"), loss=replace(_FOCAL, focal=False, frequency_weight=0.1))


@follows("A2MIM r200_l3_sz224_init_8xb256_cos_ep300", FLOAT32)
def a2mim_r200_300e() -> PretrainConfig:
    """A2MIM, ResNet-200, 300 epochs at 224 pixels; no frequency loss.

    Source: A2MIM r200_l3_sz224_init_8xb256_cos_ep300, whose model file exists in OpenMixup only (frequency weight 0).
    Expected: top-1 83.0 after rsb-a2, against 82.1 from scratch.
    Cost: 35 EFLOP.
    """
    return with_options(_resnet("r200"), loss=replace(_FOCAL, focal=False, frequency_weight=0.0))


@follows("A2MIM convnext_t_l3_sz224_init_8xb256_cos_ep300", FLOAT16)
def a2mim_convnext_t_300e() -> PretrainConfig:
    """A2MIM, ConvNeXt-T, 300 epochs at 224 pixels; no frequency loss, the token starts at zero.

    Source: A2MIM convnext_t_l3_sz224_init_8xb256_cos_ep300: its model file says frequency weight 0.5, the file itself
    0, which holds; peak rate 1.2e-3 (4e-4 before 2023-09-02). The token's initialiser is a no-op there.
    Expected: unknown. Cost: 10 EFLOP.
    """
    return _convnext("convnext_t")


@follows("OpenMixup convnext_s_l3_sz224_init_8xb256_cos_ep300", FLOAT16)
def a2mim_convnext_s_300e() -> PretrainConfig:
    """A2MIM, ConvNeXt-S, 300 epochs at 224 pixels; no frequency loss, the token starts at zero.

    Source: OpenMixup convnext_s_l3_sz224_init_8xb256_cos_ep300 (not in A2MIM).
    Expected: top-1 83.7 after convnext-ft, against 83.1 from scratch. Cost: 20 EFLOP.
    """
    return _convnext("convnext_s")


@follows("A2MIM convnext_b_l3_sz224_init_8xb256_cos_ep300", FLOAT16)
def a2mim_convnext_b_300e() -> PretrainConfig:
    """A2MIM, ConvNeXt-B, 300 epochs at 224 pixels; no frequency loss, the token starts at zero.

    Source: A2MIM convnext_b_l3_sz224_init_8xb256_cos_ep300, whose model file exists in OpenMixup only.
    Expected: top-1 84.1 after convnext-ft, against 83.5 from scratch. Cost: 35 EFLOP.
    """
    return _convnext("convnext_b")


@follows("A2MIM vit_small_l0_sz224_8xb256_step_ep800", FLOAT32)
def a2mim_vit_s_800e() -> PretrainConfig:
    """A2MIM, ViT-S (8 blocks, 768 wide: not DeiT-S), 800 epochs at 224 pixels.

    Source: A2MIM vit_small_l0_sz224_8xb256_step_ep800, whose model file exists in OpenMixup only.
    Expected: top-1 82.1 (fine-tuned for 200 epochs, SimMIM's row for 100). Cost: 61 EFLOP.
    """
    return _vit("vit_s", spectrum_images=256)


@follows("A2MIM vit_base_l0_sz224_8xb128_accu2_step_ep800", FLOAT32)
def a2mim_vit_b_800e() -> PretrainConfig:
    """A2MIM, ViT-B, 800 epochs at 224 pixels.

    Source: A2MIM vit_base_l0_sz224_8xb128_accu2_step_ep800. Frequency weight 0.1 (0.5 before 2022-07-13). The paper is
    quoted with a peak rate of 1.2e-3 and a cosine; the files of the ViTs have 4e-4 and a step, and are followed.
    Expected: top-1 84.3 after vit-ft. Cost: 108 EFLOP.
    """
    return _vit("vit_b")


@follows("a2mim-vit_b-800e")
def a2mim_vit_b_800e_paper() -> PretrainConfig:
    """a2mim-vit_b-800e with what the paper's text describes: a spectrum for each image, detached visible predictions.

    Expected: unknown. Cost: 108 EFLOP.
    """
    return _as_in_the_paper(_vit("vit_b"))


@follows("A2MIM vit_large_l0_sz224_8xb128_accu2_step_ep800", FLOAT32)
def a2mim_vit_l_800e() -> PretrainConfig:
    """A2MIM, ViT-L, 800 epochs at 224 pixels.

    Source: A2MIM vit_large_l0_sz224_8xb128_accu2_step_ep800.
    Expected: top-1 86.1 (fine-tuned for 150 epochs, SimMIM's row for 100). Cost: 379 EFLOP.
    """
    return _vit("vit_l")


METHOD = Method(
    name="a2mim",
    title="A2MIM",
    paper="Li et al., Architecture-Agnostic Masked Image Modeling, ICML 2023, arXiv 2205.13943",
    options=Options,
    build=build,
    for_family=lambda family, model: fitted(for_family(family, model)),
    smallest_cell=released.smallest_cell,
    elsewhere=released.BESIDE_ENCODER,
    recipes={
        "a2mim-r50-300e": a2mim_r50_300e,
        "a2mim-r50-100e": a2mim_r50_100e,
        "a2mim-r50-100e-add": a2mim_r50_100e_add,
        "a2mim-r50-100e-stem": a2mim_r50_100e_stem,
        "a2mim-r50-300e-paper": a2mim_r50_300e_paper,
        "a2mim-r101-300e": a2mim_r101_300e,
        "a2mim-r152-300e": a2mim_r152_300e,
        "a2mim-r200-300e": a2mim_r200_300e,
        "a2mim-convnext_t-300e": a2mim_convnext_t_300e,
        "a2mim-convnext_s-300e": a2mim_convnext_s_300e,
        "a2mim-convnext_b-300e": a2mim_convnext_b_300e,
        "a2mim-vit_s-800e": a2mim_vit_s_800e,
        "a2mim-vit_b-800e": a2mim_vit_b_800e,
        "a2mim-vit_b-800e-paper": a2mim_vit_b_800e_paper,
        "a2mim-vit_l-800e": a2mim_vit_l_800e,
    },
)
