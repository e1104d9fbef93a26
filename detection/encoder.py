"""How a detector sees our backbones: named maps of known strides, and the pyramid for networks with one stride.

B batch, C channels, h w map height and width.
"""

import math
from collections.abc import Callable, Iterable

import torch
from timm.layers.norm import LayerNorm2d
from torch import Tensor, nn

from backbones import IMAGENET_MEAN, IMAGENET_STD, Backbone, build_backbone
from backbones.probe import refusal_of
from detection.config import DetectionConfig
from engine.errors import ConfigError

PIXEL_MEAN = tuple(255 * value for value in IMAGENET_MEAN)
PIXEL_STD = tuple(255 * value for value in IMAGENET_STD)
"""Of RGB values 0 to 255, as detectors take images."""
C4_STRIDE = 16


def build_encoder(config: DetectionConfig) -> Backbone:
    """The encoder of a run, freshly initialised from the seed.

    Raises:
        ConfigError: it takes images of one size only and the configuration pads to none.
        BackboneError: the name, the size or the drop path do not fit a timm network.
    """
    torch.manual_seed(config.seed)
    backbone = build_backbone(config.model, image_size=config.build_size, drop_path=config.drop_path)
    if not config.data.square and (refusal := refusal_of(backbone, backbone.features, (64, 96))):
        least = math.ceil(config.data.max_side / 32) * 32
        raise ConfigError(
            f"{config.model} refuses an image of 96x64 pixels ({refusal}), as networks do that take one size only: pad "
            f"them to a square (--data.square {least}; longest side now {config.data.max_side}, --data.max-side)"
        )
    return backbone


class Encoder(nn.Module):
    """A backbone's maps by name: `c2` has stride 4, `c5` stride 32; a ViT has its last one only (`c4`).

    Its parts that no map depends on (the final norm) are frozen.

    Args:
        backbone: ours; shared, not copied.
        smallest_stride: maps of a finer stride are left out.
        frozen: whether nothing of it trains, as Backbone.freeze.
    """

    def __init__(self, backbone: Backbone, smallest_stride: int = 1, *, frozen: bool = False) -> None:
        super().__init__()
        backbone.freeze_unused_by_features()
        if frozen:
            backbone.freeze()
        self.backbone = backbone
        num_maps = len(backbone.strides)
        fine_enough = [place for place in range(num_maps) if backbone.strides[place] >= smallest_stride]
        self._places = [num_maps - 1] if backbone.single_stride else fine_enough
        self.strides = {map_name(backbone.strides[place]): backbone.strides[place] for place in self._places}
        self.channels = {map_name(backbone.strides[place]): backbone.channels[place] for place in self._places}

    def forward(self, images_bchw: Tensor) -> dict[str, Tensor]:
        """Normalised images (B, 3, H, W) -> {name: (B, C, h, w)}, finest first."""
        maps = self.backbone.features(images_bchw)
        return {name: maps[place] for name, place in zip(self.strides, self._places, strict=True)}


class C4Encoder(nn.Module):
    """A backbone's map of stride 16, `c4`; its last stage is taken out and becomes the head of the proposals.

    Args:
        backbone: ours, with its weights loaded; shared, and changed: its last stage is replaced by nothing.

    Raises:
        ConfigError: the network has no last stage that takes the map of stride 16 as it is.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        stages = [str(info["module"]) for info in backbone.net.feature_info if info["reduction"] >= 4]
        if not backbone.is_cnn or len(stages) < 2 or backbone.strides[-2:] != (C4_STRIDE, 2 * C4_STRIDE):
            raise ConfigError(
                f"{backbone.name} has no last stage on a map of stride {C4_STRIDE} (ResNets and ConvNeXts have): "
                "use a recipe with FPN"
            )
        backbone.freeze_unused_by_features()
        self._index = len(backbone.net.feature_info) - 2
        self.last_stage: nn.Module = backbone.net.get_submodule(stages[-1])
        parent, _, child = stages[-1].rpartition(".")
        setattr(backbone.net.get_submodule(parent), child, nn.Identity())
        self.backbone = backbone
        self.strides = {"c4": C4_STRIDE}
        self.channels = {"c4": backbone.channels[-2]}

    def take_last_stage(self) -> nn.Module:
        """The last stage, to be put elsewhere; it is no part of this module afterwards."""
        stage = self.last_stage
        del self.last_stage
        return stage

    def forward(self, images_bchw: Tensor) -> dict[str, Tensor]:
        """Normalised images (B, 3, H, W) -> {"c4": (B, C, H / 16, W / 16)}."""
        return {"c4": self.backbone.maps_at(images_bchw, [self._index])[0]}


def map_name(stride: int) -> str:
    """c and the binary logarithm of the stride."""
    return f"c{round(math.log2(stride))}"


class SimplePyramid(nn.Module):
    """Maps of strides 4, 8, 16 and 32 from one map of stride 16 (Li et al. 2022, "simple feature pyramid").

    Two transposed convolutions, one, none, or a max pooling, each followed by a 1x1 and a 3x3 convolution.

    Args:
        channels: C of the map.
        out_channels: of every level.
        norm: makes the norm after a convolution; None for biases instead.
        scales: of the levels relative to the map, among 4, 2, 1 and 0.5.
    """

    def __init__(
        self, channels: int, out_channels: int, norm: Callable[[int], nn.Module] | None, scales: Iterable[float]
    ) -> None:
        super().__init__()
        self.levels = nn.ModuleList(_level(scale, channels, out_channels, norm) for scale in scales)

    def forward(self, map_bchw: Tensor) -> list[Tensor]:
        """(B, C, h, w) -> one (B, out_channels, h * scale, w * scale) for each scale."""
        return [level(map_bchw) for level in self.levels]


def _level(scale: float, channels: int, out_channels: int, norm: Callable[[int], nn.Module] | None) -> nn.Module:
    layers: list[nn.Module] = []
    if scale == 4:
        between = norm(channels // 2) if norm else LayerNorm2d(channels // 2)
        layers += [nn.ConvTranspose2d(channels, channels // 2, 2, 2), between, nn.GELU()]
        layers += [nn.ConvTranspose2d(channels // 2, channels // 4, 2, 2)]
        channels //= 4
    elif scale == 2:
        layers += [nn.ConvTranspose2d(channels, channels // 2, 2, 2)]
        channels //= 2
    elif scale == 0.5:
        layers += [nn.MaxPool2d(2, 2)]
    for kernel in (1, 3):
        layers.append(nn.Conv2d(channels, out_channels, kernel, padding=kernel // 2, bias=norm is None))
        layers += [norm(out_channels)] if norm else []
        channels = out_channels
    return nn.Sequential(*layers)
