"""Our encoders as an MMSegmentation backbone: `dict(type="SuiteEncoder", model="r50", image_size=512)`.

B batch, C channels, H W image, h w map height and width.
"""

from typing import Any, Literal

import torch
from mmengine.model import BaseModule
from mmseg.registry import MODELS
from torch import Tensor, nn

from backbones import Backbone, build_backbone, load_weights
from backbones.probe import run_on_shapes
from engine.errors import ConfigError


@MODELS.register_module()
class SuiteEncoder(BaseModule):  # type: ignore[misc]
    """A Backbone where MMSegmentation expects one: images (B, 3, H, W) to a tuple of maps (B, C, h, w), finest first.

    The maps are those of Backbone.features. With an output_stride below 32 they are the ends of the same four stages
    of a ResNet, whose last ones dilate instead of striding, on the same weights. Under a linear head they are the last
    one, after the network's final norm, or four: of a network with stages the same four, of a ViT those of its last
    four blocks, each after the final norm.

    Args:
        model: a published name or any timm model.
        image_size: the size in pixels that networks with fixed positions are built for: the crop.
        drop_path: largest stochastic-depth rate.
        output_stride: 32, or 16 or 8 for dilation.
        maps: "stages" for the four of Backbone.features, "last" or "four" for a linear head.
        frozen: whether nothing of it trains: no gradients, and evaluation mode even in `train()`, so that batch norm
            keeps the statistics of the pre-training, and dropout and stochastic depth are off.
        init: "none", a weight file, or a run folder; loaded by init_weights, which MMSegmentation's tools call.

    Raises:
        ConfigError: the network cannot be dilated, or its maps are not four.
        BackboneError: the name, the size or the drop path do not fit a timm network.
    """

    def __init__(
        self,
        model: str,
        *,
        image_size: int,
        drop_path: float = 0.0,
        output_stride: int = 32,
        maps: Literal["stages", "last", "four"] = "stages",
        frozen: bool = False,
        init: str = "none",
    ) -> None:
        super().__init__()
        options = {} if output_stride == 32 else {"output_stride": output_stride}
        self.encoder = build_backbone(model, image_size=image_size, drop_path=drop_path, **options)
        self.init, self.maps, self.frozen = init, maps, frozen
        self._stages = _dilated_stages(self.encoder) if options else None
        if frozen:
            self.encoder.requires_grad_(False)
        elif self._stages is None and not self.after_norm:
            self.encoder.freeze_unused_by_features()  # the final norm
        self.channels = tuple(int(m.shape[1]) for m in run_on_shapes(self.encoder, self.forward, image_size))
        if maps == "stages" and len(self.channels) != 4:
            raise ConfigError(f"model {model} gives {len(self.channels)} feature maps, segmentation needs four")

    @property
    def after_norm(self) -> bool:
        """Whether the maps are taken after the final norm: the last one, or the last blocks' of a ViT."""
        return self._stages is None and (self.maps == "last" or (self.maps == "four" and self.single_stride))

    def train(self, mode: bool = True) -> "SuiteEncoder":
        """Set the mode; a frozen encoder stays in evaluation mode."""
        super().train(mode and not self.frozen)
        return self

    def forward(self, images_bchw: Tensor) -> tuple[Tensor, ...]:
        """The maps."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            return self._maps(images_bchw)

    def _maps(self, images_bchw: Tensor) -> tuple[Tensor, ...]:
        if self.after_norm and self.maps == "last":
            return (self.encoder(images_bchw),)
        if self.after_norm:
            depth = len(self.encoder.net.feature_info)
            return self._intermediates(images_bchw, list(range(depth))[-4:], norm=True)
        if self._stages is None:
            return tuple(self.encoder.features(images_bchw))
        maps = self._intermediates(images_bchw, self._stages, norm=False)
        return maps[-1:] if self.maps == "last" else maps

    def _intermediates(self, images_bchw: Tensor, indices: list[int], *, norm: bool) -> tuple[Tensor, ...]:
        return tuple(
            self.encoder.net.forward_intermediates(
                images_bchw, indices=indices, norm=norm, output_fmt="NCHW", intermediates_only=True
            )
        )

    def init_weights(self) -> None:
        """Load `init`; timm has initialised the rest."""
        if self.init != "none":
            load_weights(self.encoder, self.init)

    @property
    def single_stride(self) -> bool:
        """Whether all maps have the same stride (ViT), so that UPerNet needs a pyramid made from them."""
        return len(set(self.encoder.strides)) == 1

    def why_not_any_size(self) -> str:
        """The network's reason to refuse images of twice the build size; "" if it takes them."""
        try:
            run_on_shapes(self.encoder, self.forward, 2 * self.encoder.image_size)
        except (AssertionError, RuntimeError, ValueError) as error:
            return str(error) or type(error).__name__
        return ""


def _dilated_stages(encoder: Backbone) -> list[int]:
    """Positions in timm's feature_info of the four stages after the stem of a ResNet."""
    net: Any = encoder.net
    modules = [info["module"] for info in net.feature_info]
    if modules[-4:] != ["layer1", "layer2", "layer3", "layer4"]:
        raise ConfigError(f"output_stride: {encoder.name} is no ResNet; only those are dilated, use 32")
    return [modules.index(name) for name in modules[-4:]]


def shape_of_encoder(options: dict[str, Any]) -> SuiteEncoder:
    """The encoder of these constructor arguments as shapes without values, to read channels and strides from."""
    with torch.device("meta"):
        return SuiteEncoder(**options)


def in_float32(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    """A forward hook that makes scores float32, so that upsampling, softmax and loss are not rounded to bfloat16."""
    return output.float()
