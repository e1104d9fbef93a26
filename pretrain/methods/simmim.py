"""SimMIM: A Simple Framework for Masked Image Modeling (Xie et al., CVPR 2022), the baseline of A2MIM.

A learnable token stands for the masked cells inside the encoder, and the prediction is compared with the image by L1.

Shapes: B batch, H W pixels, g cells along a side.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from backbones import Backbone
from pretrain.config import TokenConfig
from pretrain.decoder import Decoder
from pretrain.losses import l1, masked_mean
from pretrain.masking import MaskToken, expand_mask
from pretrain.targets import Normalise, fill_masked


class SimMIM(nn.Module):
    """An encoder with a mask token before one of its stages, the pixel decoder, and the L1 loss.

    fill: "none" feeds the untouched image, as released: only the token hides anything, so a token that is added, or
    enters after overlapping convolutions, lets masked pixels leak in. "mean" paints masked cells with the mean colour
    first; the target stays the untouched image.
    """

    def __init__(self, encoder: Backbone, *, token: TokenConfig, fill: Literal["mean", "none"] = "none") -> None:
        super().__init__()
        entry = encoder.entry(token.stage)
        self.fill = fill
        self.normalise = Normalise(channels_last=encoder.is_cnn)
        self.encoder = encoder
        self.token = MaskToken(entry.channels, form=token.form, init=token.init)
        self.decoder = Decoder(encoder.channels[-1], encoder.strides[-1])
        entry.attach(self.token)

    def forward(self, images_bchw: Tensor, mask_bgg: Tensor) -> dict[str, Tensor]:
        """{"l1": scalar}: mean |p - x| over masked pixels and channels.

        Args:
            images_bchw: uint8 RGB crops, (batch, 3, height, width).
            mask_bgg: (batch, g, g), non-zero where a cell is hidden.
        """
        x = self.normalise(images_bchw)
        p = self.predict(fill_masked(x, mask_bgg) if self.fill == "mean" else x, mask_bgg)
        return {"l1": masked_mean(l1(p - x), mask_bgg)}

    def predict(self, input_bchw: Tensor, mask_bgg: Tensor) -> Tensor:
        """The decoded image (B, 3, H, W), in the type and memory format of the input."""
        with self.token.hiding(mask_bgg):
            latent_bchw = self.encoder(input_bchw)
        memory_format = self.normalise.memory_format(input_bchw.device)
        prediction: Tensor = self.decoder(latent_bchw).to(input_bchw.dtype, memory_format=memory_format)
        return prediction

    @torch.no_grad()
    def reconstruct(self, images_bchw: Tensor, mask_bgg: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """For panels: the normalised image, the masked one, and the prediction, each (B, 3, H, W).

        With fill "none" the encoder's input hides nothing; the masked image then shows the hidden cells as 0.
        """
        x = self.normalise(images_bchw)
        if self.fill == "mean":
            filled = fill_masked(x, mask_bgg)
            return x, filled, self.predict(filled, mask_bgg)
        return x, x.masked_fill(expand_mask(mask_bgg, x.shape[-2:]), 0.0), self.predict(x, mask_bgg)
