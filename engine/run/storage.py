"""Writing files so that a reader finds the old content or the new, never half of it."""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engine.errors import CheckpointError


class HashingFile:
    """A file being written that knows its sha256, its size and the error that stopped it.

    torch.save turns a full disk into a RuntimeError about its own bookkeeping; `error` keeps the real reason.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._hash = hashlib.sha256()
        self.size = 0
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        """Append bytes; returns how many."""
        view = memoryview(data).cast("B")
        try:
            self._file.write(view)
        except OSError as error:
            self.error = error
            raise
        self._hash.update(view)
        self.size += len(view)
        return len(view)

    def flush(self) -> None:
        """Hand what is buffered to the operating system."""
        self._file.flush()

    def close(self) -> dict[str, Any]:
        """Force the content to the disk; returns {"size", "sha256"}."""
        with self._file:
            self._file.flush()
            os.fsync(self._file.fileno())
        return {"size": self.size, "sha256": self._hash.hexdigest()}


def sha256_of(path: Path) -> str:
    """sha256 of a file's content, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fsync_directory(path: Path) -> None:
    """Force a folder's entries (a rename, a new file) to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomic(path: Path, content: bytes | str) -> None:
    """Replace a file's content in one step."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with temporary.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    fsync_directory(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Replace a JSON file in one step; NaN is not JSON and is refused."""
    write_atomic(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


@contextmanager
def storage_errors(folder: Path, need: int = 0) -> Iterator[None]:
    """Turn operating-system errors of the block into a CheckpointError that says what is missing.

    Args:
        folder: where the block writes.
        need: bytes it is about to write, 0 if unknown.

    Raises:
        CheckpointError: for any OSError in the block, or beforehand if the space does not suffice.
    """
    existing = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    free = shutil.disk_usage(existing).free
    if free < need:
        raise CheckpointError(f"no space: need {need / 1e9:.2f} GB, have {free / 1e9:.2f} GB at {folder}")
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise CheckpointError(
                f"no space: need {need / 1e9:.2f} GB, have {free / 1e9:.2f} GB at {folder} ({error.strerror})"
            ) from error
        raise CheckpointError(f"cannot write under {folder}: {error}") from error
