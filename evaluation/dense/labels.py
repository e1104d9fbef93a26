"""Label maps as patches: squashed to the grid of an encoder's map, and the counts that make an mIoU.

N images, h w map height and width, P side of a patch in pixels, U = P * P, C classes.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from numpy.lib.format import open_memmap
from PIL import Image

from engine import use
from engine.errors import DataError
from engine.run import storage
from segmentation.labels import Classes, read_label_map

IGNORED = 255
_STREAM = 0xB007


def labels_of(path: str, classes: Classes, side: int, patch: int) -> npt.NDArray[np.uint8]:
    """The classes in each patch of a label map, uint8 (side * side, U), 255 where a pixel does not count.

    The map is squashed to side * patch pixels, nearest neighbour.

    Raises:
        DataError: the file is missing, is no label map, or holds a label that is no class.
    """
    try:
        whole = classes.to_classes(read_label_map(path, coloured=classes.coloured))
    except ValueError as error:
        raise DataError(f"{path}: {error}") from error
    size = side * patch
    squashed = np.asarray(Image.fromarray(whole).resize((size, size), Image.Resampling.NEAREST))
    blocks = squashed.reshape(side, patch, side, patch).transpose(0, 2, 1, 3)
    return blocks.reshape(side * side, patch * patch)


def all_labels(paths: list[str], classes: Classes, side: int, patch: int, file: Path) -> npt.NDArray[np.uint8]:
    """The patches of all label maps, (N * side * side, U), mapped from `file`, which is written if it is not there.

    Raises:
        DataError: a label map cannot be used.
        CheckpointError: the file cannot be written.
    """
    if not file.exists():
        partial = file.with_name(f".{file.name}.partial")
        with storage.storage_errors(file.parent):
            file.parent.mkdir(parents=True, exist_ok=True)
            rows = open_memmap(partial, mode="w+", dtype=np.uint8, shape=(len(paths) * side * side, patch * patch))
            for number, path in enumerate(use.each(paths, "label maps")):
                rows[number * side * side : (number + 1) * side * side] = labels_of(path, classes, side, patch)
            rows.flush()
            del rows
            partial.replace(file)
    mapped: npt.NDArray[np.uint8] = np.load(file, mmap_mode="r", allow_pickle=False)
    return mapped


def areas(predicted: npt.NDArray[np.uint8], truth: npt.NDArray[np.uint8], num_classes: int) -> npt.NDArray[np.int64]:
    """Of each class the pixels that are both, and that are either, over the pixels whose truth counts: (2, C)."""
    counted = truth != IGNORED
    true, said = truth[counted].astype(np.int64), predicted[counted].astype(np.int64)
    both = np.bincount(true[true == said], minlength=num_classes)[:num_classes]
    either = np.bincount(true, minlength=num_classes)[:num_classes] - both
    either = either + np.bincount(said, minlength=256)[:num_classes]
    return np.stack([both, either])


def mean_iou(areas_2c: npt.NDArray[np.int64]) -> float:
    """Mean over the classes that are there or are predicted, in percent; NaN where no pixel counts."""
    both, either = areas_2c
    seen = either > 0
    return 100 * float(np.mean(both[seen] / either[seen])) if seen.any() else float("nan")


def mean_iou_interval(areas_n2c: npt.NDArray[np.int64], *, seed: int, resamplings: int) -> tuple[float, float]:
    """95 % percentile interval of the mean IoU over images drawn anew, in percent."""
    source = np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, _STREAM))))
    num = len(areas_n2c)
    values = [
        mean_iou(np.tensordot(source.multinomial(num, np.full(num, 1 / num)), areas_n2c, axes=1))
        for _ in range(resamplings)
    ]
    low, high = np.nanpercentile(values, (2.5, 97.5))
    return float(low), float(high)
