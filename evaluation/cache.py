"""Features on disk: one folder for each (encoder, view, image set), one file of plain numbers for each representation.

A file is written from its start to its end, and features.json says how far it is good: the numbers are on the disk
before it says so. A process killed at any instant goes on from there. Files are read as memory maps.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.errors import CheckpointError
from engine.run import lock, storage

LIST = "features.json"


@dataclass
class FeatureCache:
    """The features of one image set by one encoder.

    Args:
        folder: where they are.
        num_images: rows of each file.
        dtype: "float32" or "float16".
    """

    folder: Path
    num_images: int
    dtype: str

    @property
    def _row_type(self) -> np.dtype[Any]:
        return np.dtype(self.dtype)

    def known(self) -> dict[str, dict[str, int]]:
        """{representation: {"dim", "done"}} of what is on the disk; of files that are shorter than that, nothing."""
        try:
            values = storage.read_object(self.folder / LIST)
            found = {str(n): {"dim": int(v["dim"]), "done": int(v["done"])} for n, v in values["files"].items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}  # torn or foreign: extracted again
        return {name: entry for name, entry in found.items() if self._is_there(name, entry)}

    def _is_there(self, name: str, entry: dict[str, int]) -> bool:
        path = self._path(name)
        return path.is_file() and path.stat().st_size >= entry["done"] * entry["dim"] * self._row_type.itemsize

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.{self.dtype}"

    def read(self, name: str) -> npt.NDArray[Any]:
        """(N, D), mapped.

        Raises:
            CheckpointError: it is not complete.
        """
        entry = self.known().get(name)
        if entry is None or entry["done"] != self.num_images:
            raise CheckpointError(f"{self._path(name)} is not complete: remove {self.folder} and extract again")
        return np.memmap(self._path(name), dtype=self._row_type, mode="r", shape=(self.num_images, entry["dim"]))

    def missing(self, names: list[str]) -> list[str]:
        """Which of the representations are not complete."""
        known = self.known()
        return [name for name in names if known.get(name, {}).get("done") != self.num_images]

    @contextmanager
    def writing(self) -> Iterator["Writer"]:
        """Hold the folder and write into it.

        Raises:
            ConfigError: another process does.
            CheckpointError: the storage refuses.
        """
        with storage.storage_errors(self.folder.parent):
            self.folder.mkdir(parents=True, exist_ok=True)
            lock.take(self.folder)
        writer = Writer(self)
        try:
            yield writer
            writer.record()
        finally:
            writer.close()
            lock.release(self.folder)


class Writer:
    """Appends rows to a cache's files."""

    def __init__(self, cache: FeatureCache) -> None:
        self._cache, self._done = cache, cache.known()
        self._handles: dict[str, int] = {}

    def first_missing(self, names: list[str]) -> int:
        """The first image that one of the representations lacks."""
        return min(self._done.get(name, {}).get("done", 0) for name in names)

    def write(self, name: str, first: int, rows_nd: npt.NDArray[np.floating[Any]]) -> None:
        """Put rows at a position. Nothing counts before `record`.

        Raises:
            CheckpointError: the storage refuses.
        """
        entry = self._done.setdefault(name, {"dim": rows_nd.shape[1], "done": 0})
        if first + len(rows_nd) <= entry["done"]:
            return
        content = np.ascontiguousarray(rows_nd, dtype=self._cache._row_type).tobytes()
        need = (self._cache.num_images - first) * entry["dim"] * self._cache._row_type.itemsize
        with storage.storage_errors(self._cache.folder, need if name not in self._handles else 0):
            if name not in self._handles:
                self._handles[name] = os.open(self._cache._path(name), os.O_RDWR | os.O_CREAT, 0o644)
            offset, view = first * entry["dim"] * self._cache._row_type.itemsize, memoryview(content)
            while view:
                written = os.pwrite(self._handles[name], view, offset)
                view, offset = view[written:], offset + written
        entry["done"] = first + len(rows_nd)

    def record(self) -> None:
        """Make what was written so far count.

        Raises:
            CheckpointError: the storage refuses.
        """
        with storage.storage_errors(self._cache.folder):
            for handle in self._handles.values():
                os.fsync(handle)
            storage.write_json(
                self._cache.folder / LIST,
                {"num_images": self._cache.num_images, "dtype": self._cache.dtype, "files": self._done},
            )

    def close(self) -> None:
        """Give the files back."""
        for handle in self._handles.values():
            os.close(handle)
        self._handles.clear()


def key(**parts: Any) -> str:
    """16 hexadecimal digits of what tells features apart."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]
