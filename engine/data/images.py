"""The images of a data set as every task reads them: the index, one image, and what happens at a bad file."""

import itertools
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from engine.cores import allowed_cores
from engine.data.decode import ImageArray, UnreadableImageError, read_image
from engine.data.exclude import quoted, read_list
from engine.data.files import MissingFileError
from engine.data.index import (
    ImageIndex,
    check_same_classes,
    index_images,
    or_skip,
    require_batch,
)
from engine.data.options import Exif, ImageOptions, Unreadable
from engine.data.order import SampleKey, generator
from engine.data.scan import SUFFIXES, why_no_file
from engine.errors import DataError

__all__ = [
    "SUFFIXES",
    "Exif",
    "ImageArray",
    "ImageIndex",
    "ImageOptions",
    "Unreadable",
    "UnreadableImageError",
    "check_same_classes",
    "count_unreadable",
    "index_images",
    "read_image",
    "read_sample",
    "readable_part",
    "require_batch",
    "unreadable_paths",
]

_SUBSTITUTE_STREAM = 0x5B57  # of generator(): apart from the small stream numbers the data sets draw from

log = logging.getLogger(__name__)


def read_sample(
    index: ImageIndex, key: SampleKey, *, policy: Unreadable, seed: int, run_dir: Path | None = None
) -> tuple[ImageArray, int]:
    """Decode the image of a key, or under "skip" of a substitute if it is not a whole image.

    The substitute is a function of (seed, epoch, index, attempt), so a resumed run takes the same one. Every path
    skipped is appended to `<run_dir>/unreadable.txt`.

    Returns:
        RGB uint8 array, (height, width, 3), and the position in the index that was read (for its label).

    Raises:
        DataError: under "stop", the image is not readable; under "skip", more of the index are not than
            `index.options.max_unreadable` accepts; under both, the file is missing or storage failed.
    """
    position = key.index
    for attempt in itertools.count():
        try:
            if index.sizes[position] == 0:
                raise UnreadableImageError(f"{index.path(position)}: {why_no_file(index.path(position))}")
            return read_image(index.path(position), index.options), position
        except MissingFileError as error:
            raise DataError(f"{error}, though it was listed at the start; put it back, or start anew") from error
        except UnreadableImageError as error:
            if policy == "stop":
                raise DataError(
                    f"{error}. Fix or remove it, leave it out (`python -m engine.verify {index.root} --list FILE`, "
                    f"then --data.exclude FILE){or_skip(index.options)}"
                ) from error
            _record_unreadable(index, index.path(position), error, run_dir)
        source = generator(seed, SampleKey(key.epoch, key.index), _SUBSTITUTE_STREAM + attempt)
        position = int(source.integers(len(index)))
    raise AssertionError("unreachable: the recording stops a hopeless search")


def readable_part(index: ImageIndex) -> ImageIndex:
    """The images that can be decoded, for what looks at each once and cannot take another in place of a bad one.

    Raises:
        DataError: more cannot be than `index.options.max_unreadable` accepts, or a file is missing.
    """

    def can_be_read(position: int) -> bool:
        try:
            read_sample(index, SampleKey(0, position), policy="stop", seed=0)
        except DataError as error:
            if not isinstance(error.__cause__, UnreadableImageError):
                raise
            _record_unreadable(index, index.path(position), error.__cause__, None)
            return False
        return True

    with ThreadPoolExecutor(allowed_cores()) as pool:
        good = list(pool.map(can_be_read, range(len(index))))
    return index if all(good) else index.subset(position for position, whole in enumerate(good) if whole)


def unreadable_paths(run_dir: Path) -> set[str]:
    """The files a run has skipped, each once however often and by whichever process it was met."""
    path = run_dir / "unreadable.txt"
    return set(read_list(path)) if path.exists() else set()


def count_unreadable(run_dir: Path) -> int:
    """How many files a run has skipped, for its result."""
    return len(unreadable_paths(run_dir))


_skipped: dict[Path | None, set[str]] = {}  # per run folder, what this process knows to be listed already


def _record_unreadable(index: ImageIndex, path: str, error: Exception, run_dir: Path | None) -> None:
    known = _skipped.setdefault(run_dir, set())
    if path not in known and run_dir is not None:
        known |= unreadable_paths(run_dir)  # of other workers, ranks and earlier processes
    if path not in known:
        known.add(path)
        log.warning("skipping %s", error)
        if run_dir is not None:
            _append_line(run_dir / "unreadable.txt", quoted(path))
    num_bad = sum(line.startswith(f"{index.root}/") for line in known)
    if not index.options.accepts_unreadable(num_bad, len(index)):
        where = f"; list in {run_dir / 'unreadable.txt'}" if run_dir else ""
        raise DataError(
            f"{error}. {num_bad:,} of {len(index):,} files are unreadable, more than "
            f"--data.max-unreadable {index.options.max_unreadable:g} accepts{where}. Fix them, leave them out "
            f"(`python -m engine.verify {index.root} --list FILE`, then --data.exclude FILE), or accept more"
        )


def _append_line(path: Path, line: str) -> None:
    """One write per line in append mode, so lines of several processes never mix."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(descriptor, os.fsencode(line) + b"\n")
    finally:
        os.close(descriptor)
