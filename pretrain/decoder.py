"""The decoder both methods share: from the encoder's last map straight to pixels.

Shapes: B batch, C channels, h w positions of the last map, H <= stride h and W <= stride w pixels.
"""

from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn


class Decoder(nn.Module):
    """One 1x1 convolution C -> `colours` stride^2 and a pixel shuffle (SimMIM, Xie et al., CVPR 2022; also A2MIM).

    Weights are truncated normal with std 0.02, biases 0, as released.
    """

    def __init__(self, channels: int, stride: int, colours: int = 3) -> None:
        super().__init__()
        self.projection = nn.Conv2d(channels, colours * stride**2, kernel_size=1)
        self.shuffle = nn.PixelShuffle(stride)
        nn.init.trunc_normal_(self.projection.weight, std=0.02)
        nn.init.zeros_(cast(Tensor, self.projection.bias))

    def forward(self, latent_bchw: Tensor, size: Sequence[int] | None = None) -> Tensor:
        """(B, C, h, w) -> predicted normalised image (B, 3, H, W) of `size` (H, W).

        Where the positions are no whole pixels (networks whose convolutions do not pad), the image is cut off at the
        right and below, by less than a position.
        """
        image_bchw = cast(Tensor, self.shuffle(self.projection(latent_bchw)))
        return image_bchw if size is None else image_bchw[..., : size[0], : size[1]]
