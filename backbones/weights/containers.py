"""What is inside a file of weights, told by its bytes and read without running anything in it.

Not here: which of the tensors are an encoder's (wrappers.py), and whose names they have (keymaps.py).
"""

import argparse
import contextlib
import json
import pickle
import pickletools
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from backbones.errors import WeightsFileError

from .arrays import NUMBERS, CodeInPickleError, read_arrays
from .graph import is_graph, read_graph

_MAX_HEADER_BYTES = 100_000_000  # safetensors' own limit
HEADER_KEY = "backbone"  # the one metadata key of our files: several would be written in random order

_OTHERS = {  # first bytes of files that people give instead
    b"version https://git-lfs": "a Git LFS pointer, not the file itself: run `git lfs pull` where it lies",
    b"\x89HDF\r\n\x1a\n": "an HDF5 file (Keras), which is not read here",
    b"\x1f\x8b": "compressed by gzip: unpack it",
    b"\xfd7zXZ": "compressed by xz: unpack it",
    b"\x28\xb5\x2f\xfd": "compressed by zstandard: unpack it",
    b"<": "a web page or another text of markup",
    b"{": "a JSON text",
}


def read_container(path: Path) -> tuple[Any, dict[str, Any]]:
    """What a safetensors or torch file holds, whatever its name ends with, and how our own files describe it.

    Raises WeightsFileError if it cannot be read, is damaged, is another kind of file, or would have to run code.
    """
    try:
        with path.open("rb") as file:
            start = file.read(64)
        if is_safetensors(start):
            return _read_safetensors(path, start)
        if is_graph(start):
            return read_graph(path, HEADER_KEY)
        if start.startswith(b"PK"):
            _check_zip(path)
        elif found := next((what for mark, what in _OTHERS.items() if start.lstrip().startswith(mark)), None):
            raise damaged(path, f"it is {found}")
        raw = _read_torch(path)
        return raw, _header_in(raw)
    except OSError as error:
        raise WeightsFileError(f"{path} cannot be read: {error.strerror or error}.") from error


def is_safetensors(start: bytes) -> bool:
    """Whether a file that begins so is a safetensors file: the length of a header and the brace that opens it."""
    return start[8:9] == b"{" and _header_bytes(start) <= _MAX_HEADER_BYTES


def damaged(path: Path, reason: str) -> WeightsFileError:
    """The error for a file that is not a whole file of weights, with what was found in it."""
    return WeightsFileError(f"{path} ({path.stat().st_size} bytes) is not a whole file of weights: {reason}.")


def _header_bytes(start: bytes) -> int:
    return int.from_bytes(start[:8], "little")


def _read_safetensors(path: Path, start: bytes) -> tuple[dict[str, Tensor], dict[str, Any]]:
    if path.stat().st_size < 8 + _header_bytes(start):
        raise damaged(path, f"it is shorter than its header alone, {_header_bytes(start)} bytes")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, ValueError) as error:
        raise damaged(path, _first_line(error)) from error
    return tensors, _description(metadata.get(HEADER_KEY, "{}"))


def _description(text: str) -> dict[str, Any]:
    """What save_backbone was told. Other tools use the same key for texts of their own, which say nothing here."""
    try:
        description = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return description if isinstance(description, dict) else {}


def _header_in(raw: Any) -> dict[str, Any]:
    """What a torch file that was exported from here says of itself: under `meta`, or beside a bare state dictionary."""
    for place in (raw.get("meta") if isinstance(raw, Mapping) else None, getattr(raw, "_metadata", None)):
        header = place.get(HEADER_KEY) if isinstance(place, Mapping) else None
        if isinstance(header, Mapping) and "name" in header:
            return dict(header)
    return {}


def _check_zip(path: Path) -> None:
    """Compare a torch file with the checksums in it, which torch itself does not."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.rpartition("/")[2] for name in archive.namelist()]
            wrong = archive.testzip()
    except (zipfile.BadZipFile, NotImplementedError, EOFError, ValueError, RuntimeError) as error:
        raise damaged(path, f"its zip archive is broken ({_first_line(error)})") from error
    if wrong is not None:
        raise damaged(path, f"{wrong} in it differs from the checksum stored with it")
    if "constants.pkl" in names:
        raise damaged(path, "it is a TorchScript program: save the state_dict() of the model instead")
    if "data.pkl" not in names:
        raise damaged(path, f"it is a zip archive of other things ({', '.join(names[:3])})")


def _read_torch(path: Path) -> Any:
    # Namespace, in which training scripts keep their options, is a plain container, and NumPy's numbers are numbers.
    with torch.serialization.safe_globals([argparse.Namespace, *NUMBERS]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's remarks about foreign pickles would precede our one line
        try:
            with path.open("rb") as file:  # given a path, torch would go by its name
                return torch.load(file, map_location="cpu", weights_only=True)
        except OSError:
            raise
        except Exception as error:  # torch reports damage as RuntimeError, EOFError, UnpicklingError and others
            try:
                arrays = read_arrays(path)
            except CodeInPickleError as found:
                code = [str(found)]
            else:
                if arrays is not None:
                    return arrays
                code = _code_in(path)
            if not code:
                reason = "no torch or safetensors file" if isinstance(error, pickle.UnpicklingError) else error
                raise damaged(path, _first_line(reason)) from error
            raise WeightsFileError(
                f"{path} contains code ({code[0]}), which is not run; convert it to plain tensors if you trust it: "
                "torch.save(torch.load(PATH, weights_only=False)['state_dict'], NEW_PATH), or whatever its key is."
            ) from error


def _code_in(path: Path) -> list[str]:
    """Names of the functions and classes that a pickle would call, apart from torch's own for tensors; NumPy's last."""
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path), key=_is_numpys)
    except Exception:
        pass
    names: list[str] = []
    with path.open("rb") as file, contextlib.suppress(ValueError, IndexError, EOFError):
        while True:  # an older torch file is several pickles and then the tensors
            strings: list[str] = []
            for operation, argument, _ in pickletools.genops(file):
                if operation.name == "GLOBAL":
                    names.append(str(argument).replace(" ", "."))
                elif operation.name == "STACK_GLOBAL":
                    names.append(".".join(strings[-2:]))
                elif isinstance(argument, str):
                    strings.append(argument)
    plain = ("torch.", "collections.OrderedDict", "argparse.Namespace")
    return sorted((name for name in names if not name.startswith(plain)), key=_is_numpys)


def _is_numpys(name: str) -> bool:
    return name.startswith("numpy")


def _first_line(error: object) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120].rstrip(".")
