"""From uint8 pixels to what the encoder sees and what it must predict, on the device, for the whole batch at once.

Shapes: B batch, H W pixels, g cells along a side.
"""

import torch
from torch import Tensor, nn

from pretrain.masking import expand_mask

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Normalise(nn.Module):
    """uint8 RGB pixels (B, 3, H, W) -> (p / 255 - mean) / std with ImageNet's statistics, in float32.

    In float64 once the model was cast to it. The result keeps the memory format of the images, or has channels_last if
    asked, which costs least here, while a pixel is one byte.
    """

    def __init__(self, *, channels_last: bool = False) -> None:
        super().__init__()
        self.memory_format = torch.channels_last if channels_last else torch.preserve_format
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
        self.register_buffer("mean", 255 * mean, persistent=False)
        self.register_buffer("scale", 1 / (255 * std), persistent=False)
        self.mean: Tensor
        self.scale: Tensor

    def forward(self, images_bchw: Tensor) -> Tensor:
        """The normalised images, about -2.1 to 2.6."""
        if self.memory_format == torch.channels_last:
            images_bchw = images_bchw.contiguous(memory_format=torch.channels_last)
        return (images_bchw - self.mean) * self.scale

    def inverse(self, normalised_bchw: Tensor) -> Tensor:
        """uint8 pixels of normalised images, values outside the range cut off."""
        return (normalised_bchw / self.scale + self.mean).round().clamp(0, 255).to(torch.uint8)


def fill_masked(images_bchw: Tensor, mask_bgg: Tensor) -> Tensor:
    """Paint the masked cells of every image with the image's own mean colour (A2MIM's encoder input).

    The mean is per image and channel, over ALL pixels of the normalised crop, masked ones included, as released.

    Args:
        images_bchw: normalised, (batch, 3, height, width).
        mask_bgg: (batch, rows, columns), non-zero where hidden.

    Returns:
        Same shape and memory format.
    """
    mean_bc11 = images_bchw.mean((2, 3), keepdim=True)
    return torch.where(expand_mask(mask_bgg, images_bchw.shape[-2:]), mean_bc11, images_bchw)
