"""What an export leaves: files that are whole or absent, with the first digits of their sha256 in their names."""

import hashlib
import io
import os
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from backbones.errors import WeightsFileError
from backbones.weights.containers import HEADER_KEY

HASH_DIGITS = 8
"""Of the sha256 in a file's name: what torch.hub compares with, given check_hash."""


@dataclass(frozen=True)
class Written:
    """An export.

    Args:
        path: of the file or folder.
        lines: that use it on the other side, code or configuration.
        remarks: what is not as one might expect, one sentence each.
    """

    path: Path
    lines: tuple[str, ...]
    remarks: tuple[str, ...] = ()


def write_hashed(out: Path, stem: str, suffix: str, content: bytes) -> Path:
    """Write `content` and return its path, which ends with `-<8 digits of its sha256><suffix>`.

    `out` is the file's name without the digits, if it ends with `suffix`; else a folder, and the file is called `stem`.

    Raises:
        WeightsFileError: it cannot be written.
    """
    digits = hashlib.sha256(content).hexdigest()[:HASH_DIGITS]
    folder, name = (out.parent, out.stem) if out.suffix == suffix else (out, stem)
    path = folder / f"{name}-{digits}{suffix}"
    with write_errors(path):
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f".{path.name}.{os.getpid()}.partial"
        try:
            partial.write_bytes(content)
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
    return path


def torch_bytes(value: Mapping[str, Any]) -> bytes:
    """What torch.save writes; the same bytes for the same value."""
    content = io.BytesIO()
    torch.save(value, content)
    return content.getvalue()


def bare_state(state: Mapping[str, Tensor], header: Mapping[str, Any]) -> "OrderedDict[str, Tensor]":
    """A state dictionary of nothing but tensors, whose header lies where torch keeps the versions of modules."""
    plain: OrderedDict[str, Tensor] = OrderedDict((name, tensor.contiguous()) for name, tensor in state.items())
    plain._metadata = OrderedDict({HEADER_KEY: dict(header)})  # type: ignore[attr-defined]
    return plain


@contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Turn what the system says about a path that cannot be written into an error for people."""
    try:
        yield
    except OSError as error:
        raise WeightsFileError(f"{error.filename or path} cannot be written: {error.strerror or error}.") from error
