"""Which images a data set has: file names and sizes under a folder, found once per run without opening a file."""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, overload

import numpy as np
import numpy.typing as npt

from engine.errors import DataError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
"""Of files taken as images, in upper or lower case."""

Unreadable = Literal["stop", "skip"]
"""What to do at a file that is not a whole image: stop the run, or take another image in its place."""

_NUM_NAMED = 5  # how many offending names a message lists
_NUM_SCAN_THREADS = 8  # a network file system answers many size requests at once


class PathList(Sequence[str]):
    """Sorted file names in one block of bytes.

    A million Python strings would be copied into every forked loader worker, page by page, as their reference counts
    change; one block stays shared, and is quick to send to a spawned worker.
    """

    def __init__(self, paths: Iterable[str]) -> None:
        encoded = [os.fsencode(path) for path in sorted(paths)]
        self.block = b"".join(encoded)
        self.ends = np.cumsum([0, *map(len, encoded)], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.ends) - 1

    @overload
    def __getitem__(self, position: int) -> str: ...
    @overload
    def __getitem__(self, position: slice) -> list[str]: ...
    def __getitem__(self, position: int | slice) -> str | list[str]:
        if isinstance(position, slice):
            return [self[i] for i in range(*position.indices(len(self)))]
        i = range(len(self))[position]  # negative positions, and IndexError past the end
        return os.fsdecode(self.block[self.ends[i] : self.ends[i + 1]])


@dataclass(frozen=True, eq=False)
class ImageIndex:
    """The images under a folder.

    Args:
        root: the folder.
        paths: relative to root, with forward slashes, sorted.
        sizes: bytes of each file, int64, shape (num_images,).
        labels: position in `classes` of each image, int64, shape (num_images,); None for an unlabelled index.
        classes: names of the class folders; empty for an unlabelled index.
    """

    root: Path
    paths: PathList
    sizes: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64] | None = None
    classes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.paths)

    def path(self, position: int) -> str:
        """The full path of an image."""
        return f"{self.root}/{self.paths[position]}"

    @cached_property
    def digest(self) -> str:
        """sha256 over names and sizes: equal for equal data sets wherever they are stored."""
        digest = hashlib.sha256(self.paths.block)
        digest.update(self.paths.ends.astype("<i8").tobytes())
        digest.update(self.sizes.astype("<i8").tobytes())
        return digest.hexdigest()


def index_images(
    root: str | Path, *, labelled: bool, classes: Sequence[str] | None = None, unreadable: Unreadable = "stop"
) -> ImageIndex:
    """Find every image under a folder, by name and size only. Hidden files and folders are left out.

    Args:
        root: any folder with images, at any depth; with `labelled`, one folder per class directly under it.
        labelled: whether the first folder of a path is its class.
        classes: the classes in the order of their labels; by default the folder names, sorted.
        unreadable: "stop" refuses files of zero bytes here; "skip" leaves them to `read_sample`.

    Raises:
        DataError: the folder is missing, holds no images, holds empty files, or its class folders are not `classes`.
    """
    root = Path(root)
    top = _list(root)
    folders = [entry.name for entry in top if entry.is_dir()]
    found = _scan(top, "")
    with ThreadPoolExecutor(_NUM_SCAN_THREADS) as pool:
        for images in pool.map(lambda name: list(_walk(f"{root}/{name}", f"{name}/", frozenset())), folders):
            found += images
    if not found:
        raise DataError(f"{root}: no images found; accepted are files ending in {_suffixes()}, at any depth")
    sizes = dict(found)
    paths = PathList(sizes)
    index = ImageIndex(root, paths, np.array([sizes[path] for path in paths], dtype=np.int64))
    if unreadable == "stop":
        _refuse_empty_files(index)
    return _label(index, tuple(sorted(folders)), classes) if labelled else index


def _suffixes() -> str:
    return f"{' '.join(SUFFIXES)} (upper or lower case)"


