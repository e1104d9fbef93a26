"""Our encoders as an MMSegmentation backbone: `dict(type="SuiteEncoder", model="r50", image_size=512)`.

B batch, C channels, H W image, h w map height and width.
"""

from typing import Any

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
    of a ResNet, whose last ones dilate instead of striding, on the same weights.

    Args:
        model: a published name or any timm model.
        image_size: the size in pixels that networks with fixed positions are built for: the crop.
        drop_path: largest stochastic-depth rate.
        output_stride: 32, or 16 or 8 for dilation.
        init: "none", a weight file, or a run folder; loaded by init_weights, which MMSegmentation's tools call.

    Raises:
        ConfigError: the network cannot be dilated, or its maps are not four.
        BackboneError: the name, the size or the drop path do not fit a timm network.
    """

    def __init__(
        self, model: str, *, image_size: int, drop_path: float = 0.0, output_stride: int = 32, init: str = "none"
    ) -> None:
        super().__init__()
        options = {} if output_stride == 32 else {"output_stride": output_stride}
        self.encoder = build_backbone(model, image_size=image_size, drop_path=drop_path, **options)
        self.init = init
        self._stages = _dilated_stages(self.encoder) if options else None
        if self._stages is None:
            self.encoder.freeze_unused_by_features()  # the final norm
        self.channels = tuple(int(m.shape[1]) for m in run_on_shapes(self.encoder, self.forward, image_size))
        if len(self.channels) != 4:
            raise ConfigError(f"model {model} gives {len(self.channels)} feature maps, segmentation needs four")

    def forward(self, images_bchw: Tensor) -> tuple[Tensor, ...]:
        """The four maps."""
        if self._stages is None:
            return tuple(self.encoder.features(images_bchw))
        return tuple(
            self.encoder.net.forward_intermediates(
                images_bchw, indices=self._stages, norm=False, output_fmt="NCHW", intermediates_only=True
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
