"""Parameter groups of a detection run: which decay, and at which rate each layer of the encoder learns."""

import re
from collections.abc import Mapping
from typing import Any

from torch import nn

from backbones import Backbone
from backbones.layers import by_blocks, by_stages, from_the_end
from detection.config import DetectionConfig
from engine.training import optim

NO_DECAY = re.compile(r"(pos_embed|cls_token|reg_token|relative_position_bias_table|gamma(_[12])?)$")
"""Position embeddings and tables, class tokens and layer scales. Norms are recognised by their modules."""


def layer_scales(backbone: Backbone, layer_decay: float) -> dict[int, float]:
    """The learning rate of each parameter of the encoder relative to the heads', by the parameter's id().

    Layer i of n learns at layer_decay^(n + 1 - i). ViTs: 0 is the embedding, 1 to n the blocks (BEiT, ViTDet). Networks
    with stages: 0 is the stem, 1 and 2 the first two stages, then every three blocks of stage three, n the last stage
    (ConvNeXt, SparK).
    """
    num_blocks = len(backbone.net.feature_info)  # what comes after them, a final norm, is frozen
    layers = by_blocks(backbone.net, num_blocks) if backbone.single_stride else by_stages(backbone)
    parameters = dict(backbone.net.named_parameters())
    return {id(parameters[name]): layer_decay ** (after + 1) for name, after in from_the_end(layers).items()}


def parameter_groups(
    model: nn.Module, config: DetectionConfig, scales: Mapping[int, float] | None = None
) -> list[dict[str, Any]]:
    """The trainable parameters by weight decay and learning rate.

    Args:
        model: the detector.
        config: learning rate and weight decay.
        scales: layer_scales of its encoder; None for the same rate everywhere.

    Returns:
        Groups {"params", "names", "lr", "base_rate", "weight_decay"}.
    """
    norms = {
        id(parameter)
        for module in model.modules()
        if "norm" in type(module).__name__.lower()
        for parameter in module.parameters(recurse=False)
    }

    def decay(name: str, parameter: nn.Parameter) -> float:
        return 0.0 if id(parameter) in norms or NO_DECAY.search(name) else config.optimizer.weight_decay

    return optim.group_parameters(
        model.named_parameters(),
        learning_rate=config.learning_rate,
        rate=lambda _, parameter: (scales or {}).get(id(parameter), 1.0),
        decay=decay,
    )
