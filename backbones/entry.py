"""The places in a network where a method may change its feature maps.

B batch, C channels, h w map height and width.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from .errors import BackboneError
from .layout import Layout, find_layout, pixels_per_position
from .places import Place
from .probe import Seen

Insert = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Passing:
    """What went through a module in a forward pass on shapes, and how the network keeps its maps."""

    seen: Seen
    image_size: int
    num_prefix: int
    channels_last: bool
    where: str
    """For messages."""


class _Insertion:
    """The hook behind Entry.attach; a class, so that a deep copy of the model refers to the copied `insert`."""

    def __init__(self, insert: Insert, layout: Layout, part: int | None, *, on_shapes: bool) -> None:
        self.insert, self.layout, self.part, self.on_shapes = insert, layout, part, on_shapes

    def before(self, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(self._within(inputs, self.part or 0))

    def after(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
        if self.part is None:
            return self._change(output)
        return type(output)(self._within(output, self.part))

    def _within(self, values: Sequence[Any], part: int) -> list[Any]:
        return [self._change(value) if place == part else value for place, value in enumerate(values)]

    def _change(self, features: Tensor) -> Tensor:
        if features.device.type == "meta" and not self.on_shapes:  # finding shapes: there are no values to change
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
    """Image pixels per position of the map, in each direction; rounded, where `exact` is False."""
    exact: bool
    """Whether a position is `stride` pixels, as for all networks whose convolutions pad."""
    module: nn.Module = field(repr=False)
    """The module next to this place."""
    after: bool = field(repr=False)
    """Whether the place is behind `module` or in front of it."""
    layout: Layout = field(repr=False)
    """How the network keeps the map here."""
    part: int | None = field(repr=False, default=None)
    """Which of several inputs or outputs of `module` is the map."""

    def attach(self, insert: Insert, *, on_shapes: bool = False) -> RemovableHandle:
        """From now on pass the patch features (B, C, h, w) at this place through `insert`.

        `insert` returns the changed map in the same shape; class and register tokens go round it. It is registered
        once, as a module hook: attach before torch.compile or DistributedDataParallel wraps the model, and keep what
        changes from step to step (the mask) in an attribute of the module that owns `insert`. Forward passes on shapes
        skip it, unless `on_shapes`.
        """
        insertion = _Insertion(insert, self.layout, self.part, on_shapes=on_shapes)
        if self.after:
            return self.module.register_forward_hook(insertion.after)
        return self.module.register_forward_pre_hook(insertion.before)


def make_entry(stage: int | str, place: Place, module: nn.Module, passing: Passing) -> Entry:
    """The entry at `place`, next to `module`, from what went through that on shapes.

    Raises BackboneError where no map passes.
    """
    shapes = passing.seen.outputs if place.after else passing.seen.inputs
    part = place.part or 0
    shape = shapes[part] if part < len(shapes) else None
    if shape is None or (place.after and place.part is None and not passing.seen.is_single):
        raise BackboneError(f"{passing.where} is no place where a single map passes.")
    layout = find_layout(shape, num_prefix=passing.num_prefix, channels_last=passing.channels_last, where=passing.where)
    stride = pixels_per_position(passing.image_size, layout.grid[0])
    return Entry(
        stage=stage,
        channels=layout.channels,
        stride=stride,
        exact=stride * layout.grid[0] == passing.image_size,
        module=module,
        after=place.after,
        layout=layout,
        part=place.part,
    )
