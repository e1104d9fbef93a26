"""The places in a network where a method may change its feature maps.

B batch, C channels, h w map height and width.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from .layout import Layout

Insert = Callable[[Tensor], Tensor]


class _Insertion:
    """The hook behind Entry.attach; a class, so that a deep copy of the model refers to the copied `insert`."""

    def __init__(self, insert: Insert, layout: Layout) -> None:
        self.insert = insert
        self.layout = layout

    def before(self, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return self._change(inputs[0]), *inputs[1:]

    def after(self, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        return self._change(output)

    def _change(self, features: Tensor) -> Tensor:
        if features.device.type == "meta":  # finding shapes: there are no values to change
            return features
        return self.layout.from_map(self.insert(self.layout.to_map(features)), features)


@dataclass(frozen=True)
class Entry:
    """Where a method may change the features before a stage."""

    stage: int | str
    """What was asked for: the published index, or a module name."""
    channels: int
    """C of the map at this place."""
    stride: int
    """Image pixels per position of the map, in each direction."""
    module: nn.Module = field(repr=False)
    """The module next to this place."""
    after: bool = field(repr=False)
    """Whether the place is behind `module` or in front of it."""
    layout: Layout = field(repr=False)
    """How the network keeps the map here."""

    def attach(self, insert: Insert) -> RemovableHandle:
        """From now on pass the patch features (B, C, h, w) at this place through `insert`.

        `insert` returns the changed map in the same shape; class and register tokens go round it. It is registered
        once, as a module hook: attach before torch.compile or DistributedDataParallel wraps the model, and keep what
        changes from step to step (the mask) in an attribute of the module that owns `insert`.
        """
        insertion = _Insertion(insert, self.layout)
        if self.after:
            return self.module.register_forward_hook(insertion.after)
        return self.module.register_forward_pre_hook(insertion.before)
