"""Which layer each parameter of a network is in: every numbering that a published recipe's layer decay counts by.

A parameter's learning rate is the full one times layer_decay^d, where d is how many layers come after it.
"""

import re
from collections.abc import Mapping

from timm.models import group_parameters
from timm.optim._param_groups import auto_group_layers
from torch import nn

from .encoder import Backbone
from .errors import BackboneError

_BLOCKS_PER_LAYER = 3  # in stage three, which has more blocks than the others together


def by_blocks(net: nn.Module, last: int | None = None) -> dict[str, int]:
    """timm's own count: of a ViT 0 is the patch and position embedding, 1 to depth the blocks, depth + 1 what comes
    after them (BEiT, MAE).

    Args:
        net: a timm network.
        last: the highest number; what comes later counts as it.
    """
    if hasattr(net, "group_matcher"):
        layers = group_parameters(net, net.group_matcher(coarse=False), reverse=True)  # type: ignore[operator]
    else:
        layers = auto_group_layers(net)  # type: ignore[no-untyped-call]
    deepest = max(layers.values())
    numbers = {name: int(layers.get(name, deepest)) for name, _ in net.named_parameters()}
    return numbers if last is None else {name: min(layer, last) for name, layer in numbers.items()}


def by_stages(backbone: Backbone) -> dict[str, int]:
    """0 is the stem, 1 and 2 the first two stages, then every three blocks of stage three, and the last stage as one
    (ConvNeXt, SparK)."""
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


def by_convnext_stages(net: nn.Module, num_layers: int) -> dict[str, int]:
    """MMSegmentation's rule for what trains of a ConvNeXt: 0 are stem and downsampling, i + 1 the blocks of stage i
    (0 to 3); num_layers is the number of the last layer, which may have no parameters.

    Raises:
        BackboneError: the network is no ConvNeXt.
    """
    layers = {}
    for name, parameter in net.named_parameters():
        parts = name.split(".")
        if not parameter.requires_grad:
            continue
        if parts[0] == "stem" or (parts[0] == "stages" and parts[2] == "downsample"):
            layers[name] = 0
        elif parts[0] == "stages" and parts[2] == "blocks":
            layers[name] = int(parts[1]) + 1
        else:
            raise BackboneError(
                f"optimizer.stage_layers: the rule is ConvNeXt's, and {name} is no parameter of one; use 0"
            )
    return layers


def from_the_end(layers: Mapping[str, int], last: int | None = None) -> dict[str, int]:
    """How many layers come after each parameter's; `last` is the number of the last layer if no parameter is in it."""
    deepest = max(layers.values()) if last is None else last
    return {name: deepest - layer for name, layer in layers.items()}


def _place(name: str, stages: list[str]) -> tuple[int, int]:
    """(stage, block) of a parameter; stage -1 for the stem, block 0 for what stands before a stage's blocks."""
    for number, stage in enumerate(stages):
        if name.startswith(f"{stage}."):
            block = re.match(r"(?:blocks\.)?(\d+)\.", name[len(stage) + 1 :])
            return number, int(block.group(1)) if block else 0
    return -1, 0
