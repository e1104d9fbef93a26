"""Writing files so that a reader finds the old content or the new, never half of it."""

import errno
import hashlib
import json
import os
import shutil
import stat
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


def read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no regular file, or does not hold one JSON object.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError("it is no regular file")  # to open a pipe would wait for ever
    try:
        values = json.loads(path.read_bytes())
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(values, dict):
        raise ValueError("it does not hold an object")
    return values


def sealed(values: dict[str, Any]) -> dict[str, Any]:
    """The values with "sha256", a hash over all the others: see `is_sealed`."""
    content = {name: value for name, value in values.items() if name != "sha256"}
    return {**content, "sha256": _content_hash(content)}


def is_sealed(values: dict[str, Any]) -> bool:
    """Whether the values are those that `sealed` saw; also of what was read back from JSON."""
    content = {name: value for name, value in values.items() if name != "sha256"}
    return bool(values.get("sha256") == _content_hash(content))


def _content_hash(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def remove(path: Path) -> None:
    """Remove a file, a link (not what it leads to) or a folder with all in it; nothing if there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


_LIMITS = {
    errno.ENOSPC: "",
    errno.EDQUOT: ": the quota of this user or project, whatever the disk has left",
    errno.EFBIG: ": a limit of the file system or of this shell, `ulimit -f`, whatever the disk has left",
}


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
        if error.errno in _LIMITS:
            wanted = f"need {need / 1e9:.2f} GB, have" if need else "have"
            raise CheckpointError(
                f"no space: {wanted} {free / 1e9:.2f} GB at {folder} ({error.strerror}{_LIMITS[error.errno]})"
            ) from error
        raise CheckpointError(f"cannot write under {folder}: {error}") from error
