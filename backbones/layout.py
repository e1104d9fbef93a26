"""How a network keeps its feature maps (NCHW, NHWC or tokens), and how to see any of them as NCHW.

B batch, C channels, h w map height and width, L tokens (prefix tokens first, then h * w patch tokens).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from .errors import BackboneError


@dataclass(frozen=True)
class Layout:
    """The memory order of a feature map at one place of a network."""

    kind: Literal["nchw", "nhwc", "tokens"]
    channels: int
    grid: tuple[int, int]
    """(h, w) at the build size; a token sequence of another length is taken as square."""
    num_prefix: int = 0
    """Class and register tokens before the patch tokens; never part of the map."""

    def to_map(self, features: Tensor) -> Tensor:
        """The patch features as (B, C, h, w): a view, whatever the layout."""
        if self.kind == "nchw":
            return features
        if self.kind == "nhwc":
            return features.permute(0, 3, 1, 2)
        patches_blc = features[:, self.num_prefix :]
        grid = self._token_grid(patches_blc.shape[1])
        return patches_blc.transpose(1, 2).view(patches_blc.shape[0], patches_blc.shape[2], *grid)

    def from_map(self, map_bchw: Tensor, features: Tensor) -> Tensor:
        """`map_bchw` in this layout again, with the prefix tokens of `features` in front where there are any."""
        if self.kind == "nchw":
            return map_bchw
        if self.kind == "nhwc":
            return map_bchw.permute(0, 2, 3, 1)
        patches_blc = map_bchw.flatten(2).transpose(1, 2)
        if not self.num_prefix:
            return patches_blc
        return torch.cat([features[:, : self.num_prefix], patches_blc], dim=1)

    def _token_grid(self, num_patches: int) -> tuple[int, int]:
        if num_patches == self.grid[0] * self.grid[1]:
            return self.grid
        side = math.isqrt(num_patches)
        if side * side != num_patches:
            raise BackboneError(
                f"{num_patches} patch tokens are not a square map and not the {self.grid} the network was built for: "
                "give this network square images."
            )
        return side, side


def find_layout(shape: Sequence[int], *, num_prefix: int, channels_last: bool, where: str) -> Layout:
    """The layout of a square map's features of shape (B, C, h, h), (B, h, h, C) or (B, L, C).

    `num_prefix` is how many prefix tokens the network says it has (they may not be there yet at this place, and some
    networks that have one do not say so), `channels_last` decides when C = h. Raises BackboneError, naming `where`, for
    any other shape.
    """
    if len(shape) == 4:
        nchw, nhwc = shape[2] == shape[3], shape[1] == shape[2]
        if nhwc and (channels_last or not nchw):
            return Layout("nhwc", channels=shape[3], grid=(shape[1], shape[2]))
        if nchw:
            return Layout("nchw", channels=shape[1], grid=(shape[2], shape[3]))
    if len(shape) == 3:
        for prefix in dict.fromkeys((num_prefix, 0, 1)):
            side = math.isqrt(max(shape[1] - prefix, 0))
            if side and side * side == shape[1] - prefix:
                return Layout("tokens", channels=shape[2], grid=(side, side), num_prefix=prefix)
    raise BackboneError(f"{where} gives a tensor of shape {tuple(shape)}, which is not a map of patch features.")


def pixels_per_position(image_size: int, map_size: int) -> int:
    """The stride of a map: the power of two that gives `map_size` when rounding up, else the ratio, rounded."""
    powers = (2**exponent for exponent in range(10))
    return next(
        (stride for stride in powers if math.ceil(image_size / stride) == map_size), round(image_size / map_size)
    )
