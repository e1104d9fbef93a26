"""Files of weights: opened without running anything in them, written so that they are whole or absent.

Containers and prefixes of other libraries' checkpoints are taken off here; the names inside are keymaps.py's business.
"""

import argparse
import contextlib
import hashlib
import json
import os
import pickle
import pickletools
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors
from torch import Tensor

from backbones.errors import WeightsFileError

from .keymaps import State, recognise

HEADER_KEY = "backbone"  # the one metadata key of our files: several would be written in random order

_CONTAINERS = ("state_dict", "model", "module", "model_state_dict", "backbone", "teacher")
_WRAPPERS = ("module.", "_orig_mod.")  # of DistributedDataParallel and torch.compile
_ENCODER_PREFIXES = (
    "backbone.bottom_up.",
    "backbone.",
    "sparse_encoder.sp_cnn.",
    "base_encoder.",
    "encoder_q.",
    "timm_model.",
    "net.",
)
_RECOMPUTED = re.compile(r"(^|.*\.)(relative_position_index|relative_coords_table|attn_mask)")
_NOT_ENCODER = re.compile(r"(mask_tokens?|mask_gamma|decoder.*)|.*momentum.*")


@dataclass(frozen=True)
class WeightsFile:
    """What a file of weights holds, under timm's names."""

    state: State
    convention: str
    """Whose names it used: timm, torchvision, openmixup, facebook, microsoft or detectron2."""
    description: dict[str, Any] = field(default_factory=dict)
    """What save_backbone was told; empty for other people's files."""
    dropped: tuple[str, ...] = ()
    """Tensors of the file that belong to no encoder or classifier: decoders, mask tokens, necks, averaged copies."""


def open_weights(source: str | Path, *, ema: bool = False) -> WeightsFile:
    """Read a run folder (its backbone.safetensors), a .safetensors file or a torch file.

    Understood besides our own and timm's: torchvision, OpenMixup and its relatives (A2MIM and SimMIM checkpoints whole
    or extracted, MMSelfSup, MMPretrain), the official SimMIM, MAE and SparK files, Facebook's ConvNeXt, Detectron2's
    ResNet. `ema` takes the averaged copy OpenMixup keeps beside each weight (`ema_` and its name with underscores).

    Nothing in the file is run. Raises WeightsFileError if it is missing, empty, damaged, holds no weights, would have
    to run code, or does not have the hash that its name ends with.
    """
    path = Path(source)
    if path.is_dir():
        path = path / "backbone.safetensors"
        if not path.exists():
            raise WeightsFileError(
                f"{source} holds no backbone.safetensors: it is no run folder, or its run stopped early."
            )
    if not path.is_file():
        raise WeightsFileError(f"{path} does not exist: give a file of weights, or the folder of a finished run.")
    _check_hash(path)
    raw, description = _read_safetensors(path) if path.suffix == ".safetensors" else (_read_torch(path), {})
    state = _tensors(raw, path)
    state, averaged = _split_averaged(state, use=ema, path=path)
    state, dropped = _encoder_part(state)
    keymap = recognise(state)
    return WeightsFile(
        state=keymap.to_timm(state) if keymap else state,
        convention=keymap.convention if keymap else "timm",
        description=description,
        dropped=tuple(sorted([*averaged, *dropped])),
    )


def write_weights(path: str | Path, state: Mapping[str, Tensor], description: Mapping[str, Any]) -> None:
    """Write tensors and their description as one safetensors file, replacing `path` in one step.

    The same tensors and description give the same bytes. Raises ValueError for a description that is not JSON (NaN
    included) and OSError if the file cannot be written; a half-written file is never left under `path`.
    """
    path = Path(path)
    header = {HEADER_KEY: json.dumps(dict(description), sort_keys=True, allow_nan=False)}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    content = to_safetensors(tensors, metadata=header)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the new name itself must survive a power failure
    finally:
        os.close(folder)


