"""CIFAR-10 and CIFAR-100 as their authors ship them: pickles of Python 2 in a tar.

A pickle is a program. Only what these files need is let through (arrays, and text as bytes); anything else is refused
before it runs.
"""

import io
import pickle
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from benchmarks.prepare.archives import as_text, read_files
from benchmarks.prepare.writer import Picture
from engine.errors import DataError

_SIDE = 32


def cifar10(sources: Sequence[Path]) -> Iterator[Picture]:
    """Pictures of cifar-10-python.tar.gz, numbered as in its batches."""
    train = [f"data_batch_{i}" for i in range(1, 6)]
    return _pictures(sources, {"train": train, "val": ["test_batch"]}, ("batches.meta", b"label_names", b"labels"))


def cifar100(sources: Sequence[Path]) -> Iterator[Picture]:
    """Pictures of cifar-100-python.tar.gz by their fine labels."""
    return _pictures(sources, {"train": ["train"], "val": ["test"]}, ("meta", b"fine_label_names", b"fine_labels"))


def _pictures(
    sources: Sequence[Path], batches: dict[str, list[str]], names_and_labels: tuple[str, bytes, bytes]
) -> Iterator[Picture]:
    meta_name, names_key, labels_key = names_and_labels
    files = read_files(sources, [meta_name, *(name for part in batches.values() for name in part)])
    where = f"{sources[0]}: {meta_name}"
    listed = _field(safe_load(files[meta_name], where), names_key, where)
    names = [as_text(name, where) if isinstance(name, bytes) else str(name) for name in listed]
    for split, parts in batches.items():
        number = 0
        for part in parts:
            where = f"{sources[0]}: {part}"
            batch = safe_load(files[part], where)
            pixels, labels = _field(batch, b"data", where), _field(batch, labels_key, where)
            pixels = _checked(pixels, labels, len(names), where)
            for image, label in zip(pixels, labels, strict=True):
                yield Picture(f"{split}/{names[label]}/{number:05d}.png", partial(png, image))
                number += 1


def _field(batch: Any, key: bytes, where: str) -> Any:
    if not isinstance(batch, dict) or not isinstance(batch.get(key), list | np.ndarray):
        raise DataError(f"{where}: no list {key.decode()!r} in it, so it is not CIFAR's")
    return batch[key]


def _checked(pixels: Any, labels: Any, num_classes: int, where: str) -> npt.NDArray[np.uint8]:
    shape = (len(labels), 3 * _SIDE * _SIDE)
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape != shape:
        found = f"{getattr(pixels, 'dtype', type(pixels).__name__)} of shape {getattr(pixels, 'shape', None)}"
        raise DataError(f"{where}: the pixels are {found}, expected uint8 of shape {shape}")
    wrong = [label for label in labels if not isinstance(label, int) or not 0 <= label < num_classes]
    if wrong:
        raise DataError(f"{where}: label {wrong[0]!r} is not one of 0 to {num_classes - 1}")
    return pixels.reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1)


def png(pixels: npt.NDArray[np.uint8]) -> bytes:
    """Pixels (height, width[, 3]) as the bytes of a PNG."""
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, "PNG")
    return file.getvalue()


class _Unpickler(pickle.Unpickler):
    """Arrays of numbers and plain values, nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        allowed = {
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): _number_type,
            ("numpy.core.multiarray", "_reconstruct"): _empty_array,
            ("numpy._core.multiarray", "_reconstruct"): _empty_array,
            ("_codecs", "encode"): _latin1,
        }
        if (module, name) not in allowed:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no CIFAR file needs")
        return allowed[module, name]


def _empty_array(kind: Any, shape: Any, code: Any) -> Any:
    if kind is not np.ndarray:
        raise pickle.UnpicklingError("it asks for an array of an unknown kind")
    return np.ndarray((0,), np.uint8)  # its content comes afterwards, by __setstate__


def _number_type(code: Any, *_: Any) -> Any:
    kind = np.dtype(code.decode() if isinstance(code, bytes) else code)
    if kind.kind not in "uif":
        raise pickle.UnpicklingError(f"it asks for an array of {kind}")
    return kind


def _latin1(text: str, encoding: Any = "latin1") -> bytes:
    return text.encode("latin1")


def safe_load(data: bytes, where: str) -> Any:
    """The value of a pickle of plain values and arrays of numbers.

    Args:
        data: the pickle.
        where: what it is, for messages.

    Raises:
        DataError: it is damaged, or asks for anything else; nothing it asks for has been run.
    """
    try:
        return _Unpickler(io.BytesIO(data), encoding="bytes").load()
    except (MemoryError, RecursionError) as error:
        raise DataError(f"{where}: refused: its content asks for too much memory") from error
    except Exception as error:  # whatever bytes can make an unpickler raise
        raise DataError(f"{where}: refused, nothing of it was run: {error or type(error).__name__}") from error
