"""Which images a data set has: file names and sizes under a folder, found once per run without opening a file."""

import hashlib
import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import overload

import numpy as np
import numpy.typing as npt

from engine.data.bands import SUFFIXES as BAND_SUFFIXES
from engine.data.exclude import match, read_list
from engine.data.options import DEFAULT_OPTIONS, ImageOptions, Unreadable
from engine.data.scan import SUFFIXES, accepted_suffixes, describe_left_out, left_out, scan, some, why_no_file
from engine.data.split import held_out
from engine.errors import DataError

__all__ = ["SUFFIXES", "ImageIndex", "PathList", "Unreadable", "index_images"]

log = logging.getLogger("mim")


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
        options: how its files are decoded.
        left_out: what looks like an image under root and is not taken: why -> paths.
    """

    root: Path
    paths: PathList
    sizes: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64] | None = None
    classes: tuple[str, ...] = ()
    options: ImageOptions = DEFAULT_OPTIONS
    left_out: dict[str, list[str]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.paths)

    def apart(self, share: float) -> "tuple[ImageIndex, ImageIndex]":
        """The images for training, and those of which `held_out` keeps a share for validation."""
        kept_apart = set(held_out(self.paths, share))
        return self.subset(set(range(len(self))) - kept_apart), self.subset(kept_apart)

    def path(self, position: int) -> str:
        """The full path of an image."""
        return f"{self.root}/{self.paths[position]}"

    def subset(self, positions: Iterable[int]) -> "ImageIndex":
        """Some of the images, in their order here."""
        kept = np.array(sorted(positions), dtype=np.int64)
        paths = PathList(self.paths[int(position)] for position in kept)
        labels = None if self.labels is None else self.labels[kept]
        return replace(self, paths=paths, sizes=self.sizes[kept], labels=labels)

    @cached_property
    def digest(self) -> str:
        """sha256 over names and sizes: equal for equal data sets wherever they are stored."""
        digest = hashlib.sha256(self.paths.block)
        digest.update(self.paths.ends.astype("<i8").tobytes())
        digest.update(self.sizes.astype("<i8").tobytes())
        return digest.hexdigest()


def index_images(
    root: str | Path,
    *,
    labelled: bool,
    classes: Sequence[str] | None = None,
    unreadable: Unreadable | None = None,
    options: ImageOptions = DEFAULT_OPTIONS,
) -> ImageIndex:
    """Find every image under a folder, by name and size only. Hidden files and folders are left out.

    Args:
        root: any folder with images, at any depth; with `labelled`, one folder per class directly under it.
        labelled: whether the first folder of a path is its class.
        classes: the classes in the order of their labels; by default the folder names, sorted.
        unreadable: instead of `options.unreadable`: "stop" refuses here what has zero bytes or is no regular file;
            "skip" leaves it to `read_sample`.
        options: which images are left out, and how the others will be decoded.

    Raises:
        DataError: the folder is missing, holds no images, holds empty files, or its class folders are not `classes`.
    """
    root = Path(root)
    suffixes = SUFFIXES if options.bands == 3 else BAND_SUFFIXES
    found, folders = scan(root, suffixes)
    left = left_out(root, found)
    excluded = _exclude(root, found.images, options.exclude)
    if not found.images:
        because = f" ({len(excluded):,} are left out by {options.exclude})" if excluded else ""
        also = f". {describe_left_out(left)}" if left else ""
        raise DataError(
            f"{root}: no images found{because}; accepted are files ending in {accepted_suffixes(suffixes)}, at any "
            f"depth{also}"
        )
    paths = PathList(found.images)
    sizes = np.array([found.images[path] for path in paths], dtype=np.int64)
    index = ImageIndex(root, paths, sizes, options=options, left_out=left)
    if (unreadable or options.unreadable) == "stop":
        _refuse_empty_files(index)
    return _label(index, folders, classes) if labelled else index


def _exclude(root: Path, images: dict[str, int], list_path: str) -> set[str]:
    """Take the images that a list names out of `images`, and say how many."""
    if not list_path:
        return set()
    listed = read_list(list_path)
    named = match(root, listed, images)
    log.info("%s: %d of %d images left out as %s says", root, len(named), len(images), list_path)
    for path in named:
        del images[path]
    return named


def _refuse_empty_files(index: ImageIndex) -> None:
    empty = [index.paths[int(i)] for i in np.flatnonzero(index.sizes == 0)]
    if empty:
        reasons = some(f"{path} ({why_no_file(f'{index.root}/{path}')})" for path in empty)
        raise DataError(
            f"{index.root}: {len(empty):,} of {len(index):,} files cannot be images: {reasons}. "
            f"Fix or remove them, leave them out (--data.exclude FILE){or_skip(index.options)}"
        )


def or_skip(options: ImageOptions) -> str:
    """What else may be done about a bad file, where it is not done already: it does not help a validation image."""
    return "" if options.unreadable == "skip" else ", or, of a training image, set --data.unreadable skip"


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
        also = f". {describe_left_out(index.left_out)}" if index.left_out else ""
        raise DataError(f"{index.root}: class folders without images ({accepted_suffixes()}): {some(without)}{also}")
    wanted = folders if classes is None else tuple(classes)
    _compare_classes(wanted, folders, "the classes asked for", str(index.root))
    positions = {name: position for position, name in enumerate(wanted)}
    labels = np.array([positions[name] for name in names], dtype=np.int64)
    return replace(index, labels=labels, classes=wanted)


def _compare_classes(first: Sequence[str], second: Sequence[str], first_name: str, second_name: str) -> None:
    differing = sorted(set(first) ^ set(second))
    if differing:
        only = [f"{name} (only in {first_name if name in first else second_name})" for name in differing]
        raise DataError(f"{first_name} and {second_name} differ in {len(differing):,} classes: {some(only)}")


def check_same_classes(train: ImageIndex, val: ImageIndex) -> None:
    """Require the labels of both to mean the same.

    Raises:
        DataError: they have different class folders, or order them differently; lists the first five.
    """
    _compare_classes(train.classes, val.classes, str(train.root), str(val.root))
    moved = [name for name, other in zip(train.classes, val.classes, strict=True) if name != other]
    if moved:
        raise DataError(f"{train.root} and {val.root} number their classes differently: {some(moved)}")


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
