"""Parameter groups of a classification run: which decay, and at which rate each layer learns."""

import fnmatch
from typing import Any

from torch import nn

from backbones.layers import by_blocks, from_the_end
from classification.config import OptimizerConfig
from engine.training import optim

# Beside every one-dimensional tensor (biases, norm and layer scales) and what the network itself asks for.
NO_DECAY = ("*bias*", "*pos_embed", "*cls_token", "*reg_token", "*dist_token", "*relative_position_bias_table")


def parameter_groups(model: nn.Module, optimizer: OptimizerConfig, learning_rate: float) -> list[dict[str, Any]]:
    """The trainable parameters by weight decay and learning rate.

    With layer decay d, layer i of n learns at d^(n - i) times the rate: for a ViT layer 0 is the patch and position
    embedding, 1 to depth the blocks, depth + 1 the final norm and head (BEiT; timm's `group_matcher` names the layers).

    Args:
        model: a timm network or a LinearProbe.
        optimizer: weight and layer decay.
        learning_rate: of the last layer.

    Returns:
        Groups {"params", "names", "lr", "base_rate", "weight_decay"}.
    """
    network: Any = model
    spared = sorted({*NO_DECAY, *(network.no_weight_decay() if hasattr(model, "no_weight_decay") else ())})
    after = from_the_end(by_blocks(model)) if optimizer.layer_decay < 1 else {}

    def decay(name: str, parameter: nn.Parameter) -> float:
        if parameter.ndim <= 1 or any(fnmatch.fnmatch(name, pattern) for pattern in spared):
            return 0.0
        return optimizer.weight_decay

    groups = optim.group_parameters(
        model.named_parameters(),
        learning_rate=learning_rate,
        rate=lambda name, _: optimizer.layer_decay ** after.get(name, 0),
        decay=decay,
    )
    return groups if after else sorted(groups, key=lambda group: float(group["weight_decay"]))
