"""From a configuration to the model it trains, with the checks that need to know the encoder."""

from backbones import build_backbone
from engine.errors import ConfigError
from pretrain.config import PretrainConfig
from pretrain.methods.a2mim import A2MIM
from pretrain.methods.simmim import SimMIM


def build_model(config: PretrainConfig) -> A2MIM | SimMIM:
    """The encoder, mask token, decoder and loss of a configuration that `engine.config.check` accepts.

    Raises:
        ConfigError: the mask's cells do not fit the map where the token enters, or the encoder's last map.
        BackboneError: the encoder or the token's place does not exist.
    """
    encoder = build_backbone(config.model, image_size=config.image_size, drop_path=config.drop_path)
    entry, cell = encoder.entry(config.token.stage), config.mask.cell_size
    if cell % entry.stride:
        raise ConfigError(
            f"mask.cell_size is {cell}, but the token enters {config.model} at a map of stride {entry.stride} "
            f"(token.stage {config.token.stage}): a cell must be a whole number of its positions, such as "
            f"{(cell // entry.stride + 1) * entry.stride} pixels, or choose an earlier stage"
        )
    if config.image_size % encoder.strides[-1]:
        raise ConfigError(
            f"image_size is {config.image_size}; allowed: a multiple of {config.model}'s stride {encoder.strides[-1]}"
        )
    if config.method == "a2mim":
        return A2MIM(encoder, token=config.token, loss=config.loss)
    return SimMIM(encoder, token=config.token, fill=config.mask.fill)
