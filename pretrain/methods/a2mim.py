"""A2MIM: Architecture-Agnostic Masked Image Modeling - From ViT back to CNN (Li et al., ICML 2023, arXiv 2205.13943).

The masked cells of an image x are painted with its mean colour, a learnable token joins the features inside the
encoder, and the prediction p of the whole image is compared with x on the masked pixels and in the Fourier domain.

Shapes: B batch, H W pixels, g cells along a side.
"""

import torch
from torch import Tensor, nn

from backbones import Backbone
from pretrain.config import LossConfig, TokenConfig
from pretrain.decoder import Decoder
from pretrain.losses import focal_frequency_loss, frequency_distance_loss, masked_mean, replace_visible
from pretrain.masking import MaskToken
from pretrain.targets import Normalise, fill_masked


class A2MIM(nn.Module):
    """An encoder with a mask token before one of its stages, the pixel decoder, and the two losses."""

    def __init__(self, encoder: Backbone, *, token: TokenConfig, loss: LossConfig) -> None:
        super().__init__()
        entry = encoder.entry(token.stage)
        self.loss = loss
        self.normalise = Normalise(channels_last=encoder.is_cnn)
        self.encoder = encoder
        self.token = MaskToken(entry.channels, form=token.form, init=token.init)
        self.decoder = Decoder(encoder.channels[-1], encoder.strides[-1])
        entry.attach(self.token)

    def forward(self, images_bchw: Tensor, mask_bgg: Tensor) -> dict[str, Tensor]:
        """The loss terms, whose sum is minimised.

        Args:
            images_bchw: uint8 RGB crops, (batch, 3, height, width).
            mask_bgg: (batch, g, g), non-zero where a cell is hidden.

        Returns:
            {"spatial": scalar, "frequency": weighted scalar}; without the second if its weight is 0.
        """
        x = self.normalise(images_bchw)
        p = self.predict(fill_masked(x, mask_bgg), mask_bgg)

        # L_spa = sum_masked l(p - x) / (3 masked pixels), l focal L1 for CNNs and L1 for ViTs
        terms = {"spatial": masked_mean(self.loss.criterion()(p - x), mask_bgg, unmask_weight=self.loss.unmask_weight)}
        if self.loss.frequency_weight:
            # L_freq = mean_uv w(u, v) |F(p')(u, v) - F(x)(u, v)|^2, p' having its visible pixels replaced
            compared = replace_visible(
                p, x, mask_bgg, replace=self.loss.replace, unmask_weight=self.loss.frequency_unmask_weight
            )
            terms["frequency"] = self.loss.frequency_weight * self.frequency(compared, x)
        return terms  # L = L_spa + lambda L_freq

    def predict(self, input_bchw: Tensor, mask_bgg: Tensor) -> Tensor:
        """The decoded image (B, 3, H, W), in the type and memory format of the input."""
        with self.token.hiding(mask_bgg):
            latent_bchw = self.encoder(input_bchw)
        memory_format = self.normalise.memory_format(input_bchw.device)
        prediction: Tensor = self.decoder(latent_bchw).to(input_bchw.dtype, memory_format=memory_format)
        return prediction

    def frequency(self, compared_bchw: Tensor, target_bchw: Tensor) -> Tensor:
        """L_freq without its weight: the mean over groups of `spectrum_images` images."""
        batch = len(target_bchw)
        groups = max(batch // (self.loss.spectrum_images or batch), 1)
        pairs = zip(compared_bchw.chunk(groups), target_bchw.chunk(groups), strict=True)
        return torch.stack([self._frequency_of_group(*pair) for pair in pairs]).mean()

    def _frequency_of_group(self, compared_bchw: Tensor, target_bchw: Tensor) -> Tensor:
        if not self.loss.focal:
            criterion = self.loss.criterion(spectral=True)
            return frequency_distance_loss(compared_bchw, target_bchw, criterion, reweight=self.loss.reweight)
        return focal_frequency_loss(
            compared_bchw,
            target_bchw,
            alpha=self.loss.frequency_alpha,
            average_spectrum=self.loss.average_spectrum,
            log_matrix=self.loss.log_matrix,
            batch_matrix=self.loss.batch_matrix,
        )

    @torch.no_grad()
    def reconstruct(self, images_bchw: Tensor, mask_bgg: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """For panels: the normalised image, what the encoder saw of it, and the prediction, each (B, 3, H, W)."""
        x = self.normalise(images_bchw)
        filled = fill_masked(x, mask_bgg)
        return x, filled, self.predict(filled, mask_bgg)
