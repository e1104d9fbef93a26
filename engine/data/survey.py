"""What the recipes for data of one's own need to know of a data set, from file names and the first bytes of a few
files; and the sizes that follow from it, each with its reason."""

import logging
import math
import os
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from engine.cores import allowed_cores
from engine.data.header import read_header
from engine.data.index import ImageIndex, index_images
from engine.data.options import ImageOptions
from engine.data.split import held_out, image_root, split_folder
from engine.errors import ConfigError, DataError

log = logging.getLogger("mim")
IMAGE_SIZES = (64, 96, 128, 160, 192, 224)
_NUM_LOOKED_INTO = 200
VAL_SHARE = 0.2
"""Of each class folder, where no folder is for validation."""


@dataclass(frozen=True)
class Survey:
    """A data set at a glance.

    Args:
        num_images: for training.
        short_side: median of the images' shorter sides, in pixels.
        num_read: of how many images.
        folders: images in each folder directly below the data set's; images beside the folders are in "".
    """

    num_images: int
    short_side: int
    num_read: int
    folders: dict[str, int]

    @property
    def has_classes(self) -> bool:
        """Whether every image is in a folder, and there are several."""
        return len(self.folders) > 1 and "" not in self.folders

    def __str__(self) -> str:
        """In a few words."""
        read = "" if self.num_read == self.num_images else f" (median of {self.num_read})"
        return f"{self.num_images:,} training images, shorter side {self.short_side} pixels{read}"


def survey(index: ImageIndex, kept_apart: Collection[int] = ()) -> Survey:
    """Look at a data set: all names, and the headers of up to 200 files, evenly spread. Files that cannot be read are
    left to the run, which says so.

    Args:
        index: all images, so that tasks that train on different parts of them choose one size.
        kept_apart: positions of those that are not trained on, and do not count.

    Raises:
        DataError: none of them can be read.
    """
    step = max(len(index) / _NUM_LOOKED_INTO, 1)
    sides, reason = [], ""
    for i in range(math.ceil(len(index) / step)):
        try:
            header = read_header(index.path(int(i * step)))
        except DataError as error:
            reason = str(error)
        else:
            sides.append(min(header.width, header.height))
    if not sides:
        raise DataError(f"{index.root}: none of the images looked into can be read; one of them: {reason}")
    sides.sort()
    apart = set(kept_apart)
    folders = Counter(
        path.split("/", 1)[0] if "/" in path else "" for i, path in enumerate(index.paths) if i not in apart
    )
    return Survey(len(index) - len(apart), sides[len(sides) // 2], len(sides), dict(folders))


def look(data_root: str, exclude: str = "", *, labelled: bool) -> tuple[Survey, float]:
    """What there is to train on, and the share of each class folder that is held out for validation: none where there
    is a folder for it, or where there are no classes. Files that cannot be images are left to the run.

    Args:
        data_root: the data set.
        exclude: a list of images that do not count.
        labelled: whether class folders are needed.

    Raises:
        DataError: no images are there, or no two class folders where they are needed.
    """
    options = ImageOptions(exclude=exclude, unreadable="skip")
    index = index_images(image_root(data_root), labelled=labelled, options=options)
    if labelled and len(index.classes) < 2:
        raise DataError(f"{index.root}: one class, {index.classes[0]}: classification needs two class folders or more")
    seen = survey(index)
    if split_folder(Path(data_root), "val") is not None or not seen.has_classes:
        return seen, 0.0
    return survey(index, held_out(index.paths, VAL_SHARE)), VAL_SHARE


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the user of a recipe wants, so that it is not chosen; 0: choose."""

    steps: int = 0
    batch_size: int = 0
    image_size: int = 0

    @classmethod
    def of(cls, **texts: str) -> "Asked":
        """From the command line, "" for what is not given.

        Raises:
            ConfigError: one is no whole number of 1 or more.
        """
        for name, text in texts.items():
            if text and not (str(text).isdecimal() and int(text) > 0):
                raise ConfigError(f"--{name.replace('_', '-')} {text}; allowed: a whole number, 1 or more")
        return cls(**{name: int(text or 0) for name, text in texts.items()})


def choose_image_size(seen: Survey, asked: Asked) -> tuple[int, str]:
    """Side of the crops in pixels: the largest of IMAGE_SIZES that most images have, with the reason."""
    if asked.image_size:
        return asked.image_size, "as asked"
    size = max((size for size in IMAGE_SIZES if size <= seen.short_side), default=IMAGE_SIZES[0])
    if size > seen.short_side:
        return size, f"networks of this kind see little in less; images of {seen.short_side} pixels are enlarged"
    return size, "the published size" if size == IMAGE_SIZES[-1] else "larger would only enlarge the images"


def choose_batch_size(num_images: int, steps_per_epoch: int, *, least: int, most: int, asked: Asked) -> tuple[int, str]:
    """The largest power of two with which an epoch has enough steps, with the reason.

    Args:
        num_images: for training.
        steps_per_epoch: that an epoch is to have.
        least: smallest batch, if there are as many images.
        most: largest.
        asked: what is not to be chosen.
    """
    if asked.batch_size:
        return asked.batch_size, "as asked"
    wanted = num_images // steps_per_epoch
    size = min(max(1 << max(wanted.bit_length() - 1, 0), least), most, num_images)
    return size, "enough, however many the images" if size == most else f"{num_images // size} steps an epoch"


def choose_rate(batch_size: int) -> tuple[float, str]:
    """Peak learning rate of AdamW, with the reason."""
    peak = round(1e-3 * math.sqrt(batch_size / 256), 6)
    return peak, "0.001 for 256 images, and with the square root of the batch"


def choose_workers() -> int:
    """Loader processes: one for each core that this process may use, at most eight."""
    return min(allowed_cores(), 8)


def say(what: str, reasons: list[str]) -> None:
    """Tell the user what was chosen and why; of several ranks the first."""
    if os.environ.get("RANK", "0") == "0":
        log.info("%s", "\n  ".join([what, *reasons]))
