"""Every image and label map of a data set looked at before training. `python -m segmentation.check DIR` lists what is
wrong and which labels there are; a run does the same at its start and refuses."""

import logging
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from engine import cli, use
from engine.config import check
from engine.data.images import UnreadableImageError, read_image
from engine.data.scan import some
from engine.distributed import gather_objects, rank, world_size
from engine.errors import ConfigError, DataError
from segmentation.config import DataConfig
from segmentation.labels import Classes, Stored, classes_in, read_label_map
from segmentation.layout import PairIndex, Split, find_pairs

log = logging.getLogger("mim")
_NUM_NAMED = 10


@dataclass(frozen=True, order=True)
class Fault:
    """What is wrong with a file; the text begins with its path. `unreadable` ones may be left out on request."""

    path: str
    text: str
    unreadable: bool = False


@dataclass
class Found:
    """What a look at a split gave.

    Args:
        faults: sorted by path.
        pixels: of each stored label.
        num_pairs: how many were looked at.
        suffix: what the maps' names seem to have behind their images', where no pair was found.
        ade_names: whether all images are named like those of ADE20K.
    """

    faults: list[Fault] = field(default_factory=list)
    pixels: Counter[int] = field(default_factory=Counter)
    num_pairs: int = 0
    suffix: str = ""
    ade_names: bool = True


def check_pairs(pairs: PairIndex, classes: Classes, options: DataConfig) -> Found:
    """Read every pair, each rank its part, and return what any of them found."""
    faults = [Fault(path, text) for path, text in pairs.problems()]
    faulty = {fault.path for fault in faults}
    matched = [pair for pair in pairs.matched() if not faulty & set(pair)]
    with ThreadPoolExecutor(max(options.num_workers, 1)) as pool:
        mine = list(pool.map(partial(_check_pair, classes, options), matched[rank() :: world_size()]))
    pixels: Counter[int] = Counter()
    for found, counts in (result for part in gather_objects(mine) for result in part):
        faults += found
        pixels.update(counts)
    names = all(path.rpartition("/")[2].startswith("ADE_") for path in pairs.images.paths)
    return Found(sorted(faults), pixels, len(matched), pairs.likely_suffix(), names)


def _check_pair(classes: Classes, options: DataConfig, pair: tuple[str, str]) -> tuple[list[Fault], dict[int, int]]:
    image_path, map_path = pair
    faults: list[Fault] = []
    sizes = []
    pixels: dict[int, int] = {}
    readers: tuple[tuple[str, Callable[[str], npt.NDArray[Any]]], ...] = (
        (image_path, partial(read_image, options=options)),
        (map_path, partial(read_label_map, coloured=classes.coloured)),
    )
    for path, read in readers:
        try:
            array = read(path)
        except DataError as error:
            faults.append(Fault(path, str(error), isinstance(error, UnreadableImageError)))
            continue
        sizes.append(array.shape[:2])
        if path == map_path:
            pixels = _count(array)
    if unknown := classes.unknown(pixels):
        faults.append(Fault(map_path, f"{map_path}: holds the {classes.text_of(unknown)}; {classes}"))
    if len(sizes) == 2 and sizes[0] != sizes[1]:
        (height, width), (map_height, map_width) = sizes
        faults.append(
            Fault(map_path, f"{map_path}: {map_width}x{map_height} pixels, but its image has {width}x{height}")
        )
    return faults, pixels


def _count(stored_hw: Stored) -> dict[int, int]:
    if stored_hw.max() < 1 << 16:
        counts = np.bincount(stored_hw.ravel())
        return {int(label): int(counts[label]) for label in np.flatnonzero(counts)}
    labels, numbers = np.unique(stored_hw, return_counts=True)
    return dict(zip(labels.tolist(), numbers.tolist(), strict=True))


def refuse(faults: Sequence[Fault], found: dict[Split, Found], classes: Classes, options: DataConfig) -> None:
    """Stop where there is a fault.

    Raises:
        DataError: names the first ten, how many there are, and what to do about labels that are no class.
    """
    if not faults:
        return
    more = f"\n  and {len(faults) - _NUM_NAMED:,} more" if len(faults) > _NUM_NAMED else ""
    lines = "".join(f"\n  {fault.text}" for fault in faults[:_NUM_NAMED])
    advised = _what_to_do(found, classes, options)
    raise DataError(
        f"{options.root}: {use.counted(len(faults), 'faulty file')}:{lines}{more}{advised}\n"
        f"Fix or remove them; `python -m segmentation.check {options.root}` lists all"
    )


def _what_to_do(found: dict[Split, Found], classes: Classes, options: DataConfig) -> str:
    labels = set().union(*(part.pixels for part in found.values()))
    if suffix := next((part.suffix for part in found.values() if part.suffix), ""):
        return f"\nThe label maps have {suffix!r} behind the names of their images: --data.map-suffix {suffix}"
    if not classes.unknown(labels):
        return ""
    return f"\nThe label maps hold the {classes.text_of(labels)}: {advice(labels, classes, options)}"


