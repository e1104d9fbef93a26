"""metrics.jsonl: one line per log step or evaluation. No line is lost, none is torn, and each is durable before the
checkpoint that counts on it."""

import errno
import hashlib
import json
import logging
import os
import time
from pathlib import Path
from typing import Any

from engine.errors import CheckpointError

log = logging.getLogger("mim")


class JsonLines:
    """A file of JSON lines that one process appends to. A line that cannot be written waits and is written later."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._waiting: list[bytes] = []
        self._end: int | None = None  # where the file ends, as far as we wrote it
        self._warned_at = -60.0

    def append(self, row: dict[str, Any], *, keep: bool = True) -> None:
        """Add a line. A storage that refuses must not end a run that can still train: it is named once a minute.

        Args:
            row: what the line holds.
            keep: whether the line waits for a storage that takes it, else it is dropped.
        """
        self._waiting.append((json.dumps(row, allow_nan=False) + "\n").encode())
        try:
            self.flush()
        except OSError as error:
            if time.monotonic() - self._warned_at >= 60:
                self._warned_at = time.monotonic()
                log.warning("cannot append to %s: %s", self.path, error.strerror)
            if not keep:
                self._waiting.clear()

    def flush(self) -> None:
        """Write what waits.

        Raises:
            OSError: the storage refuses still, or the file is not as long as it was left.
        """
        if not self._waiting:
            return
        lines, end = b"".join(self._waiting), self._length()
        handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o644)
        try:
            found = os.fstat(handle).st_size
            if found != end:
                raise OSError(errno.EIO, f"it has {found} bytes where this run left {end}")
            _write_whole(handle, lines)
        finally:
            os.close(handle)
        self._waiting.clear()
        self._end = end + len(lines)

    def size(self) -> int:
        """Bytes of all lines, those that wait included."""
        return self._length() + sum(map(len, self._waiting))

    def rewind(self, offset: int) -> None:
        """Drop the lines after an offset."""
        self._waiting.clear()
        if self.path.exists() and self.path.stat().st_size > offset:
            os.truncate(self.path, offset)
        self._end = offset

    def rows(self) -> list[dict[str, Any]]:
        """Every line that is a whole JSON object, in order."""
        try:
            lines = self.path.read_bytes().splitlines()
        except FileNotFoundError:
            return []
        found = []
        for line in lines:
            try:
                found.append(json.loads(line))
            except (ValueError, RecursionError):  # torn by a kill in the middle of the write, or not ours
                continue
        return [row for row in found if isinstance(row, dict)]

    def _length(self) -> int:
        if self._end is None:
            self._end = self.path.stat().st_size if self.path.exists() else 0
        return self._end


def _write_whole(handle: int, lines: bytes) -> None:
    start = os.fstat(handle).st_size
    try:
        written = os.write(handle, lines)
        if written == len(lines):
            return
        reason = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # it filled up inside a line
    except OSError as error:
        reason = error
    os.ftruncate(handle, start)  # take half a line back
    raise reason


def make_durable(path: Path, size: int) -> str:
    """Force the first `size` bytes of metrics.jsonl, and its name, to the disk; returns their sha256.

    Raises:
        CheckpointError: the file is shorter.
        OSError: it cannot be read, or the storage refuses.
    """
    if size == 0:
        return hashlib.sha256().hexdigest()
    with path.open("rb") as file:
        content = file.read(size)
        os.fsync(file.fileno())
    if len(content) < size:
        raise CheckpointError(f"{path} has {len(content)} bytes, this run wrote {size} into it")
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return hashlib.sha256(content).hexdigest()


def history_fault(path: Path, size: int, sha256: str | None, evaluations: list[int]) -> str | None:
    """Why metrics.jsonl is not what a checkpoint was written beside, or None if it is.

    Args:
        path: of the file.
        size: its length then; what follows does not matter.
        sha256: of its content then; None if the checkpoint does not know it.
        evaluations: the steps before the checkpoint's after which the run evaluates. They may all be absent, for not
            every run logs what it evaluates, but not some of them.
    """
    try:
        with path.open("rb") as file:
            content = file.read(size)
    except FileNotFoundError:
        content = b""
    except OSError as error:
        return f"metrics.jsonl cannot be read ({error.strerror})"
    if len(content) < size:
        return f"metrics.jsonl has {len(content)} bytes, it had {size} then"
    if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
        return "metrics.jsonl is not what it was then (its sha256 differs)"
    if sha256 is not None and not evaluations:
        return None
    if content and not content.endswith(b"\n"):
        return "metrics.jsonl then ended inside a line"
    try:
        rows = [dict(json.loads(line)) for line in content.splitlines()]
    except (ValueError, TypeError, RecursionError):
        return "metrics.jsonl holds a line that is no JSON object"
    lost = missing_evaluations(rows, evaluations)
    return f"metrics.jsonl lacks the evaluation after step {lost[0]}" if lost and len(lost) < len(evaluations) else None


def missing_evaluations(rows: list[dict[str, Any]], evaluations: list[int]) -> list[int]:
    """Those of the steps of evaluations that have no line."""
    found = {row.get("step") for row in rows if row.get("split") == "val"}
    return [step for step in evaluations if step not in found]
