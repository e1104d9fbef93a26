"""Parts of a training set: what is put aside to choose settings on, and a few images of each class."""

import numpy as np
import numpy.typing as npt

from engine.data.index import ImageIndex
from engine.data.scan import some
from engine.errors import DataError

_HELD_OUT_STREAM, _FEW_STREAM = 0x5E1EC7, 0xFE3
Positions = npt.NDArray[np.int64]


def hold_out(labels_n: npt.NDArray[np.int64], share: float, seed: int) -> tuple[Positions, Positions]:
    """(kept, held out): the share of every class, drawn by (seed, class), at least one where a class has two images.

    Raises:
        DataError: no class has two.
    """
    held: list[int] = []
    for label in np.unique(labels_n).tolist():
        members = np.flatnonzero(labels_n == label)
        num = min(max(round(share * len(members)), 1), len(members) - 1)
        held += _generator(seed, _HELD_OUT_STREAM, label).permutation(members)[:num].tolist()
    if not held:
        raise DataError("no class of the training set has two images, so none can be put aside to choose settings on")
    mask = np.zeros(len(labels_n), dtype=bool)
    mask[held] = True
    return np.flatnonzero(~mask), np.flatnonzero(mask)


def few_of_each(index: ImageIndex, num: int, seed: int, draw: int) -> Positions:
    """`num` images of every class, a function of (seed, draw, class): fewer of the same draw are a part of more.

    Raises:
        DataError: a class has fewer.
    """
    assert index.labels is not None
    counts = np.bincount(index.labels, minlength=len(index.classes))
    if (counts < num).any():
        short = [index.classes[int(label)] for label in np.flatnonzero(counts < num)]
        raise DataError(f"{index.root}: {len(short)} classes have fewer than {num} images: {some(short)}")
    chosen = [
        _generator(seed, _FEW_STREAM, draw, label).permutation(np.flatnonzero(index.labels == label))[:num]
        for label in range(len(index.classes))
    ]
    return np.sort(np.concatenate(chosen))


def _generator(*key: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))
