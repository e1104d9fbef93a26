"""A linear classifier of every position of an encoder's maps, as MMSegmentation's decode head "LinearHead".

B batch, C channels, K classes, h w map height and width.
"""

from typing import Any

import torch
import torch.nn.functional as F
from mmcv.cnn import build_norm_layer
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import MODELS
from torch import Tensor


@MODELS.register_module()
class LinearHead(BaseDecodeHead):  # type: ignore[misc]
    """Batch norm, dropout and a 1x1 convolution, nothing hidden (the linear head of DINOv2, Oquab et al. 2023).

    Several maps are brought to the size of the finest but one (stride 8 of a network with stages, no change where all
    have one stride) by bilinear interpolation and concatenated.

    Args:
        in_channels: C of each map.
        options: of BaseDecodeHead.
    """

    def __init__(self, in_channels: list[int], **options: Any) -> None:
        width, every = sum(in_channels), list(range(len(in_channels)))
        several = {"in_index": every, "input_transform": "multiple_select"}
        super().__init__(in_channels=in_channels, channels=width, **several, **options)
        self.norm = build_norm_layer(self.norm_cfg, width)[1]

    def forward(self, maps: tuple[Tensor, ...]) -> Tensor:
        """Maps (B, C, h, w) to scores (B, K, h, w)."""
        size = maps[min(1, len(maps) - 1)].shape[2:]
        same = [m if m.shape[2:] == size else F.interpolate(m, size, mode="bilinear") for m in maps]
        scores: Tensor = self.cls_seg(self.norm(torch.cat(same, dim=1)))
        return scores
