"""Every image and label map of an ADE20K folder looked at before training. `python -m segmentation.check DIR` lists
what is wrong; a run does the same at its start and refuses."""

import io
import logging
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from engine.cli import guard
from engine.data.decode import read_bytes
from engine.data.images import ImageIndex, UnreadableImageError, index_images, read_image
from engine.distributed import gather_objects, rank, world_size
from engine.errors import DataError
from segmentation.config import NUM_CLASSES

log = logging.getLogger("mim")
Split = Literal["training", "validation"]
SPLITS: tuple[Split, Split] = ("training", "validation")
_NUM_NAMED = 10


@dataclass(frozen=True, order=True)
class Fault:
    """What is wrong with a file; the text begins with its path. `unreadable` ones may be left out on request."""

    path: str
    text: str
    unreadable: bool = False


def ade_root(root: str) -> Path:
    """`root` itself, or ADEChallengeData2016 in it.

    Raises:
        DataError: neither has the folders images and annotations.
    """
    given = Path(root)
    for folder in (given, given / "ADEChallengeData2016"):
        if (folder / "images").is_dir() and (folder / "annotations").is_dir():
            return folder
    raise DataError(
        f"{given}: holds no images/ and annotations/: expected ADEChallengeData2016 (scene parsing), or its parent"
    )


def find_pairs(root: Path, split: Split) -> tuple[ImageIndex, ImageIndex]:
    """The images and the label maps of a split, each sorted by name.

    Raises:
        DataError: a folder is missing or empty.
    """
    images, maps = (root / kind / split for kind in ("images", "annotations"))
    # "skip": empty files are found with all the others, in check_pairs.
    return (
        index_images(images, labelled=False, unreadable="skip"),
        index_images(maps, labelled=False, unreadable="skip"),
    )


def read_label_map(path: str | Path) -> npt.NDArray[np.uint8]:
    """The labels (height, width) as stored: 0 unlabelled, 1 to 150 the classes.

    Raises:
        UnreadableImageError: not a whole PNG.
        DataError: it has more than one 8-bit channel, or the file is missing.
    """
    try:
        image = Image.open(io.BytesIO(read_bytes(path)), formats=("PNG",))
        image.load()
    except DataError:
        raise
    except Exception as error:  # Pillow raises nearly anything on damaged bytes
        raise UnreadableImageError(f"{path}: not a whole PNG ({error or type(error).__name__})") from error
    if image.mode not in ("L", "P"):
        raise DataError(
            f"{path}: a label map has one channel of 8 bits, this one is {image.mode}. Use ADEChallengeData2016, not "
            "the full ADE20K data set"
        )
    return np.array(image)


def check_pairs(images: ImageIndex, maps: ImageIndex, num_threads: int) -> list[Fault]:
    """Read every pair, each rank its part, and return what is wrong with any of them, sorted by path."""
    faults = _missing(images, maps)
    faulty = {fault.path for fault in faults}
    of_image = {Path(path).with_suffix("").as_posix(): path for path in images.paths}
    of_map = {Path(path).with_suffix("").as_posix(): path for path in maps.paths}
    pairs = [
        (f"{images.root}/{of_image[stem]}", f"{maps.root}/{of_map[stem]}")
        for stem in sorted(of_image.keys() & of_map.keys())
    ]
    pairs = [pair for pair in pairs if not faulty & set(pair)]
    with ThreadPoolExecutor(max(num_threads, 1)) as pool:
        mine = [fault for found in pool.map(_check_pair, pairs[rank() :: world_size()]) for fault in found]
    everyone = [fault for part in gather_objects(mine) for fault in part]
    return sorted([*faults, *everyone])


def _missing(images: ImageIndex, maps: ImageIndex) -> list[Fault]:
    faults = []
    for index, others, suffix, kind in ((images, maps, ".jpg", "label map"), (maps, images, ".png", "image")):
        known = {Path(path).with_suffix("").as_posix() for path in others.paths}
        for path in index.paths:
            full = f"{index.root}/{path}"
            if not path.endswith(suffix):
                faults.append(Fault(full, f"{full}: the files here are to end in {suffix}"))
            elif path.removesuffix(suffix) not in known:
                faults.append(Fault(full, f"{full}: has no {kind} in {others.root}"))
    return faults


def _check_pair(pair: tuple[str, str]) -> list[Fault]:
    image_path, map_path = pair
    faults = []
    sizes = []
    for path, read in ((image_path, read_image), (map_path, read_label_map)):
        try:
            array: npt.NDArray[np.uint8] = read(path)
        except DataError as error:
            faults.append(Fault(path, str(error), isinstance(error, UnreadableImageError)))
            continue
        sizes.append(array.shape[:2])
        if read is read_label_map and array.max() > NUM_CLASSES:
            faults.append(
                Fault(
                    path, f"{path}: holds the label {array.max()}; 0 is unlabelled, the classes are 1 to {NUM_CLASSES}"
                )
            )
    if len(sizes) == 2 and sizes[0] != sizes[1]:
        (height, width), (map_height, map_width) = sizes
        faults.append(
            Fault(map_path, f"{map_path}: {map_width}x{map_height} pixels, but its image has {width}x{height}")
        )
    return faults


def refuse(faults: Sequence[Fault], root: Path) -> None:
    """Stop where there is a fault.

    Raises:
        DataError: names the first ten, and how many there are.
    """
    if not faults:
        return
    more = f"\n  and {len(faults) - _NUM_NAMED:,} more" if len(faults) > _NUM_NAMED else ""
    lines = "".join(f"\n  {fault.text}" for fault in faults[:_NUM_NAMED])
    raise DataError(
        f"{root}: {len(faults):,} faulty files:{lines}{more}\nFix or remove them; "
        f"`python -m segmentation.check {root}` lists all"
    )


def main(arguments: Sequence[str]) -> None:
    """List every fault below a folder; exit code 3 if there are any."""
    with guard():
        if len(arguments) != 1 or arguments[0] in ("-h", "--help"):
            print("usage: python -m segmentation.check DIR    (ADEChallengeData2016, or its parent)")
            sys.exit(0 if "-h" in arguments or "--help" in arguments else 2)
        root = ade_root(arguments[0])
        count = 0
        for split in SPLITS:
            images, maps = find_pairs(root, split)
            faults = check_pairs(images, maps, num_threads=8)
            count += len(faults)
            for fault in faults:
                print(fault.text)
            print(f"{split}: {len(images):,} images, {len(faults):,} faulty files")
        if count:
            raise DataError(f"{root}: {count:,} faulty files")


if __name__ == "__main__":
    main(sys.argv[1:])
