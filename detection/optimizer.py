"""The optimizer of a detection run: which parameters decay, and at which rate each layer of the encoder learns."""

import re
from collections.abc import Mapping
from typing import Any

import torch
from timm.models import group_parameters
from torch import nn

from backbones import Backbone
from detection.config import DetectionConfig
from detection.encoder import is_isotropic
from engine.training import optim

NO_DECAY = re.compile(r"(pos_embed|cls_token|reg_token|relative_position_bias_table|gamma(_[12])?)$")
"""Position embeddings and tables, class tokens and layer scales. Norms are recognised by their modules."""
_BLOCKS_PER_LAYER = 3  # in stage three, which has more blocks than the others together


def layer_scales(backbone: Backbone, layer_decay: float) -> dict[int, float]:
    """The learning rate of each parameter of the encoder relative to the heads', by the parameter's id().

    Layer i of n learns at layer_decay^(n + 1 - i). ViTs: 0 is the embedding, 1 to n the blocks (BEiT, ViTDet). Networks
    with stages: 0 is the stem, 1 and 2 the first two stages, then every three blocks of stage three, n the last stage
    (ConvNeXt, SparK).
    """
    layers = _block_layers(backbone) if is_isotropic(backbone) else _stage_layers(backbone)
    last = max(layers.values())
    parameters = dict(backbone.net.named_parameters())
    return {id(parameters[name]): layer_decay ** (last + 1 - layer) for name, layer in layers.items()}


def _block_layers(backbone: Backbone) -> dict[str, int]:
    """One layer per block; what comes after the blocks (a final norm, which is frozen) counts as the last one."""
    num_blocks = len(backbone.net.feature_info)
    groups = group_parameters(backbone.net, backbone.net.group_matcher(coarse=False))
    return {name: min(layer, num_blocks) for layer, names in groups.items() for name in names}


def _stage_layers(backbone: Backbone) -> dict[str, int]:
    stages = [str(info["module"]) for info in backbone.net.feature_info if info["reduction"] >= 4]
    places = {name: _place(name, stages) for name, _ in backbone.net.named_parameters()}
    last = len(stages) - 1
    deepest = max((block for stage, block in places.values() if stage == last - 1), default=0)
    num_layers = last + deepest // _BLOCKS_PER_LAYER + 1
    layers = {}
    for name, (stage, block) in places.items():
        layer = stage + 1 + (block // _BLOCKS_PER_LAYER if stage == last - 1 else 0)
        layers[name] = num_layers if stage == last else layer
    return layers


def _place(name: str, stages: list[str]) -> tuple[int, int]:
    """(stage, block) of a parameter; stage -1 for the stem, block 0 for what stands before a stage's blocks."""
    for number, stage in enumerate(stages):
        if name.startswith(f"{stage}."):
            block = re.match(r"(?:blocks\.)?(\d+)\.", name[len(stage) + 1 :])
            return number, int(block.group(1)) if block else 0
    return -1, 0


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
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    seen: set[int] = set()
    for module_name, module in model.named_modules():
        for own_name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad or id(parameter) in seen:
                continue
            seen.add(id(parameter))
            is_norm = "norm" in type(module).__name__.lower() or NO_DECAY.search(own_name) is not None
            decay = 0.0 if is_norm else config.optimizer.weight_decay
            rate = config.learning_rate * (scales or {}).get(id(parameter), 1.0)
            empty = {"params": [], "names": [], "lr": rate, "base_rate": rate, "weight_decay": decay}
            group = groups.setdefault((rate, decay), empty)
            group["params"].append(parameter)
            group["names"].append(f"{module_name}.{own_name}")
    return list(groups.values())


def build_optimizer(
    model: nn.Module, config: DetectionConfig, scales: Mapping[int, float] | None
) -> torch.optim.Optimizer:
    """The recipe's optimizer over `model`'s trainable parameters."""
    return optim.build(config.optimizer, parameter_groups(model, config, scales), config.learning_rate)
