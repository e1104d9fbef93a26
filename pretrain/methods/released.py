"""What A2MIM and SimMIM share, as their released configurations have it: the mask token's options, which parameters
have no weight decay, and the schedules. Free of torch, so that help texts are quick.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

from backbones import PUBLISHED
from pretrain.config import DataConfig, MethodOptions, OptimizerConfig, PretrainConfig, ScheduleConfig

TokenForm = Literal["replace", "add", "gated"]
TokenInit = Literal["normal", "zero"]


@dataclass(frozen=True, kw_only=True)
class TokenOptions:
    """Where and how the learnable mask token enters the encoder."""

    stage: int | str = 0
    """Before which stage (`Backbone.entry`): the published index, e.g. 3 before a ResNet's layer4, or a module name."""
    form: TokenForm = "gated"
    """"replace", "add" or "gated"; see `pretrain.masking.MaskToken`."""
    init: TokenInit = "normal"
    """Truncated normal with std 0.02, or zero (the released ConvNeXt)."""


BATCH_NORM, BIAS, TOKEN, GATE = r"(bn|ln|gn)(\d+)?.(weight|bias)", r"bias", r"mask_token", r"mask_gamma"
RESNET_NO_DECAY = (BATCH_NORM, BIAS, TOKEN)
CONVNEXT_NO_DECAY = (BATCH_NORM, BIAS, TOKEN, r"gamma")  # "gamma" is the layer scale, and matches mask_gamma too
VIT_NO_DECAY = (BATCH_NORM, r"norm", BIAS, TOKEN, r"pos_embed", r"cls_token", r"gamma")
CLEAN_NO_DECAY = (
    *VIT_NO_DECAY,
    r"layer\d\.\d+\.downsample\.1\.weight",  # ResNet: batch norm of the shortcut
    r"stem\.1\.weight",  # ConvNeXt: layer norm of the stem
    r"stages\.\d\.downsample\.0\.weight",  # ConvNeXt: layer norm before a downsampling
)
"""Every bias, norm scale, layer scale, token and position table, in the names of ResNets, ConvNeXts and ViTs."""

COSINE = ScheduleConfig(kind="warmup_times_cosine", warmup_epochs=10, min_rate=1e-5)
STEP = ScheduleConfig(kind="step", warmup_epochs=10, warmup_start=2e-6, milestones=(700,))


BESIDE_ENCODER = {
    "token.mask_token": ("mask_token",),
    "token.mask_gamma": ("mask_gamma",),
    "decoder.projection.weight": ("neck.decoder_pred.0.weight", "neck.decoder.0.weight", "decoder.0.weight"),
    "decoder.projection.bias": ("neck.decoder_pred.0.bias", "neck.decoder.0.bias", "decoder.0.bias"),
}
"""What A2MIM (whose decoder is decoder_pred), OpenMixup's SimMIM and the official SimMIM call token and decoder."""

_STRIDES: dict[str, dict[int | str, int]] = {
    **{key: {0: 4, 3: 16} for key in ("r50", "r101", "r152", "r200")},
    **{key: {0: 4, 3: 32} for key in ("convnext_t", "convnext_s", "convnext_b")},
    **{key: {0: 16} for key in ("vit_s", "vit_b", "vit_l", "deit_s")},
    **{key: {0: 4} for key in ("swin_t", "swin_b")},
}
"""Where the token enters the published networks: stage -> stride."""


def with_options(config: PretrainConfig, **changes: Any) -> PretrainConfig:
    """The same with other options of its method."""
    options: Any = config.options
    return replace(config, options=replace(options, **changes))


def without_norm_decay(config: PretrainConfig) -> PretrainConfig:
    """The same with no decay on any bias, norm scale, layer scale or token."""
    return replace(config, optimizer=replace(config.optimizer, no_decay=CLEAN_NO_DECAY))


def vit(method: str, model: str, options: MethodOptions) -> PretrainConfig:
    """A ViT's, the same in both methods but for the options."""
    return PretrainConfig(
        model=model,
        method=method,
        epochs=800,
        drop_path=0.1,
        data=DataConfig(crop_scale=(0.67, 1.0)),
        options=options,
        optimizer=OptimizerConfig(base_learning_rate=1e-4, no_decay=VIT_NO_DECAY, clip_grad=5.0),
        schedule=STEP,
    )


def smallest_cell(config: PretrainConfig) -> int:
    """Side in pixels that a mask cell must be a multiple of: the stride of the map where the token enters.

    A network without published recipes is built, on shapes.
    """
    options: Any = config.options
    stride = _STRIDES.get(config.model, {}).get(options.token.stage)
    if stride is None:
        from backbones.suggest import shapes_of

        stride = shapes_of(config.model, 128).entry(options.token.stage).stride
    return stride


def fitted(config: PretrainConfig) -> PretrainConfig:
    """The configuration with the image size, token stage and mask cells that fit its network and are nearest to those
    it has. A published network keeps its own.

    Raises:
        BackboneError: the network cannot be pre-trained; the reason.
    """
    if config.model in PUBLISHED:
        return config
    from backbones.suggest import suggest

    options: Any = config.options
    found = suggest(config.model, options.token.stage, image_size=config.image_size, cell_size=config.mask.cell_size)
    return replace(
        config,
        image_size=found.image_size,
        mask=replace(config.mask, cell_size=found.cell_size),
        options=replace(options, token=replace(options.token, stage=found.stage)),
    )