def judge(found: dict[Split, Found], classes: Classes, options: DataConfig) -> None:
    """Say which classes the maps hold, and stop where they cannot be what `data.classes` says.

    Raises:
        DataError: nothing is labelled, or the labels look like classes of one's own where ADE20K's were taken because
            nobody said which.
    """
    labels = set().union(*(part.pixels for part in found.values()))
    for split, part in found.items():
        if not any(part.pixels[label] for label in classes.of_label):
            raise DataError(
                f"{options.root}: no pixel of the {part.num_pairs:,} {split} label maps is labelled: they hold only "
                f"{classes.text_of(part.pixels)}; {classes}"
            )
        log.info("%s: %s", split, summary(part, classes))
    _warn_of_untrained(found, classes)
    counting = labels - set(classes.ignored)
    if not options.classes and _are_ones_own(counting, all(part.ade_names for part in found.values())):
        raise DataError(
            f"{options.root}: the label maps hold the {classes.text_of(labels)}, which look like classes of your "
            f"own and not like ADE20K's 150: {advice(labels, classes, options)}. If they are: --data.classes ade20k"
        )


def _warn_of_untrained(found: dict[Split, Found], classes: Classes) -> None:
    """Say which classes are in the validation set and not in the training set: their IoU can only be 0."""
    if "training" not in found:
        return
    lacking = {
        classes.names[number]
        for label, number in classes.of_label.items()
        if found["validation"].pixels[label] and not found["training"].pixels[label]
    }
    trained = {classes.names[number] for label, number in classes.of_label.items() if found["training"].pixels[label]}
    if untrained := sorted(lacking - trained):
        log.warning("in the validation set, but never in the training set: %s", some(untrained))


def _are_ones_own(labels: set[int], ade_names: bool) -> bool:
    """Whether labels that are not ignored, all below 150, are not ADE20K's: they fill 1, 2, 3, ... up to the largest,
    as ADE20K's do only with all of its 20,000 images, or the files are named otherwise."""
    return max(labels) < 150 and (2 * len(labels) > max(labels) or not ade_names)


def advice(labels: set[int], classes: Classes, options: DataConfig) -> str:
    """Which options would take these labels."""
    if classes.coloured:
        new = [f"'#{label:06x}'" for label in classes.unknown(labels)]
        also = f"; what does not count is --data.ignore-label {' '.join(new)}" if len(new) <= 3 else ""
        return f"--data.classes gives every class its colour, and {classes}{also}"
    border = " 255" if 255 in labels else ""
    ignore = f" --data.ignore-label{border}" if border else ""
    if options.classes:
        unknown = set(classes.unknown(labels))
        also = (
            f"; --data.ignore-label {' '.join(map(str, sorted({255, *options.ignore_label})))}"
            if 255 in unknown
            else ""
        )
        return f"{classes} (--data.classes, --data.label-offset, --data.ignore-label){also}"
    if len(labels - {255}) < 2:  # a mask in black and white
        border, ignore = "", ""
    own = sorted(labels - {255}) if border else sorted(labels)
    number = len(own)
    if classes.unknown(labels) == [255] and max(own) == 150:
        return "if they are ADE20K's: --data.ignore-label 255"
    if own == list(range(number)):
        return (
            f"name them, --data.classes NAMES (or a file) with {number} names{ignore}, the first for label 0; or, if 0 "
            f"is unlabelled, {number - 1} name{'s' * (number > 2)}, --data.label-offset 1 --data.ignore-label 0{border}"
        )
    if own == list(range(1, number + 1)):
        return f"name them, --data.classes NAMES (or a file) with {number} names, --data.label-offset 1{ignore}"
    example = ",".join(f"name={label}" for label in own[:3])
    return f"name them with their labels, --data.classes {example}{',...' if number > 3 else ''}{ignore}"


def summary(part: Found, classes: Classes) -> str:
    """Which classes there are in a split, and how much of it they cover."""
    total = sum(part.pixels.values())
    shares: Counter[str] = Counter()
    for label, number in classes.of_label.items():
        if part.pixels[label]:
            shares[classes.names[number]] += part.pixels[label]
    ignored = sum(part.pixels[label] for label in classes.ignored)
    shown = ", ".join(f"{name} {100 * pixels / total:.1f} %" for name, pixels in shares.most_common(_NUM_NAMED))
    more = f" and {len(shares) - _NUM_NAMED} more" if len(shares) > _NUM_NAMED else ""
    return (
        f"{use.counted(part.num_pairs, 'pair')}, {len(shares)} of {len(classes.names)} classes: {shown}{more}; "
        f"unlabelled {100 * ignored / max(total, 1):.1f} %"
    )


def main(arguments: Sequence[str]) -> None:
    """List every fault below a folder and which labels there are; exit code 3 if there are any faults."""
    with cli.guard():
        if not arguments or arguments[0] in ("-h", "--help"):
            print("usage: python -m segmentation.check DIR [--data.<option> ...]    (--help after DIR lists them)")
            sys.exit(0 if arguments else 2)
        words = "Every image and label map of a data set, looked at as a run does before it trains."
        root = arguments[0]
        options = use.data_options(DataConfig(root=root), arguments[1:], "python -m segmentation.check DIR", words)
        if options.root != root:
            raise ConfigError(f"--data.root {options.root} beside {root}: give the data set once")
        check(options)
        classes = classes_in(options)
        found = {split: check_pairs(pairs, classes, options) for split, pairs in find_pairs(options).items()}
        for split, part in found.items():
            for fault in part.faults:
                print(fault.text)
            print(f"{split}: {use.counted(part.num_pairs, 'pair')}, {use.counted(len(part.faults), 'faulty file')}")
        if count := sum(len(part.faults) for part in found.values()):
            raise DataError(
                f"{options.root}: {use.counted(count, 'faulty file')}{_what_to_do(found, classes, options)}"
            )
        judge(found, classes, options)


if __name__ == "__main__":
    main(sys.argv[1:])
