"""One regular file to bytes. A pipe, a device or a folder in its place is refused before anything waits on it."""

import errno
import logging
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from engine.errors import DataError

RETRY_WAITS_S = (0.1, 0.3, 1.0)
"""Pauses before reading again after a storage error that tends to pass."""

_PASSING_ERRORS = frozenset({errno.EIO, errno.ESTALE, errno.EAGAIN, errno.ETIMEDOUT, errno.EREMOTEIO})
_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}
Result = TypeVar("Result")

log = logging.getLogger(__name__)
_num_read_again = 0


class UnreadableImageError(DataError):
    """The file is there, but its bytes are not a whole image. The only error that `unreadable: skip` may skip."""


class MissingFileError(DataError):
    """There is no file of this name."""


def kind_of_file(mode: int) -> str | None:
    """What stands in the place of a file, from its st_mode: "a named pipe", ...; None for a regular file."""
    return None if stat.S_ISREG(mode) else _KINDS.get(stat.S_IFMT(mode), "no regular file")


@contextmanager
def open_file(path: str | Path) -> Iterator[int]:
    """The descriptor of a regular file, open for reading.

    Raises:
        UnreadableImageError: it is a pipe, a socket, a device, a folder, or a link that leads to itself.
        OSError: it is missing, or storage failed.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # without it a pipe waits for a writer
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise UnreadableImageError(f"{path}: a link that leads to itself") from error
        if error.errno == errno.ENXIO:
            raise UnreadableImageError(f"{path}: a socket, not a file") from error
        raise
    try:
        kind = kind_of_file(os.fstat(descriptor).st_mode)
        if kind is not None:
            raise UnreadableImageError(f"{path}: {kind}, not a file")
        yield descriptor
    finally:
        os.close(descriptor)


def read_bytes(path: str | Path) -> bytes:
    """The whole file.

    Raises:
        DataError: as `read_with`.
    """
    return read_with(read_all, path)


def read_with(read: Callable[[int], Result], path: str | Path) -> Result:
    """What `read` makes of the descriptor of a file; storage errors that tend to pass (EIO, ESTALE, time-outs) are met
    with three more tries.

    Raises:
        UnreadableImageError: it is no regular file.
        MissingFileError: there is none.
        DataError: it cannot be read.
    """
    global _num_read_again
    for wait_s in (*RETRY_WAITS_S, None):
        try:
            with open_file(path) as descriptor:
                return read(descriptor)
        except FileNotFoundError as error:
            what = "a link to nothing" if Path(path).is_symlink() else "no such file"
            raise MissingFileError(f"{path}: {what}") from error
        except OSError as error:
            if error.errno not in _PASSING_ERRORS or wait_s is None:
                tries = f" after {len(RETRY_WAITS_S) + 1} tries" if error.errno in _PASSING_ERRORS else ""
                raise DataError(f"{path}: cannot be read{tries} ({error.strerror or error})") from error
            _num_read_again += 1
            log.warning("%s: %s; reading again (%d such so far)", path, error.strerror, _num_read_again)
            time.sleep(wait_s)
    raise AssertionError("the last try returns or raises")


def read_small(path: str | Path, what: str) -> bytes:
    """A list or table that a user names.

    Args:
        path: of the file.
        what: it is, for messages.

    Raises:
        DataError: it is missing, no regular file, or cannot be read.
    """
    try:
        with open_file(path) as descriptor:
            return read_all(descriptor)
    except (OSError, ValueError) as error:  # ValueError: a path with a zero byte
        raise DataError(f"{path}: {what} cannot be read ({getattr(error, 'strerror', None) or error})") from error
    except UnreadableImageError as error:
        raise DataError(f"{what} cannot be read: {error}") from error


def read_all(descriptor: int) -> bytes:
    """What a descriptor of a regular file still has to give."""
    size = os.fstat(descriptor).st_size
    data = os.read(descriptor, size + 1)
    if len(data) == size:  # one call, as nearly always
        return data
    parts = [data]
    while data:
        data = os.read(descriptor, 1 << 24)
        parts.append(data)
    return b"".join(parts)
