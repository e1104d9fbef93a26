"""The model that A2MIM and SimMIM share: an encoder with a mask token before one of its stages, and a pixel decoder.

Shapes: B batch, H W pixels, g cells along a side.
"""

import logging
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from backbones import PUBLISHED, Backbone
from backbones.suggest import reach
from engine.errors import ConfigError
from pretrain.config import PretrainConfig
from pretrain.decoder import Decoder
from pretrain.masking import MaskToken, expand_mask
from pretrain.methods.released import TokenOptions
from pretrain.targets import Normalise, fill_masked

log = logging.getLogger("mim")
Terms = Callable[[Tensor, Tensor, Tensor], dict[str, Tensor]]


class TokenModel(nn.Module):
    """Encoder, token and decoder, and the loss terms of a method.

    fill: what the encoder's input holds in hidden cells. "mean": the image's mean colour. "none": the untouched image,
        so that the token alone hides anything, and a token that is added, or enters after overlapping convolutions,
        lets masked pixels leak in. The target is the untouched image either way.
    terms: (prediction, target, mask) -> the named losses; both images normalised, (B, 3, H, W).
    """

    def __init__(
        self,
        encoder: Backbone,
        *,
        token: TokenOptions,
        terms: Terms,
        fill: Literal["mean", "none"] = "mean",
        normalise: Normalise | None = None,
    ) -> None:
        super().__init__()
        entry = encoder.entry(token.stage)
        self.terms, self.fill = terms, fill
        self.normalise = normalise or Normalise(channels_last=encoder.is_cnn)
        self.encoder = encoder
        self.token = MaskToken(entry.channels, form=token.form, init=token.init)
        self.decoder = Decoder(encoder.final_channels, encoder.final_stride, encoder.in_channels)
        entry.attach(self.token)

    def forward(self, images_bchw: Tensor, mask_bgg: Tensor) -> dict[str, Tensor]:
        """The method's loss terms.

        Args:
            images_bchw: uint8 RGB crops, (batch, 3, height, width).
            mask_bgg: (batch, g, g), non-zero where a cell is hidden.
        """
        x = self.normalise(images_bchw)
        p = self.predict(fill_masked(x, mask_bgg) if self.fill == "mean" else x, mask_bgg)
        return self.terms(p, x, mask_bgg)

    def predict(self, input_bchw: Tensor, mask_bgg: Tensor) -> Tensor:
        """The decoded image (B, 3, H, W), in the type and memory format of the input."""
        with self.token.hiding(mask_bgg):
            latent_bchw = self.encoder(input_bchw)
        memory_format = self.normalise.memory_format(input_bchw.device)
        prediction: Tensor = self.decoder(latent_bchw, input_bchw.shape[-2:]).to(
            input_bchw.dtype, memory_format=memory_format
        )
        return prediction

    @torch.no_grad()
    def reconstruct(self, images_bchw: Tensor, mask_bgg: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """For panels: the image, the masked one and the prediction, uint8 (B, 3, H, W).

        With fill "none" the encoder's input hides nothing; the masked image then shows the hidden cells as ImageNet's
        mean colour, which is 0 once normalised.
        """
        x = self.normalise(images_bchw)
        hidden = x.masked_fill(expand_mask(mask_bgg, x.shape[-2:]), 0.0)
        seen = fill_masked(x, mask_bgg) if self.fill == "mean" else hidden
        predicted = self.predict(seen if self.fill == "mean" else x, mask_bgg)
        original, masked, prediction = (self.normalise.inverse(image) for image in (x, seen, predicted))
        return original, masked, prediction


def token_model(
    encoder: Backbone,
    config: PretrainConfig,
    *,
    token: TokenOptions,
    terms: Terms,
    fill: Literal["mean", "none"] = "mean",
) -> TokenModel:
    """A TokenModel whose mask cells and images fit the encoder's maps.

    Raises:
        ConfigError: the mask's cells do not fit the map where the token enters, or the images the encoder's last map.
        BackboneError: the token's place does not exist.
    """
    entry, cell = encoder.entry(token.stage), config.mask.cell_size
    if entry.exact and cell % entry.stride:
        raise ConfigError(
            f"mask.cell_size is {cell}, but the token enters {config.model} at a map of stride {entry.stride} "
            f"(options.token.stage {token.stage}): a cell must be a whole number of its positions, such as "
            f"{(cell // entry.stride + 1) * entry.stride} pixels, or choose an earlier stage"
        )
    stride = encoder.strides[-1]
    if stride & (stride - 1) == 0 and config.image_size % min(stride, 32):
        raise ConfigError(f"image_size is {config.image_size}; allowed: a multiple of {config.model}'s stride {stride}")
    if fill == "none" and config.model not in PUBLISHED and not reach(encoder, entry).hides:
        log.warning(
            "%s: parts of the image go round the token at stage %s, so that hidden pixels are seen; fill them (mean)",
            *(config.model, token.stage),
        )
    normalise = Normalise(channels_last=encoder.is_cnn, mean=config.data.mean, std=config.data.std)
    return TokenModel(encoder, token=token, terms=terms, fill=fill, normalise=normalise)