def _list(folder: str | Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except FileNotFoundError as error:
        raise DataError(f"{folder}: no such folder; expected one with images ({_suffixes()})") from error
    except NotADirectoryError as error:
        raise DataError(f"{folder}: not a folder; expected one with images ({_suffixes()})") from error
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed ({error.strerror})") from error


def _scan(entries: list[os.DirEntry[str]], prefix: str) -> list[tuple[str, int]]:
    """(relative path, bytes) of the images among a folder's entries."""
    return [
        (prefix + entry.name, _size(entry))
        for entry in entries
        if entry.name.lower().endswith(SUFFIXES) and not entry.is_dir()
    ]


def _size(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat().st_size
    except OSError:
        return 0  # a link to nowhere counts as an empty file, and is reported like one


def _walk(folder: str, prefix: str, above: frozenset[tuple[int, int]]) -> Iterator[tuple[str, int]]:
    """`_scan` of a folder and all below it. `above` are the folders on the way, to notice a link that leads back."""
    status = os.stat(folder)  # noqa: PTH116
    here = (status.st_dev, status.st_ino)
    if here in above:
        raise DataError(f"{folder}: this link leads back to a folder above it; remove it")
    entries = _list(folder)
    yield from _scan(entries, prefix)
    for entry in entries:
        if entry.is_dir():
            yield from _walk(entry.path, f"{prefix}{entry.name}/", above | {here})


def _some(names: Sequence[str]) -> str:
    more = len(names) - _NUM_NAMED
    return ", ".join(names[:_NUM_NAMED]) + (f" and {more:,} more" if more > 0 else "")


def _refuse_empty_files(index: ImageIndex) -> None:
    empty = [index.paths[int(i)] for i in np.flatnonzero(index.sizes == 0)]
    if empty:
        raise DataError(
            f"{index.root}: {len(empty):,} of {len(index):,} files are empty (0 bytes): {_some(empty)}. "
            "Fix or remove them, or set --data.unreadable skip"
        )


def _label(index: ImageIndex, folders: tuple[str, ...], classes: Sequence[str] | None) -> ImageIndex:
    names = [path.split("/", 1)[0] if "/" in path else "" for path in index.paths]
    loose = names.count("")
    if loose:
        raise DataError(
            f"{index.root}: {loose:,} images are in no class folder; labelled data needs <class>/<image> "
            "(ImageNet's validation images must first be sorted into their classes)"
        )
    without = sorted(set(folders) - set(names))
    if without:
        raise DataError(f"{index.root}: class folders without images ({_suffixes()}): {_some(without)}")
    wanted = folders if classes is None else tuple(classes)
    _compare_classes(wanted, folders, "the classes asked for", str(index.root))
    positions = {name: position for position, name in enumerate(wanted)}
    labels = np.array([positions[name] for name in names], dtype=np.int64)
    return ImageIndex(index.root, index.paths, index.sizes, labels, wanted)


def _compare_classes(first: Sequence[str], second: Sequence[str], first_name: str, second_name: str) -> None:
    differing = sorted(set(first) ^ set(second))
    if differing:
        only = [f"{name} (only in {first_name if name in first else second_name})" for name in differing]
        raise DataError(f"{first_name} and {second_name} differ in {len(differing):,} classes: {_some(only)}")


def check_same_classes(train: ImageIndex, val: ImageIndex) -> None:
    """Require the labels of both to mean the same.

    Raises:
        DataError: they have different class folders, or order them differently; lists the first five.
    """
    _compare_classes(train.classes, val.classes, str(train.root), str(val.root))
    moved = [name for name, other in zip(train.classes, val.classes, strict=True) if name != other]
    if moved:
        raise DataError(f"{train.root} and {val.root} number their classes differently: {_some(moved)}")


def require_batch(index: ImageIndex, batch_size: int) -> None:
    """Require enough images for one global batch.

    Raises:
        DataError: there are fewer; names both numbers and the largest batch that works.
    """
    if len(index) < batch_size:
        raise DataError(
            f"{index.root} has {len(index)} images, fewer than one batch of {batch_size}: "
            f"use --batch-size {len(index)} or less"
        )


def check_unchanged(index: ImageIndex, num_images: int, digest: str) -> None:
    """Require the data set a run started with, so that its order of samples can be continued.

    Raises:
        DataError: names or sizes of the files have changed.
    """
    if (len(index), index.digest) != (num_images, digest):
        raise DataError(
            f"{index.root}: the data set has {len(index)} files, the run started with {num_images} "
            f"(hash {index.digest[:12]}, then {digest[:12]}). Restore the data set, or start a new run"
        )
