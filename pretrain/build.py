"""From a configuration to the model it trains."""

from typing import Any

from backbones import build_backbone
from engine.data.options import in_channels
from pretrain.config import PretrainConfig
from pretrain.methods import find_method


def build_model(config: PretrainConfig) -> Any:
    """The encoder inside its method's model (a `PretrainModel`), of a configuration that `engine.config.check` accepts.

    Raises:
        ConfigError: the configuration does not fit the encoder, as the method says.
        BackboneError: the encoder, or a place in it, does not exist.
    """
    channels = in_channels(config.data.mean)
    encoder = build_backbone(config.model, image_size=config.image_size, drop_path=config.drop_path, **channels)
    return find_method(config.method).build(encoder, config)
