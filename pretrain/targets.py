"""From uint8 pixels to what the encoder sees and what it must predict, on the device, for the whole batch at once.

Shapes: B batch, H W pixels, g cells along a side.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from backbones import IMAGENET_MEAN as IMAGENET_MEAN
from backbones import IMAGENET_STD as IMAGENET_STD
from engine.data.grey import luma
from pretrain.masking import expand_mask


class Normalise(nn.Module):
    """uint8 pixels (B, C, H, W) -> (p / 255 - mean) / std in float32, by default of RGB with ImageNet's statistics.

    With one value of each, the luma (B, 1, H, W) of RGB pixels is what is normalised.

    Computed in this order, so that every bit is that of torchvision's ToTensor and Normalize: a training step of a deep
    ReLU network differs visibly otherwise. Cast to float64 once the model was. With `channels_last` the result has that
    memory format on a GPU. On a CPU it is planar: torch's BatchNorm there loses two digits in channels_last (5e-6 in
    the running mean of a first layer), and little time is gained.
    """

    def __init__(
        self,
        *,
        channels_last: bool = False,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        super().__init__()
        self.channels_last = channels_last
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(tuple(values)).view(1, -1, 1, 1), persistent=False)
        self.mean: Tensor
        self.std: Tensor

    def memory_format(self, device: torch.device) -> torch.memory_format:
        """The memory format of images on a device."""
        return torch.channels_last if self.channels_last and device.type == "cuda" else torch.contiguous_format

    def forward(self, images_bchw: Tensor) -> Tensor:
        """The normalised images, about -2.1 to 2.6."""
        memory_format = self.memory_format(images_bchw.device)
        pixels_bchw = images_bchw.to(torch.float32, memory_format=memory_format, copy=True)
        pixels_bchw = luma(pixels_bchw, self.mean.shape[1])
        return pixels_bchw.div_(255).sub_(self.mean.float()).div_(self.std.float()).to(self.mean.dtype)

    def inverse(self, normalised_bchw: Tensor) -> Tensor:
        """uint8 pixels (B, C, H, W) of normalised images, values outside the range cut off; RGB of grey ones."""
        pixels_bchw = (255 * (normalised_bchw * self.std + self.mean)).round().clamp(0, 255).to(torch.uint8)
        return pixels_bchw.expand(-1, 3, -1, -1) if pixels_bchw.shape[1] == 1 else pixels_bchw


def fill_masked(images_bchw: Tensor, mask_bgg: Tensor) -> Tensor:
    """Paint the masked cells of every image with the image's own mean colour (A2MIM's encoder input).

    The mean is per image and channel, over ALL pixels of the normalised crop, masked ones included, as released.

    Args:
        images_bchw: normalised, (batch, 3, height, width).
        mask_bgg: (batch, rows, columns), non-zero where hidden.

    Returns:
        Same shape and memory format.
    """
    mean_bc111 = images_bchw.mean((2, 3), keepdim=True)[..., None]
    rows, width = mask_bgg.shape[1], images_bchw.shape[3]
    # One mask per row of cells, not per row of pixels, and lerp, which is exact at 0 and 1, instead of torch.where: the
    # same bits in a fifth of the time on a CPU.
    hidden_b1r1w = expand_mask(mask_bgg, (rows, width), images_bchw.dtype)[:, :, :, None]
    return torch.lerp(torch.unflatten(images_bchw, 2, (rows, -1)), mean_bc111, hidden_b1r1w).flatten(2, 3)
