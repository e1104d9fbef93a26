"""Where in a network the published entries are: from the shapes that went through its modules, not from their classes.

h w map height and width, C channels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from .architectures import Family
from .probe import Seen

_MAX_PREFIX = 16  # class and register tokens


class StageMap(NamedTuple):
    """The map at the end of a stage, as forward_intermediates gives it."""

    module: str
    """Name of the stage's module, if the network says it right; else whatever it says."""
    channels: int
    grid: tuple[int, int]
    """(h, w) at the probed size."""


@dataclass(frozen=True)
class Place:
    """In front of or behind a module."""

    module: str
    after: bool
    part: int | None = None
    """Which of several inputs or outputs is the map; None for the first input, or the one output."""


def find_places(
    family: Family, seen: Mapping[str, Seen], stages: Sequence[StageMap], *, isotropic: bool
) -> list[Place | None]:
    """The entries 0, 1, ... of a network (`Backbone.entry` says what each family's are); None where there is no map.

    Args:
        family: decides between the published numberings.
        seen: what went through each module, in the order in which they returned.
        stages: the stages from stride 4 on, or all blocks of a network of one stride.
        isotropic: whether all maps have one stride.
    """
    named = [_resolve(stage.module, seen) for stage in stages]
    merges = [f"{name}.downsample" for name in named]
    if family == "convnext" and all(merge in seen for merge in merges):
        return [Place(merge, after=True) for merge in merges]
    stem = _stem(seen, stages[0])
    if family == "swin" and all(merge in seen for merge in merges):
        return [stem, *(Place(merge, after=True) for merge in merges)]
    if isotropic:
        return [stem, *(_before(name, seen) for name in named)]
    ends = [_end(name, stage, seen) for name, stage in zip(named, stages, strict=True)]
    first = _before(named[0], seen) if ends[0] is not None and ends[0].module == named[0] else None
    return [first or stem, *ends[:-1]]


def _resolve(name: str, seen: Mapping[str, Seen]) -> str | None:
    """`name`, or the one module below a wrapper that ends with it; None if nothing was called so."""
    if name in seen:
        return name
    below = [other for other in seen if name and other.endswith(f".{name}")]
    return below[0] if len(below) == 1 else None


def _stem(seen: Mapping[str, Seen], first: StageMap) -> Place | None:
    """Behind the patch embedding: `patch_embed` or `stem`, else the first module that makes a map as large as the
    first stage's."""
    candidates = [name for name in ("patch_embed", "stem") if name in seen] + list(seen)
    for name in candidates:
        part = _part(seen[name].outputs, None, first.grid)
        if part is not None:
            return Place(name, after=True, part=None if seen[name].is_single else part)
    return None


def _before(name: str | None, seen: Mapping[str, Seen]) -> Place | None:
    if name is None or seen[name].calls > 1:
        return None
    inputs = seen[name].inputs
    maps = [part for part in range(len(inputs)) if _is_map(inputs[part])]
    if not maps:
        return None
    return Place(name, after=False, part=max(maps, key=lambda part: _positions(inputs[part])) or None)


def _end(name: str | None, stage: StageMap, seen: Mapping[str, Seen]) -> Place | None:
    """Behind a stage: its own module, else the last module that returns a map like the stage's."""
    candidates = ([name] if name else []) + list(reversed(list(seen)))
    for candidate in candidates:
        found = seen[candidate]
        part = _part(found.outputs, stage.channels, stage.grid) if found.calls == 1 else None
        if part is not None and candidate:  # "" is the network itself
            return Place(candidate, after=True, part=None if found.is_single else part)
    return None


def _part(shapes: Sequence[torch.Size | None], channels: int | None, grid: tuple[int, int]) -> int | None:
    """Which of `shapes` is a map of that size (and, if given, width), in any memory order."""
    for part, shape in enumerate(shapes):
        if shape is not None and any(
            size == grid and channels in (None, width) for width, size in _readings(shape, grid)
        ):
            return part
    return None


def _readings(shape: torch.Size, grid: tuple[int, int]) -> list[tuple[int, tuple[int, int]]]:
    """(channels, grid) that a tensor of one image may mean: NCHW, NHWC or tokens with up to 16 others in front."""
    if len(shape) == 4 and shape[0] == 1:
        return [(shape[1], (shape[2], shape[3])), (shape[3], (shape[1], shape[2]))]
    if len(shape) == 3 and shape[0] == 1 and 0 <= shape[1] - grid[0] * grid[1] <= _MAX_PREFIX:
        return [(shape[2], grid)]
    return []


def _is_map(shape: torch.Size | None) -> bool:
    return shape is not None and len(shape) in (3, 4) and shape[0] == 1


def _positions(shape: torch.Size | None) -> int:
    assert shape is not None
    return shape[1] if len(shape) == 3 else max(shape[2] * shape[3], shape[1] * shape[2])
