"""The optimizer of a classification run: which parameters decay, and at which rate each layer learns."""

from typing import Any

import torch
from timm.optim._param_groups import param_groups_layer_decay, param_groups_weight_decay
from torch import nn

from classification.config import ClassificationConfig, OptimizerConfig
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
    own = network.no_weight_decay() if hasattr(model, "no_weight_decay") else ()
    skip = sorted({*NO_DECAY, *own})
    groups: list[dict[str, Any]]
    if optimizer.layer_decay < 1:
        groups = param_groups_layer_decay(
            model, optimizer.weight_decay, no_weight_decay_list=skip, layer_decay=optimizer.layer_decay
        )
    else:
        groups = param_groups_weight_decay(model, optimizer.weight_decay, no_weight_decay_list=skip)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for group in groups:
        group["base_rate"] = group["lr"] = learning_rate * group.pop("lr_scale", 1.0)
        group["names"] = [names[id(parameter)] for parameter in group["params"]]
    return groups


def build_optimizer(model: nn.Module, config: ClassificationConfig) -> torch.optim.Optimizer:
    """The recipe's optimizer over `model`'s trainable parameters."""
    groups = parameter_groups(model, config.optimizer, config.learning_rate)
    return optim.build(config.optimizer, groups, config.learning_rate)
