"""What a frozen encoder computes at any depth: maps and class tokens, before and after the network's final norm.

B batch, C channels, h w map height and width. A layer is counted from 1: the blocks of a Transformer, the maps of
`feature_info` of other networks (a ResNet's stem and four stages).
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from .encoder import Backbone
from .errors import BackboneError

NormKind = Literal["inside", "after pooling", "none"]


@dataclass(frozen=True)
class Level:
    """What a layer gives, before the final norm."""

    layer: int
    map_bchw: Tensor
    """Patch features or the cells of a map."""
    cls_bc: Tensor | None
    """The class token, where the network has one."""
    images_bchw: Tensor
    """What was looked at."""


class Readout:
    """Reads an encoder. `backbone` is in evaluation mode, `device` where it is when images come.

    How the network ends is found out on one image of noise, not by its class: the final norm may stand inside
    `forward_features` (Transformers, Swin) or behind the pooling (ConvNeXt), or there is none (ResNet).
    """

    depth: int
    """Number of layers."""
    layer_names: tuple[str, ...]
    """The module that each ends with."""
    has_class_token: bool
    is_tokens: bool
    """Whether its maps are those of a Transformer of one width, so that their mean is that of the patch tokens."""
    norm: NormKind
    """Where the network's final norm stands."""

    def __init__(self, backbone: Backbone) -> None:
        net = backbone.net
        self.backbone, self.net = backbone, net
        self.depth = len(net.feature_info)
        infos = [info if isinstance(info, dict) else {} for info in net.feature_info]
        self.layer_names = tuple(str(info.get("module", number)) for number, info in enumerate(infos, start=1))
        takes_prefix = "return_prefix_tokens" in inspect.signature(net.forward_intermediates).parameters
        self.has_class_token = takes_prefix and isinstance(getattr(net, "cls_token", None), nn.Parameter)
        self._norm: nn.Module | None = None
        self._find_end()

    @torch.no_grad()
    def _find_end(self) -> None:
        size, channels = self.backbone.image_size, self.backbone.in_channels
        noise = torch.rand(1, channels, size, size, generator=torch.Generator().manual_seed(0))
        noise = noise.to(next(self.backbone.parameters()).device)
        level = self(noise, [self.depth])[0]
        final_bchw, self._final_cls = self._final(noise)
        self.is_tokens = self.backbone._is_isotropic
        self._follows = final_bchw.shape != level.map_bchw.shape  # layers behind the last map
        if name := self.backbone._final_norm:
            self.norm, self._norm = "after pooling", self.net.get_submodule(name)
        elif self._follows or torch.allclose(final_bchw, level.map_bchw, rtol=1e-5, atol=1e-6):
            self.norm = "none"
        else:
            self.norm = "inside"
            norm = getattr(self.net, "norm", None)
            if isinstance(norm, nn.Module) and _same(norm, level.map_bchw, final_bchw):
                self._norm = norm

    def __call__(self, images_bchw: Tensor, layers: Sequence[int]) -> list[Level]:
        """The layers' features of normalised images (B, 3, H, W), in one forward pass.

        Raises BackboneError for a layer that the network does not have.
        """
        wrong = [layer for layer in layers if not 1 <= layer <= self.depth]
        if wrong:
            raise BackboneError(f"{self.backbone.name} has the layers 1 to {self.depth}, not {wrong[0]}.")
        options: dict[str, Any] = {"return_prefix_tokens": True} if self.has_class_token else {}
        found = self.net.forward_intermediates(
            images_bchw,
            indices=[layer - 1 for layer in sorted(set(layers))],
            norm=False,
            output_fmt="NCHW",
            intermediates_only=True,
            **options,
        )
        levels = {}
        for layer, value in zip(sorted(set(layers)), found, strict=True):
            map_bchw, prefix = value if self.has_class_token else (value, None)
            cls_bc = None if prefix is None else prefix[:, 0]
            levels[layer] = Level(layer, map_bchw, cls_bc, images_bchw)
        return [levels[layer] for layer in layers]

    def has_norm(self, layer: int) -> bool:
        """Whether the final norm can be applied to a layer: to the last one, and to any of the same width."""
        if self.norm == "none":
            return False
        return layer == self.depth or (self.is_tokens and self.norm == "inside" and self._norm is not None)

    def patches(self, level: Level, *, norm: bool) -> Tensor:
        """A layer's positions as (B, h * w, C), after the final norm where it has one and `norm` asks for it."""
        map_bchw = level.map_bchw
        if level.layer == self.depth and (self._follows or (norm and self.norm == "inside" and self._norm is None)):
            map_bchw = self._final(level.images_bchw)[0]
        patches_blc = map_bchw.flatten(2).transpose(1, 2)
        if norm and self._norm is not None and self.has_norm(level.layer):
            patches_blc = _apply(self._norm, patches_blc)
        return patches_blc

    def mean(self, level: Level, *, norm: bool) -> Tensor:
        """The mean over a layer's positions (B, C). The final norm comes before it or behind it, as in the network."""
        behind = norm and self.norm == "after pooling" and self.has_norm(level.layer)
        mean_bc = self.patches(level, norm=norm and not behind).mean(1)
        return _apply(cast(nn.Module, self._norm), mean_bc) if behind else mean_bc

    def class_token(self, level: Level, *, norm: bool) -> Tensor:
        """A layer's class token (B, C).

        Raises BackboneError where the network has none.
        """
        if level.cls_bc is None:
            raise BackboneError(f"{self.backbone.name} has no class token: take the mean.")
        if not norm or not self.has_norm(level.layer):
            return level.cls_bc
        if self._norm is not None:
            return _apply(self._norm, level.cls_bc)
        cls_bc = self._final(level.images_bchw)[1]
        assert cls_bc is not None
        return cls_bc

    def _final(self, images_bchw: Tensor) -> tuple[Tensor, Tensor | None]:
        """What forward_features gives: the map, and the class token where it is there."""
        features = self.backbone._final_features(images_bchw)
        layout = self.backbone._final_layout
        assert layout is not None
        cls_bc = features[:, 0] if self.has_class_token and layout.num_prefix else None
        return layout.to_map(features), cls_bc


def _apply(norm: nn.Module, features: Tensor) -> Tensor:
    """A norm over the last axis of (B, C) or (B, L, C), whether it is made for tokens or for maps."""
    if isinstance(norm, nn.LayerNorm) and "2d" not in type(norm).__name__.lower():
        return cast(Tensor, norm(features))
    as_map = features[:, None] if features.ndim == 2 else features
    out: Tensor = norm(as_map.transpose(1, 2)[..., None])[..., 0].transpose(1, 2)
    return out[:, 0] if features.ndim == 2 else out


def _same(norm: nn.Module, raw_bchw: Tensor, final_bchw: Tensor) -> bool:
    """Whether the norm alone makes the final map of the last layer's."""
    try:
        normed = _apply(norm, raw_bchw.flatten(2).transpose(1, 2))
    except (RuntimeError, TypeError, ValueError):
        return False
    return torch.allclose(normed, final_bchw.flatten(2).transpose(1, 2), rtol=1e-4, atol=1e-5)
