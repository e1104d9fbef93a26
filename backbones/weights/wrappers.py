"""The encoder inside a checkpoint: containers, wrappers and prefixes of training scripts come off, layer by layer."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from backbones.errors import WeightsFileError

from .keymaps import State, recognise

_CONTAINERS = (
    "target_encoder",  # I-JEPA's, beside the encoder that learns
    *("state_dict", "model", "module", "model_state_dict", "model_state", "backbone", "teacher", "encoder", "student"),
)
AVERAGED = ("model_ema", "state_dict_ema", "ema_state_dict", "ema_model", "ema", "module_ema", "model_ema_state_dict")
"""Where training scripts keep averaged weights, as a container beside the others or as a prefix."""
_PREFIXES = (
    *("module.", "_orig_mod."),  # of DistributedDataParallel, AveragedModel, torch.compile
    *("target_encoder.", "teacher."),  # beside which the network that learns from it is dropped
    "encoder.net.",  # of our own checkpoints
    *("backbone.bottom_up.", "backbone.", "sparse_encoder.sp_cnn.", "base_encoder.", "encoder_q.", "timm_model."),
    *("model.", "net."),  # under which people keep a network in a class of theirs
)
"""What has one of them is the network, and what has not is something else's. No timm network has names like these."""
_SHARED_PREFIXES = ("encoder.", "network.")
"""Prefixes that some networks have of their own, on some of their tensors: taken off where only parts that belong to no
encoder (_BESIDE) lack them."""
_BESIDE = re.compile(r"(decoder|head|fc|classifier|proj|pred|mask_token|neck|loss|criterion).*")
_MAX_CONTAINERS = 8  # one in another; a pickle may hold one that holds itself
_RECOMPUTED = re.compile(r"(^|.*\.)(relative_position_index|relative_coords_table|attn_mask)")
_NORMS_OF_MAPS = r"norm[0-2]\..*"
"""Norms that detectors and segmentors put on the maps of a Swin or ConvNeXt; norm3 is that of its end."""
_NOT_ENCODER = re.compile(
    r"(mask_tokens?|mask_gamma|decoder.*|pred_head\.projections.*|pred_head\.transforms\.0\.[1-9].*)|.*momentum.*"
)


@dataclass(frozen=True)
class Found:
    """The state dictionary of a checkpoint, and what is around it."""

    state: State
    containers: tuple[str, ...]
    """Under which it lies, outermost first."""
    others: tuple[str, ...]
    """What else the checkpoint holds that has tensors in it, such as an optimizer's state."""


def find_tensors(raw: Any, path: Path, *, ema: bool = False) -> Found:
    """The state dictionary inside the containers that training scripts put around it; with `ema` an averaged one that
    has a container of its own.

    Raises WeightsFileError if there is none.
    """
    containers: list[str] = []
    others: list[str] = []
    for _ in range(_MAX_CONTAINERS):
        if not isinstance(raw, Mapping):
            break
        tensors = {str(name): value for name, value in raw.items() if isinstance(value, Tensor)}
        order = (*AVERAGED, *_CONTAINERS) if ema else (*_CONTAINERS, *AVERAGED)
        inner = next((key for key in order if isinstance(raw.get(key), Mapping)), None)
        if inner is None and tensors:
            return Found(tensors, tuple(containers), tuple(others))
        others += [str(key) for key, value in raw.items() if key != inner and _holds_tensors(value)]
        containers += [inner] if inner else []
        raw = raw.get(inner)
    raise WeightsFileError(f"{path} holds no tensors; looked at the top and under {', '.join(_CONTAINERS)}.")


def _holds_tensors(value: Any) -> bool:
    """Whether there is a tensor in it, at most three levels down."""
    for _ in range(3):
        if isinstance(value, Tensor):
            return True
        if isinstance(value, Mapping) and value:
            parts: Any = [*value.values()]
            if any(isinstance(part, Tensor) for part in parts):
                return True
            value = next((part for part in parts if isinstance(part, Mapping) and part), None)
        else:
            return False
    return False


def split_averaged(state: State, *, use: bool, path: Path) -> tuple[State, State]:
    """Take out averaged copies beside the weights: OpenMixup's, or those below a prefix; with `use` they replace the
    weights."""
    averaged = {f"ema_{name.replace('.', '_')}": name for name in state}
    copies = {copy: name for copy, name in averaged.items() if copy in state}
    prefix = next((f"{name}." for name in AVERAGED if any(key.startswith(f"{name}.") for key in state)), None)
    if prefix and not copies and not all(name.startswith(prefix) for name in state):
        beside = {name for name in state if name.startswith(prefix)}
        if use:
            beside = state.keys() - beside
        plain = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name not in beside}
        return plain, {name: state[name] for name in sorted(beside)}
    if use and not copies:
        raise WeightsFileError(f"{path} holds no averaged copy (ema_..., {', '.join(AVERAGED[:2])}) of its weights.")
    plain = {name: tensor for name, tensor in state.items() if name not in copies}
    if use:
        plain |= {name: state[copy] for copy, name in copies.items()}
    return plain, {copy: state[copy] for copy in copies}


def encoder_part(state: State) -> tuple[State, State, str]:
    """The encoder and the classifier of a checkpoint without prefixes, everything else, and the prefixes.

    Prefixes come off until nothing changes, in whatever order they were put on, unless the names are a known library's.
    """
    rest: State = {}
    prefixes = ""
    while recognise(state) is None and (prefix := _prefix(state)):
        outside = {name: tensor for name, tensor in state.items() if not name.startswith((prefix, "head."))}
        rest |= outside
        prefixes += prefix
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name not in outside}
    keymap = recognise(state)
    of_maps = keymap is not None and keymap.family in ("swin", "convnext") and "norm3.weight" in state
    not_encoder = re.compile(f"{_NOT_ENCODER.pattern}|{_NORMS_OF_MAPS}") if of_maps else _NOT_ENCODER
    inside = {name: tensor for name, tensor in state.items() if not_encoder.fullmatch(name)}
    kept = {name: t for name, t in state.items() if name not in inside and not _RECOMPUTED.fullmatch(name)}
    return kept, rest | inside, prefixes


def _prefix(state: State) -> str | None:
    """The outermost prefix that marks the network, None if there is none."""
    for prefix in _PREFIXES:
        if any(name.startswith(prefix) for name in state):
            return prefix
    for prefix in _SHARED_PREFIXES:
        outside = [name for name in state if not name.startswith(prefix)]
        if len(outside) < len(state) and all(_BESIDE.fullmatch(name) for name in outside):
            return prefix
    return None
