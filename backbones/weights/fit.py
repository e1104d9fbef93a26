"""What of a file's tensors fits a network: by name, or adapted where they differ for a known reason. Loads nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from backbones.encoder import Backbone
from backbones.errors import WeightsError

from .faults import find_faults, is_plain
from .files import WeightsFile
from .keymaps import State
from .resize import TABLE, other_channels, resize_tensor

_CLASSIFIERS = ("head.", "fc.", "classifier.", "head_dist.")


@dataclass(frozen=True)
class Fit:
    """How a file and a network fit."""

    target: nn.Module
    """The network itself, without the Backbone around it."""
    fitting: State
    """What can be loaded into it."""
    new: tuple[str, ...]
    """Tensors of the network that keep their fresh values, as they were allowed to: the new head."""
    left_out: tuple[str, ...]
    """Tensors of the file that have no place in it, as an old head may."""
    problems: dict[str, list[str]]
    """{kind: names} of what keeps the file from being loaded."""
    changed: tuple[str, ...]
    """What was adapted, one sentence each."""
    resized: tuple[str, ...]
    """Tables that have another size than in the file."""


def fit_file(net: nn.Module, file: WeightsFile, source: str | Path, *, allow_missing: Sequence[str] = ()) -> Fit:
    """Compare what open_weights has read from `source` with `net`, a Backbone or a timm model.

    `allow_missing` are the prefixes of the new head. Raises WeightsError where the file holds several such networks.
    """
    target: nn.Module = net.net if isinstance(net, Backbone) else net
    removed = net.removed if isinstance(net, Backbone) else frozenset()
    own = target.state_dict()
    state, changed = _find_prefix(file.state, own, source)
    state, adapted, resized = _adapt(state, target, own)
    state = _begin_final_norm(file, state, own, adapted)

    head = tuple(allow_missing)
    optional = {name for name in own if name.startswith(head) or name.endswith(".num_batches_tracked")}
    missing = sorted(own.keys() - state.keys())
    shapes = sorted(name for name in own.keys() & state.keys() if own[name].shape != state[name].shape)
    other_heads = [name for name in shapes if name in optional]
    extra = sorted(state.keys() - own.keys())
    old_head = [name for name in extra if name.startswith(_CLASSIFIERS) or name in removed]
    fitting = {name: tensor for name, tensor in state.items() if name in own and name not in other_heads}
    kinds = {
        "missing": [name for name in missing if name not in optional],
        "unexpected": [name for name in extra if name not in old_head],
        "of another shape": [
            f"{name} {list(state[name].shape)} for {list(own[name].shape)}" for name in shapes if name not in optional
        ],
        **find_faults(fitting, own),
    }
    new = [name for name in [*missing, *other_heads] if name in optional]
    return Fit(
        target=target,
        fitting=fitting,
        new=tuple(sorted(name for name in new if not name.endswith(".num_batches_tracked"))),
        left_out=tuple(sorted([*old_head, *other_heads])),
        problems={kind: names for kind, names in kinds.items() if names},
        changed=(*changed, *adapted),
        resized=tuple(resized),
    )


def _adapt(state: State, target: nn.Module, own: Mapping[str, Tensor]) -> tuple[State, list[str], list[str]]:
    """Rename and resize what differs between files and networks for known reasons; what was done, and the tables that
    were resized."""
    changed: list[str] = []
    state = _move_final_norm(state, own, changed)
    state = _spread_shared_table(state, own, changed)
    state = _fold_biases(state, own, changed)
    state = _rename_layer_scales(state, own)
    fitted: State = {}
    resized: list[str] = []
    for name, tensor in state.items():
        wanted = own[name].shape if name in own else tensor.shape
        if tensor.shape != wanted and is_plain(tensor):
            tensor = resize_tensor(name, tensor, wanted, target)
            if tensor.shape == wanted and name.endswith(("pos_embed", TABLE)):
                resized.append(f"{name} from {list(state[name].shape)} to {list(wanted)}")
        fitted[name] = tensor
    changed += [
        f"{name} is for {own[name].shape[1]} channels made from its three: summed for one, else repeated and scaled"
        for name, tensor in state.items()
        if name in own and is_plain(tensor) and other_channels(tensor.shape, own[name].shape)
    ]
    if resized:
        changed.append(f"resized for another image or window size: {first_few(resized)}")
    return fitted, changed, resized


def _begin_final_norm(file: WeightsFile, state: State, own: Mapping[str, Tensor], changed: list[str]) -> State:
    """Begin the final norm at 1 and 0 for a pre-trained ConvNeXt of its authors' or SparK's, which have none."""
    norm = "head.norm"
    if (
        "facebook" not in file.convention
        or f"{norm}.weight" not in own
        or any(name.startswith("head") for name in state)
    ):
        return state
    changed.append("the file has no final norm: it begins at 1 and 0")
    shape = own[f"{norm}.weight"].shape
    return {**state, f"{norm}.weight": torch.ones(shape), f"{norm}.bias": torch.zeros(shape)}


def _move_final_norm(state: State, own: Mapping[str, Tensor], changed: list[str]) -> State:
    """Rename the final norm to the place where the network has it: before pooling (norm) or after (fc_norm)."""
    for found, wanted in (("norm", "fc_norm"), ("fc_norm", "norm")):
        has_place = f"{wanted}.weight" in own and f"{found}.weight" not in own
        if has_place and f"{found}.weight" in state and f"{wanted}.weight" not in state:
            changed.append(f"the file's {found} is the network's {wanted}")
            renamed = {f"{found}.{part}": f"{wanted}.{part}" for part in ("weight", "bias")}
            return {renamed.get(name, name): tensor for name, tensor in state.items()}
    return state


def _spread_shared_table(state: State, own: Mapping[str, Tensor], changed: list[str]) -> State:
    """Copy a relative position bias table that all blocks share to each block of a network that has one per block."""
    shared = f"rel_pos_bias.{TABLE}"
    tables = [name for name in own if name.startswith("blocks.") and name.endswith(TABLE)]
    if shared in own or shared not in state or not tables:
        return state
    changed.append(f"the file's shared bias table fills those of {len(tables)} blocks")
    return {name: tensor for name, tensor in state.items() if name != shared} | dict.fromkeys(tables, state[shared])


def _find_prefix(state: State, own: Mapping[str, Tensor], source: str | Path) -> tuple[State, list[str]]:
    """The part of `state` below a prefix unknown here, where no name is the network's as it stands, and what was done.

    Raises WeightsError where several parts are such a network.
    """
    if own.keys() & state.keys():
        return state, []
    found: dict[str, int] = {}
    for name in state:
        parts = name.split(".")
        prefix = next((".".join(parts[:i]) + "." for i in range(1, len(parts)) if ".".join(parts[i:]) in own), None)
        if prefix is not None:
            found[prefix] = found.get(prefix, 0) + 1
    whole = [prefix for prefix, count in found.items() if count == max(found.values())]
    if len(whole) > 1:
        raise WeightsError(
            f"{source} holds several such networks, below {', '.join(map(repr, whole))}. Nothing was loaded. Save the "
            "one that is meant to a file of its own."
        )
    if not whole:
        return state, []
    (prefix,) = whole
    return (
        {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)},
        [f"only what is below {prefix!r} in the file"],
    )


def _fold_biases(state: State, own: Mapping[str, Tensor], changed: list[str]) -> State:
    """Give each block the biases of queries, keys and values as its network has them: one tensor, or those of queries
    and values alone (BEiT, and the ViTs of A2MIM and SimMIM).

    One way the keys' are zero. The other way they are left out: a bias of the keys adds the same to all logits of a
    query, so that no output depends on it.
    """
    folded, apart = dict(state), 0
    for name in own:
        block, _, last = name.rpartition(".")
        parts = [f"{block}.q_bias", f"{block}.v_bias"]
        if last == "bias" and block.endswith(".qkv") and name not in state:
            attention = block.removesuffix("qkv")
            query, value = (state.get(f"{attention}{part}_bias") for part in "qv")
            if query is not None and value is not None and query.shape == value.shape:
                folded[name] = torch.cat([query, torch.zeros_like(query), value])
                del folded[f"{attention}q_bias"], folded[f"{attention}v_bias"]
        elif last == "q_bias" and name not in state and f"{block}.qkv.bias" in state and parts[1] in own:
            query, _, value = folded.pop(f"{block}.qkv.bias").chunk(3)
            folded |= dict(zip(parts, (query, value), strict=True))
            apart += 1
    if apart:
        changed.append(f"the biases of keys, on which no output depends, are left out of {apart} blocks")
    elif folded.keys() != state.keys():
        changed.append("biases of queries and values are folded into those of queries, keys and values")
    return folded


def _rename_layer_scales(state: State, own: Mapping[str, Tensor]) -> State:
    """Rename the scales of a block's branches between BEiT's names (gamma_1) and those of timm's ViTs (ls1.gamma)."""
    renamed = {}
    for name, tensor in state.items():
        for one, other in (("gamma_1", "ls1.gamma"), ("gamma_2", "ls2.gamma")):
            for found, wanted in ((one, other), (other, one)):
                moved = name.removesuffix(found) + wanted
                if name.endswith(f".{found}") and name not in own and moved in own:
                    name = moved
        renamed[name] = tensor
    return renamed


def first_few(names: Sequence[str]) -> str:
    """The first five of `names`, and how many more there are."""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more