def _check_hash(path: Path) -> None:
    """Compare with the first digits of the sha256 that published files carry in their names (`name-0676ba61.pth`)."""
    match = re.search(r"-([0-9a-f]{8,64})$", path.stem)
    if match is None or match[1].isdecimal():  # eight decimal digits are more likely a date
        return
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if not digest.startswith(match[1]):
        raise WeightsFileError(f"{path} has the sha256 {digest[:8]}..., not the {match[1]} in its name: get it again.")


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        description = json.loads(metadata.get(HEADER_KEY, "{}"))
    except (SafetensorError, OSError, ValueError) as error:
        raise _damaged(path, error) from error
    return tensors, description


def _read_torch(path: Path) -> Any:
    # Namespace, in which training scripts keep their options, is a plain container.
    with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's remarks about foreign pickles would precede our one line
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch reports damage as RuntimeError, EOFError, UnpicklingError and others
            code = _code_in(path)
            if not code:
                reason = ValueError("no torch file") if isinstance(error, pickle.UnpicklingError) else error
                raise _damaged(path, reason) from error
            raise WeightsFileError(
                f"{path} contains code ({code[0]}), which is not run; convert it to plain tensors if you trust it: "
                "torch.save(torch.load(PATH, weights_only=False)['state_dict'], NEW_PATH), or whatever its key is."
            ) from error


def _code_in(path: Path) -> list[str]:
    """Names of the functions and classes that a pickle would call, apart from torch's own for tensors."""
    try:
        return torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except (ValueError, RuntimeError, OSError):  # not torch's zip: an older torch file or a plain pickle
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
    return [name for name in names if not name.startswith(("torch.", "collections.OrderedDict", "argparse.Namespace"))]


def _damaged(path: Path, error: Exception) -> WeightsFileError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
    return WeightsFileError(
        f"{path} ({path.stat().st_size} bytes) is not a whole file of weights: {reason}. Get it again."
    )


def _tensors(raw: Any, path: Path) -> State:
    """The state dictionary inside the containers that training scripts put around it."""
    while isinstance(raw, Mapping):
        tensors = {str(name): value for name, value in raw.items() if isinstance(value, Tensor)}
        inner = next((raw[key] for key in _CONTAINERS if isinstance(raw.get(key), Mapping)), None)
        if inner is None and tensors:
            return tensors
        raw = inner
    raise WeightsFileError(f"{path} holds no tensors; looked at the top and under {', '.join(_CONTAINERS)}.")


def _split_averaged(state: State, *, use: bool, path: Path) -> tuple[State, list[str]]:
    """Take out OpenMixup's averaged copies; with `use` they replace the weights."""
    averaged = {f"ema_{name.replace('.', '_')}": name for name in state}
    copies = {copy: name for copy, name in averaged.items() if copy in state}
    if use and not copies:
        raise WeightsFileError(f"{path} holds no averaged copy (ema_...) of its weights.")
    plain = {name: tensor for name, tensor in state.items() if name not in copies}
    if use:
        plain |= {name: state[copy] for copy, name in copies.items()}
    return plain, list(copies)


def _encoder_part(state: State) -> tuple[State, list[str]]:
    """The encoder and the classifier of a checkpoint, without prefixes, and the names of everything else."""
    dropped: list[str] = []
    for wrapper in _WRAPPERS:
        if all(name.startswith(wrapper) for name in state):
            state = {name.removeprefix(wrapper): tensor for name, tensor in state.items()}
    while prefix := _encoder_prefix(state):
        outside = [name for name in state if not name.startswith((prefix, "head."))]
        dropped += outside
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name not in outside}
    not_encoder = [name for name in state if _NOT_ENCODER.fullmatch(name)]
    dropped += not_encoder
    kept = {name: t for name, t in state.items() if name not in not_encoder and not _RECOMPUTED.fullmatch(name)}
    return kept, dropped


def _encoder_prefix(state: State) -> str | None:
    """The prefix that marks the encoder in a checkpoint of a larger model, None if there is none."""
    # The official SimMIM has an encoder and a decoder and nothing else; other networks have a part called encoder too.
    if any(name.startswith("decoder.") for name in state) and all(re.match("(en|de)coder\\.", name) for name in state):
        return "encoder."
    return next((prefix for prefix in _ENCODER_PREFIXES if any(name.startswith(prefix) for name in state)), None)
