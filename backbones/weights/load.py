"""Weights into networks and out of them: everything fits, or nothing is loaded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from backbones.encoder import Backbone
from backbones.errors import WeightsError

from .faults import find_faults, is_plain
from .files import WeightsFile, open_weights, write_weights
from .keymaps import State, find_keymap, to_detectron2, to_openmixup, to_torchvision
from .resize import TABLE, resize_tensor

_CLASSIFIERS = ("head.", "fc.", "classifier.", "head_dist.")
_EXPORTS = {"torchvision": to_torchvision, "detectron2": to_detectron2, "openmixup": to_openmixup}


@dataclass(frozen=True)
class LoadReport:
    """What load_weights did."""

    source: str
    convention: str
    """Whose names the file used."""
    num_loaded: int
    missing: tuple[str, ...] = ()
    """Tensors of the network that keep their fresh values: the new head that was allowed to."""
    dropped: tuple[str, ...] = ()
    """Tensors of the file that have no place in the network: an old head, decoder, mask token, averaged copies."""
    changed: tuple[str, ...] = ()
    """What was renamed or resized on the way, one sentence each."""
    description: dict[str, Any] = field(default_factory=dict)
    """How the weights were made, if the file says so."""

    def __str__(self) -> str:
        parts = [f"{self.num_loaded} tensors from {self.source} ({self.convention} names)"]
        parts += [f"{len(self.missing)} new: {_first(self.missing)}"] if self.missing else []
        parts += [f"{len(self.dropped)} left out: {_first(self.dropped)}"] if self.dropped else []
        return "; ".join([*parts, *self.changed])


def load_weights(
    net: nn.Module, source: str | Path, *, allow_missing: Sequence[str] = (), ema: bool = False
) -> LoadReport:
    """Load a run folder's encoder or a file of weights into `net` (a Backbone or a timm model).

    `allow_missing` are the prefixes of the new head, which may be absent from the file or of another shape there
    (another number of classes); `source` and `ema` are open_weights'.

    What differs for a known reason is adapted, and the report says so: position embeddings of another image size are
    resized (bicubic), relative position bias tables of another window size too (near offsets keep their place, as BEiT
    and SimMIM do it, by linear interpolation); the final norm is renamed between `norm` and `fc_norm` (a ViT that pools
    before its norm has the latter, published files use one name for both); one bias table shared by all blocks (the
    official SimMIM) fills the tables of all blocks.

    Raises WeightsError, with counts and names, if a tensor is missing, has no place in `net` (except an old classifier,
    a decoder or a mask token), has another shape, or holds what no network can have there: infinite values or NaN,
    variances below zero, integers, booleans, complex or eight-bit numbers for floating-point ones. Then `net` is
    unchanged. Raises WeightsFileError for a bad file.
    """
    return load_file(net, open_weights(source, ema=ema), source, allow_missing=allow_missing)


def load_file(
    net: nn.Module, file: WeightsFile, source: str | Path, *, allow_missing: Sequence[str] = ()
) -> LoadReport:
    """Load what open_weights has read from `source`; otherwise as load_weights."""
    target: nn.Module = net.net if isinstance(net, Backbone) else net
    removed = net.removed if isinstance(net, Backbone) else frozenset()
    own = target.state_dict()
    state, changed = _find_prefix(file.state, own, source)
    state, adapted = _fit(state, target, own)

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
    _raise_mismatches(file, target, {kind: names for kind, names in kinds.items() if names}, source)
    target.load_state_dict(fitting, strict=False)
    new = [name for name in [*missing, *other_heads] if not name.endswith(".num_batches_tracked")]
    return LoadReport(
        source=str(source),
        convention=file.convention,
        num_loaded=len(fitting),
        missing=tuple(sorted(new)),
        dropped=tuple(sorted([*file.dropped, *old_head, *other_heads])),
        changed=(*file.remarks, *changed, *adapted),
        description=file.description,
    )


def read_weights(source: str | Path, *, ema: bool = False) -> tuple[State, dict[str, Any]]:
    """The tensors of a run folder or a file under timm's names, and its description ({} for other people's files).

    Arguments and errors as for open_weights.
    """
    file = open_weights(source, ema=ema)
    return file.state, file.description


def save_backbone(path: str | Path, net: nn.Module, description: Mapping[str, Any]) -> None:
    """Write the encoder `net` (a Backbone or a timm model) under timm's names to a safetensors file, atomically.

    `description` (method, epochs, mean, std, versions, ...: anything JSON) is the header's one key, `backbone`; a
    Backbone adds its name and image size. The same content gives the same bytes in every process.
    """
    if isinstance(net, Backbone):
        description = {"name": net.name, "image_size": net.image_size, **description}
        net = net.net
    write_weights(path, net.state_dict(), description)


def export_weights(source: str | Path, path: str | Path, convention: str) -> list[str]:
    """Write the weights of a run folder or file for another library and return the names written.

    `convention` is timm, torchvision, detectron2 or openmixup (MMSegmentation and MMPretrain read it with
    `prefix="backbone."`). A `path` ending in .safetensors holds the tensors alone; a .pth holds them as that library
    reads them: under `state_dict` for openmixup, under `model` for Detectron2, bare otherwise.

    Raises WeightsError if that library has no such network, WeightsFileError for a bad file.
    """
    state, description = read_weights(source)
    if convention != "timm":
        if convention not in _EXPORTS:
            find_keymap(convention, None)  # raises, listing the conventions
        state = _EXPORTS[convention](state)
    path = Path(path)
    if path.suffix == ".safetensors":
        write_weights(path, state, description)
    else:
        # Detectron2 otherwise expects its own training metadata beside the weights.
        detectron2 = {"model": state, "__author__": "mim-benchmark", "matching_heuristics": True}
        torch.save({"detectron2": detectron2, "openmixup": {"state_dict": state}}.get(convention, state), path)
    return list(state)


def _fit(state: State, target: nn.Module, own: Mapping[str, Tensor]) -> tuple[State, list[str]]:
    """Rename and resize what differs between files and networks for known reasons, and say what was done."""
    changed: list[str] = []
    state = _move_final_norm(state, own, changed)
    state = _spread_shared_table(state, own, changed)
    fitted: State = {}
    resized: list[str] = []
    for name, tensor in state.items():
        wanted = own[name].shape if name in own else tensor.shape
        if tensor.shape != wanted and is_plain(tensor):
            tensor = resize_tensor(name, tensor, wanted, target)
            if tensor.shape == wanted and name.endswith(("pos_embed", TABLE)):
                resized.append(f"{name} from {list(state[name].shape)} to {list(wanted)}")
        fitted[name] = tensor
    if resized:
        changed.append(f"resized for another image or window size: {_first(resized)}")
    return fitted, changed


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


def _raise_mismatches(file: WeightsFile, target: nn.Module, problems: dict[str, list[str]], source: str | Path) -> None:
    """Raise WeightsError if there are problems, with what the file says about itself."""
    if not problems:
        return
    name = file.description.get("name")
    made = f", which describes itself as {name}" if name else ""
    listed = "; ".join(f"{len(names)} {kind}: {_first(names)}" for kind, names in problems.items())
    advice = f" Take --model {name} for them, or weights of this network." if name else ""
    raise WeightsError(
        f"{source} ({file.convention} names{made}) does not fit {type(target).__name__}: {listed}. Nothing was "
        f"loaded.{advice}"
    )


def _first(names: Sequence[str]) -> str:
    """The first five of `names`, and how many more there are."""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more
