"""Pictures to files: each complete or not there, and left alone if it is, so that an interruption costs nothing."""

import errno
import fcntl
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from rich.console import Console
from rich.progress import track

from engine.errors import ConfigError, DataError
from engine.run.storage import storage_errors


@dataclass(frozen=True)
class Picture:
    """One image of the result.

    Args:
        path: below the result's folder: train/<class>/<name>, val/<class>/<name> or unlabelled/<name>.
        content: gives the file's bytes.
        file: the same bytes on the disk, if they are there.
    """

    path: str
    content: Callable[[], bytes]
    file: Path | None = None


def write_pictures(directory: Path, pictures: Iterable[Picture], *, total: int, copy: bool) -> Counter[str]:
    """Write pictures that are not there yet, with a progress bar on a terminal.

    Args:
        directory: of the result.
        pictures: in any order.
        total: how many are expected.
        copy: whether files on the disk are copied instead of linked.

    Returns:
        How many pictures each split has.

    Raises:
        DataError: two pictures have one path, or a path leads out of the folder.
        CheckpointError: the folder cannot be written.
    """
    counts: Counter[str] = Counter()
    seen: set[str] = set()
    screen = Console(stderr=True)
    shown = track(pictures, "prepare", total, console=screen, transient=True, disable=not screen.is_terminal)
    for picture in shown:
        if picture.path in seen:
            raise DataError(f"{picture.path}: the source holds two images of this name")
        seen.add(picture.path)
        target = directory / _checked(picture.path)
        with storage_errors(directory):
            if not (target.is_file() and target.stat().st_size):
                target.parent.mkdir(parents=True, exist_ok=True)
                _write(directory, target, picture, copy)
        counts[PurePosixPath(picture.path).parts[0]] += 1
    return counts


def _checked(path: str) -> str:
    parts = PurePosixPath(path).parts
    if path.startswith("/") or ".." in parts or len(parts) < 2 or "\\" in path or "\0" in path:
        raise DataError(f"{path!r}: not a path that an image of a data set can have")
    return path


@contextmanager
def only_writer(directory: Path) -> Iterator[None]:
    """Keep other processes from writing the same result. Where the file system knows no locks, nothing does.

    Raises:
        ConfigError: one is at it.
    """
    with storage_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            os.close(descriptor)
            raise ConfigError(f"{directory}: another process is writing it; wait for it, or end it") from error
    try:
        yield
    finally:
        os.close(descriptor)


def _write(directory: Path, target: Path, picture: Picture, copy: bool) -> None:
    temporary = directory / ".writing.partial"  # one name, so that a kill leaves one file at most, and not for long
    temporary.unlink(missing_ok=True)
    try:
        if picture.file is None:
            temporary.write_bytes(picture.content())
        elif copy:
            shutil.copyfile(picture.file, temporary)
        else:
            _link(picture.file, temporary)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _link(file: Path, target: Path) -> None:
    """A second name of the same file, or a link to it where the two are on different file systems."""
    try:
        os.link(file.resolve(), target)
    except OSError:
        target.symlink_to(file.resolve())
