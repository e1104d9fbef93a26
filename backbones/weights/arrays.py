"""Pickles of NumPy arrays, as Detectron2 publishes its weights, read without running anything in them."""

import collections
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("collections", "OrderedDict"): collections.OrderedDict,
}

_MULTIARRAY = ("numpy.core.multiarray", "numpy._core.multiarray")


def _reconstruct(kind: Any, shape: Any, code: Any) -> np.ndarray:
    """An empty array, which its pickle then fills."""
    if kind is not np.ndarray:
        raise pickle.UnpicklingError("no plain array")
    return np.ndarray.__new__(np.ndarray, (0,), "b")


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """Bytes, as Python 3 writes them for Python 2."""
    return text.encode(encoding)


def _scalar(kind: np.dtype, content: bytes = b"") -> Any:
    """A single number."""
    return np.frombuffer(content, dtype=kind)[0]


class CodeInPickleError(Exception):
    """A pickle names a function or class that it would call."""


NUMBERS: list[Any] = [
    *(np.ndarray, np.dtype),
    *(type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?")),
    *((_reconstruct, f"{module}._reconstruct") for module in _MULTIARRAY),
    *((_scalar, f"{module}.scalar") for module in _MULTIARRAY),
    (_encode, "_codecs.encode"),
]
"""What torch may meet in a checkpoint besides tensors: NumPy's arrays and numbers, as scripts keep an accuracy."""


class _Arrays(pickle.Unpickler):
    """Knows arrays and plain containers only: any other name in the pickle ends the reading."""

    def find_class(self, module: str, name: str) -> Any:
        if module in _MULTIARRAY and name in ("_reconstruct", "scalar"):
            return _reconstruct if name == "_reconstruct" else _scalar
        if (module, name) == ("_codecs", "encode"):
            return _encode
        if (module, name) in _ALLOWED:
            return _ALLOWED[module, name]
        raise CodeInPickleError(f"{module}.{name}")


def read_arrays(path: Path) -> Any:
    """What the pickle holds, its arrays of numbers as tensors; None if it is no such file.

    Raises CodeInPickleError, with the name of what it would call.
    """
    try:
        with path.open("rb") as file:
            if file.read(1) != b"\x80":
                return None
            file.seek(0)
            content = _Arrays(file, encoding="latin1").load()
        return _as_tensors(content) if isinstance(content, Mapping) else None  # older torch files begin with a number
    except (OSError, CodeInPickleError):
        raise
    except Exception:  # a pickle of other things, or none: whatever unpickling raises
        return None


def _as_tensors(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _as_tensors(part) for name, part in value.items()}
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        return torch.from_numpy(np.array(value, dtype=value.dtype.newbyteorder("="), order="C"))
    return value
