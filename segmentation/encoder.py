"""Our encoders as an MMSegmentation backbone: `dict(type="SuiteEncoder", model="r50", image_size=512)`.

B batch, C channels, H W image, h w map height and width.
"""

from typing import Any, Literal

import torch
from mmengine.model import BaseModule
from mmseg.registry import MODELS
from torch import Tensor

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
        frozen: whether nothing of it trains, as Backbone.freeze.
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
        self.init, self.maps = init, maps
        self._stages = _dilated_stages(self.encoder) if options else None
        if frozen:
            self.encoder.freeze()
        elif self._stages is None and not self.after_norm:
            self.encoder.freeze_unused_by_features()  # the final norm
        self.channels = tuple(int(m.shape[1]) for m in run_on_shapes(self.encoder, self.forward, image_size))
        if maps == "stages" and len(self.channels) != 4:
            raise ConfigError(f"model {model} gives {len(self.channels)} feature maps, segmentation needs four")

    @property
    def after_norm(self) -> bool:
        """Whether the maps are taken after the final norm: the last one, or the last blocks' of a ViT."""
        return self._stages is None and (self.maps == "last" or (self.maps == "four" and self.encoder.single_stride))

    def forward(self, images_bchw: Tensor) -> tuple[Tensor, ...]:
        """The maps."""
        if self.after_norm and self.maps == "last":
            return (self.encoder(images_bchw),)
        if self.after_norm:
            depth = len(self.encoder.net.feature_info)
            return tuple(self.encoder.maps_at(images_bchw, range(depth)[-4:], norm=True))
        if self._stages is None:
            return tuple(self.encoder.features(images_bchw))
        maps = tuple(self.encoder.maps_at(images_bchw, self._stages))
        return maps[-1:] if self.maps == "last" else maps

    def init_weights(self) -> None:
        """Load `init`; timm has initialised the rest."""
        if self.init != "none":
            load_weights(self.encoder, self.init)


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
