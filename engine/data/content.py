"""What identifies a data set: names, sizes, and the content of as many files as can be read in seconds.

Not the folder it lies in and not when its files were written, so a copy elsewhere is the same data set, while an image
replaced by another of the same size is not.
"""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.data.files import UnreadableImageError, read_all, read_with
from engine.data.header import jpeg_header
from engine.data.index import ImageIndex
from engine.data.scan import describe_left_out, some
from engine.errors import DataError

MAX_FILES = 10_000
"""Files looked into: every one of a smaller data set, evenly spread ones of a larger (ImageNet: seconds)."""

_BLOCK = 1 << 14
_WHOLE = 1 << 16  # a file up to this size is read whole, a larger one at its start, middle and end
_NUM_THREADS = 8  # a network file system answers many requests at once


@dataclass(frozen=True)
class Content:
    """What was found inside the files of a data set.

    Args:
        digest: sha256 over the parts that were read.
        num_files: how many were looked into.
        turned: JPEGs among them with an EXIF orientation other than upright, relative paths.
    """

    digest: str
    num_files: int
    turned: tuple[str, ...]


def look_into(index: ImageIndex) -> Content:
    """Read parts of up to MAX_FILES files of a data set. What is no regular file counts as one without content.

    Raises:
        DataError: a file is gone, or storage failed four times in a row.
    """
    chosen = np.unique(np.linspace(0, len(index) - 1, min(len(index), MAX_FILES)).round().astype(int)).tolist()
    digest, turned = hashlib.sha256(), []
    with ThreadPoolExecutor(_NUM_THREADS) as pool:
        heads = pool.map(lambda position: _part_digest(index, position), chosen)
        for position, (part, orientation) in zip(chosen, heads, strict=True):
            digest.update(part)
            if orientation != 1:
                turned.append(index.paths[position])
    return Content(digest.hexdigest(), len(chosen), tuple(turned))


def _part_digest(index: ImageIndex, position: int) -> tuple[bytes, int]:
    """sha256 of parts of a file, and the EXIF orientation if it is a JPEG."""
    if index.sizes[position] == 0:  # empty, or no file: the index says so
        return b"", 1
    try:
        parts = read_with(_parts, index.path(position))
    except UnreadableImageError:
        return b"", 1
    header = jpeg_header(parts[0])
    return hashlib.sha256(b"".join(parts)).digest(), header.orientation if header else 1


def _parts(descriptor: int) -> list[bytes]:
    size = os.fstat(descriptor).st_size
    if size <= _WHOLE:
        return [read_all(descriptor)]
    return [os.pread(descriptor, _BLOCK, place) for place in (0, size // 2, size - _BLOCK)]


def remarks(index: ImageIndex, content: Content) -> list[str]:
    """What a person should know about a data set before a run uses it, a line each."""
    lines = []
    if index.left_out:
        lines.append(f"{index.root}: {describe_left_out(index.left_out)}")
    if content.turned and index.options.exif != "stop":
        ignored = index.options.exif == "ignore"
        treated = "are read as stored; --data.exif apply turns them upright" if ignored else "are turned upright"
        lines.append(
            f"{index.root}: {len(content.turned):,} of {content.num_files:,} images looked into have an EXIF "
            f"orientation and {treated}: {some(content.turned)}"
        )
    return lines


def identify(index: ImageIndex, content: Content) -> dict[str, Any]:
    """What a run stores of a data set, to insist on the same one when it resumes."""
    return {
        "num_images": len(index),
        "digest": index.digest,
        "content": content.digest,
        "content_files": content.num_files,
    }


def check_same(index: ImageIndex, content: Content, known: dict[str, Any]) -> None:
    """Require the data set a run started with, so that its order of samples can be continued.

    Args:
        index: the data set as it is now.
        content: what `look_into` finds in it now.
        known: what `identify` gave at the start; without "content" in a run folder of an older version.

    Raises:
        DataError: files were added, removed, resized or replaced.
    """
    check_unchanged(index, known["num_images"], known["digest"])
    if known.get("content_files") == content.num_files and known["content"] != content.digest:
        raise DataError(
            f"{index.root}: names and sizes are those the run started with, but the content of at least one of "
            f"{content.num_files:,} files looked into is not: an image was replaced. Restore the data set (a list made "
            "by `python -m engine.verify DIR --hashes FILE` tells which), or start a new run"
        )


def check_unchanged(index: ImageIndex, num_images: int, digest: str) -> None:
    """Require the names and sizes of the data set a run started with.

    Raises:
        DataError: names or sizes of the files have changed.
    """
    if (len(index), index.digest) != (num_images, digest):
        raise DataError(
            f"{index.root}: the data set has {len(index)} files, the run started with {num_images} "
            f"(hash {index.digest[:12]}, then {digest[:12]}). Restore the data set, or start a new run"
        )
