"""Grey images for networks of one channel."""

import torch
from torch import Tensor

_LUMA = (0.299, 0.587, 0.114)  # ITU-R 601, as Pillow has it


def luma(pixels_bchw: Tensor, channels: int) -> Tensor:
    """Floating-point RGB pixels (B, 3, H, W) as they are, or their luma (B, 1, H, W) for a network of one channel."""
    if channels != 1:
        return pixels_bchw
    return (pixels_bchw * torch.tensor(_LUMA, device=pixels_bchw.device).view(1, 3, 1, 1)).sum(1, keepdim=True)
