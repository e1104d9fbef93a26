"""The encoder inside a checkpoint: containers, wrappers and prefixes of training scripts come off, layer by layer."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from backbones.errors import WeightsFileError

from .keymaps import State, recognise

_CONTAINERS = ("state_dict", "model", "module", "model_state_dict", "backbone", "teacher")
_PREFIXES = (
    *("module.", "_orig_mod."),  # of DistributedDataParallel, AveragedModel, torch.compile
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
_NOT_ENCODER = re.compile(r"(mask_tokens?|mask_gamma|decoder.*)|.*momentum.*")


def find_tensors(raw: Any, path: Path) -> State:
    """The state dictionary inside the containers that training scripts put around it.

    Raises WeightsFileError if there is none.
    """
    for _ in range(_MAX_CONTAINERS):
        if not isinstance(raw, Mapping):
            break
        tensors = {str(name): value for name, value in raw.items() if isinstance(value, Tensor)}
        inner = next((raw[key] for key in _CONTAINERS if isinstance(raw.get(key), Mapping)), None)
        if inner is None and tensors:
            return tensors
        raw = inner
    raise WeightsFileError(f"{path} holds no tensors; looked at the top and under {', '.join(_CONTAINERS)}.")


def split_averaged(state: State, *, use: bool, path: Path) -> tuple[State, State]:
    """Take out OpenMixup's averaged copies; with `use` they replace the weights."""
    averaged = {f"ema_{name.replace('.', '_')}": name for name in state}
    copies = {copy: name for copy, name in averaged.items() if copy in state}
    if use and not copies:
        raise WeightsFileError(f"{path} holds no averaged copy (ema_...) of its weights.")
    plain = {name: tensor for name, tensor in state.items() if name not in copies}
    if use:
        plain |= {name: state[copy] for copy, name in copies.items()}
    return plain, {copy: state[copy] for copy in copies}


def encoder_part(state: State) -> tuple[State, State]:
    """The encoder and the classifier of a checkpoint, without prefixes, and everything else.

    Prefixes come off until nothing changes, in whatever order they were put on, unless the names are a known library's.
    """
    rest: State = {}
    while recognise(state) is None and (prefix := _prefix(state)):
        outside = {name: tensor for name, tensor in state.items() if not name.startswith((prefix, "head."))}
        rest |= outside
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name not in outside}
    inside = {name: tensor for name, tensor in state.items() if _NOT_ENCODER.fullmatch(name)}
    kept = {name: t for name, t in state.items() if name not in inside and not _RECOMPUTED.fullmatch(name)}
    return kept, rest | inside


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
