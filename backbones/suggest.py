"""What a network needs of a pre-training: an image size that it takes, a place for the token, and cells that fit."""

import functools
import math
from dataclasses import dataclass

import torch

from .build import build_backbone
from .encoder import Backbone
from .entry import Entry
from .errors import BackboneError
from .probe import depends_on

_TRIED = 4  # entries looked at; networks of one stride have as many as blocks


@dataclass(frozen=True, kw_only=True)
class Suggestion:
    """A pre-training that fits a network."""

    image_size: int
    """Side of the crops in pixels: the one that was asked for, or the one size that the network takes."""
    stage: int
    """Entry of the mask token."""
    cell_size: int
    """Side of the mask's cells in pixels: whole positions of the map where the token enters, if those are whole pixels;
    a divisor of image_size."""
    exact: bool
    """Whether the positions are whole pixels. If not, a position belongs to the cell in which its centre lies."""
    hides: bool
    """Whether the token alone, replacing the features, would hide an image from the rest of the network."""


def suggest(name: str, stage: int, *, image_size: int = 224, cell_size: int = 32) -> Suggestion:
    """The pre-training nearest to what is asked for that fits the network `name`.

    An entry from which nothing of the image goes round the token is preferred to one nearer to `stage`.

    Raises BackboneError, saying why, for a network that cannot be pre-trained.
    """
    backbone = shapes_of(name, image_size)
    entries = usable_entries(backbone)
    if not entries:
        raise BackboneError(f"{name} has no place where a single map passes before its last stage.")
    if backbone.family != "other" and stage in entries:  # as published: known to hide, and nothing need be tried
        return _suggestion(backbone, entries[stage], stage, cell_size, hides=True)
    by_distance = sorted(entries, key=lambda k: (abs(k - stage), k))[:_TRIED]
    hiding, chosen = None, None
    for k in by_distance:
        found = reach(backbone, entries[k])
        hiding = k if found.hides and found.arrives else None
        chosen = k if chosen is None and found.arrives else chosen
        if hiding is not None:
            break
    chosen = chosen if hiding is None else hiding
    if chosen is None:
        raise BackboneError(f"{name} has branches: what a token marks in one does not reach the last map.")
    return _suggestion(backbone, entries[chosen], chosen, cell_size, hides=hiding is not None)


def _suggestion(backbone: Backbone, entry: Entry, stage: int, cell_size: int, *, hides: bool) -> Suggestion:
    cell = fitting_cell(backbone.image_size, entry, cell_size)
    return Suggestion(image_size=backbone.image_size, stage=stage, cell_size=cell, exact=entry.exact, hides=hides)


def shapes_of(name: str, image_size: int = 224) -> Backbone:
    """The network `name` for `image_size`, or for the size that it is made for if it takes no other. It is shared and
    has shapes only, unless its forward pass asks for values.

    Raises BackboneError for a network that is no encoder at either size.
    """
    try:
        return _build(name, image_size)
    except BackboneError as error:
        own = own_size(name)
        if own in (None, image_size):
            raise
        try:
            return _build(name, own)
        except BackboneError:
            raise error from None


def takes(name: str, image_size: int) -> bool:
    """Whether the network `name` can be built for images of that size."""
    return shapes_of(name, image_size).image_size == image_size


def own_size(name: str) -> int | None:
    """The side in pixels of the images that timm's network `name` is made for, None if that is not known."""
    import timm

    config = timm.get_pretrained_cfg(name.partition(".")[0]) if ":" not in name else None
    return int(config.input_size[-1]) if config is not None else None


@functools.lru_cache(maxsize=4)
def _build(name: str, image_size: int) -> Backbone:
    try:
        with torch.device("meta"):
            return build_backbone(name, image_size=image_size)
    except (BackboneError, NotImplementedError, RuntimeError) as error:
        if "meta" not in str(error):
            raise
        return build_backbone(name, image_size=image_size)


def usable_entries(backbone: Backbone) -> dict[int, Entry]:
    """The entries before a network's stages at which a single map passes, by their published index."""
    entries: dict[int, Entry] = {}
    places = backbone.places()
    for k in range(len(places)):
        try:
            entries[k] = backbone.entry(k)
        except BackboneError:  # several maps of one size, or none
            continue
    return entries


@dataclass(frozen=True)
class Reach:
    """What a mask token at an entry does, told from the graph of a forward pass on shapes."""

    hides: bool
    """Whether everything of the image that reaches the end passes there: class tokens and skips may go round it."""
    arrives: bool
    """Whether the end depends on what is put there: a network with two branches may have one of them elsewhere."""


def reach(backbone: Backbone, entry: Entry) -> Reach:
    """What a mask token at `entry` does."""
    size = backbone.image_size
    images = torch.empty((1, backbone.in_channels, size, size), device="meta", requires_grad=True)
    token = torch.empty((), device="meta", requires_grad=True)
    handle = entry.attach(lambda map_bchw: map_bchw.detach() * token, on_shapes=True)
    try:
        on_images, on_token = depends_on(backbone, backbone.forward, images, token)
    except (NotImplementedError, RuntimeError):  # a forward pass that asks for values
        return Reach(hides=False, arrives=True)
    finally:
        handle.remove()
    return Reach(hides=not on_images, arrives=on_token)


def fitting_cell(image_size: int, entry: Entry, wanted: int) -> int:
    """The divisor of `image_size`, with at least two cells along a side, nearest to `wanted` pixels: of those that are
    whole positions of the entry's map, where there are any. Of two as near, the larger."""
    divisors = [cell for cell in range(2, image_size // 2 + 1) if image_size % cell == 0]
    whole = [cell for cell in divisors if cell % entry.stride == 0] if entry.exact else []
    return min(whole or divisors or [image_size], key=lambda cell: (abs(math.log(cell / wanted)), -cell))
