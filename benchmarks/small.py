"""Profile small: the size of the pictures, recipes at it, and other lengths."""

import functools
import inspect
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from backbones.small import small_network
from engine.data.index import ImageIndex, index_images
from engine.data.split import image_root
from engine.data.survey import survey


@functools.cache
def _images(folder: Path) -> ImageIndex:
    return index_images(image_root(folder), labelled=False, unreadable="skip")


@functools.cache
def small_size(folder: Path) -> int:
    """The side in pixels that fits the training pictures of a folder: 32, 64 or 96.

    Raises:
        DataError: there are none.
    """
    side = survey(_images(folder)).short_side
    return 32 if side <= 48 else 64 if side <= 80 else 96


def small_pictures(recipe: Any, model: str, size: int) -> Any:
    """A recipe for small pictures, or another one at their size, with the network that stands for them."""
    if "image_size" in inspect.signature(recipe).parameters:
        return recipe(model=model, image_size=size)
    base = recipe(model=small_network(model, size))
    return replace(base, image_size=size, augment=replace(base.augment, test_size=size, crop_pct=1.0))


def of_steps(base: Any, folder: Path, steps: int | None) -> Any:
    """A recipe in as many whole epochs of a folder as make these steps at least, with the same share of warm-up.

    Args:
        base: the recipe.
        folder: the data set.
        steps: None leaves the recipe as it is.
    """
    if steps is None:
        return base
    epochs = math.ceil(steps / max(len(_images(folder)) // base.batch_size, 1))
    warmup = min(base.schedule.warmup_epochs * epochs / base.epochs, epochs - 0.5)
    return replace(base, epochs=epochs, schedule=replace(base.schedule, warmup_epochs=warmup))
