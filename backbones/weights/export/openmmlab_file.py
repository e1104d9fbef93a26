"""A network for MMSegmentation, MMDetection, MMPretrain or OpenMixup: a checkpoint as they write them."""

from pathlib import Path
from typing import Any

from backbones.weights.containers import HEADER_KEY
from backbones.weights.keymaps import State, find_family, find_keymap, to_openmixup

from .counterparts import KNOWN, Counterpart, openmmlab, refused, swin_remarks
from .trained import Trained
from .written import Written, torch_bytes, write_hashed

LIBRARIES = ("mmseg", "mmdet", "mmpretrain", "openmixup")
_SHIFTING = {"mmseg": "MMSegmentation", "mmdet": "MMDetection"}
_IMPORT = 'custom_imports = dict(imports=["mmpretrain.models"], allow_failed_imports=False)'


def write(trained: Trained, out: Path, stem: str, library: str) -> Written:
    """Write a checkpoint for one of LIBRARIES. Only MMPretrain and OpenMixup take the classifier.

    Raises:
        WeightsError: that library has no such network.
        WeightsFileError: it cannot be written.
    """
    whole = bool(trained.num_classes) and library in ("mmpretrain", "openmixup")
    remarks = ["the classifier is left out"] if trained.num_classes and not whole else []
    if library in _SHIFTING and find_family(trained.state) == "swin":
        remarks += swin_remarks(trained.net, _SHIFTING[library])
    if library == "openmixup":
        if find_family(trained.state) is None:
            raise refused(trained.model, f"OpenMixup's names are known for {KNOWN}")
        path = _save(trained, to_openmixup(trained.state), out, stem)
        return Written(path, tuple(as_config("init_cfg", _pretrained(path))), tuple(remarks))
    found = openmmlab(trained.model, trained.net, library, whole=whole)
    path = _save(trained, _state(trained, found, whole=whole), out, stem)
    return Written(path, configuration(trained, path, library, found), tuple(remarks))


def configuration(trained: Trained, path: Path, library: str, found: Counterpart) -> tuple[str, ...]:
    """The lines, below a `_base_`, of a configuration of `library` that starts `found` from the file at `path`."""
    whole = bool(trained.num_classes) and library == "mmpretrain"
    backbone = {"_delete_": True, "type": found.kind, **found.options}  # nothing stays of the base's backbone
    if not whole:
        backbone["init_cfg"] = _pretrained(path, prefixed=found.convention == "openmixup")
    if library != "mmpretrain":
        first = (_IMPORT,) if found.kind.startswith("mmpretrain.") else ()
        images = _preprocessor(trained, "bgr_to_rgb")
        return (*first, *as_config("model", {"backbone": backbone, "data_preprocessor": images}))
    model = {"type": "ImageClassifier", "backbone": backbone, **_head(trained)} if whole else {"backbone": backbone}
    images = _preprocessor(trained, "to_rgb")
    lines = (*as_config("model", model), *as_config("data_preprocessor", images))
    return (*lines, f'load_from = "{path}"') if whole else lines


def as_config(name: str, value: Any, depth: int = 0) -> list[str]:
    """The lines of `name = value` as OpenMMLab's configurations have it, `model = dict(type="ResNet", depth=50)`,
    broken where they would be longer than 120 characters; `depth` is that of the nesting, without spaces."""
    start = f"{4 * depth * ' '}{name}{'=' if depth else ' = '}"
    line = f"{start}{_in_one_line(value)}"
    if len(line) < 120 or not isinstance(value, dict):
        return [line]
    items = [as_config(key, item, depth + 1) for key, item in value.items()]
    comma = "," if len(items) > 1 else ""
    inner = [line for item in items for line in (*item[:-1], f"{item[-1]}{comma}")]
    return [f"{start}dict(", *inner, f"{4 * depth * ' '})"]


def _in_one_line(value: Any) -> str:
    if isinstance(value, dict):
        return f"dict({', '.join(f'{key}={_in_one_line(item)}' for key, item in value.items())})"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_in_one_line, value))}]"
    return f'"{value}"' if isinstance(value, (str, Path)) else repr(value)


def _save(trained: Trained, state: State, out: Path, stem: str) -> Path:
    header = dict(trained.header)
    if "fc_norm.weight" in trained.state:  # their names do not tell a norm before pooling from one after it
        header["final_norm"] = "fc_norm"
    named = {"dataset_meta": {"classes": list(trained.classes)}} if trained.classes else {}
    tensors = {name: tensor.contiguous() for name, tensor in state.items()}
    content = {"meta": {HEADER_KEY: header, **named}, "state_dict": tensors}
    return write_hashed(out, stem, ".pth", torch_bytes(content))


def _state(trained: Trained, found: Counterpart, *, whole: bool) -> State:
    if found.convention == "openmixup":
        state = to_openmixup(trained.state)
    else:
        state = find_keymap(found.convention, find_family(trained.state)).from_timm(trained.state)
    if not whole:
        return {name: tensor for name, tensor in state.items() if not name.startswith("head.")}
    if found.options.get("out_type") == "avg_featmap":  # MMPretrain calls the norm after pooling otherwise
        return {name.replace("backbone.ln1.", "backbone.ln2."): tensor for name, tensor in state.items()}
    return state


def _pretrained(path: Path, *, prefixed: bool = True) -> dict[str, Any]:
    prefix = {"prefix": "backbone."} if prefixed else {}
    return {"type": "Pretrained", "checkpoint": path, **prefix}


def _head(trained: Trained) -> dict[str, Any]:
    family = find_family(trained.state)
    pooled = {"neck": {"type": "GlobalAveragePooling"}} if family in ("resnet", "swin") else {}
    width = int(trained.net.num_features)  # type: ignore[arg-type]
    return {**pooled, "head": {"type": "LinearClsHead", "num_classes": trained.num_classes, "in_channels": width}}


def _preprocessor(trained: Trained, to_rgb: str) -> dict[str, Any]:
    """Their images are BGR, 0 to 255."""
    colours = {to_rgb: True} if trained.in_channels == 3 else {}
    return {name: [round(255 * value, 3) for value in getattr(trained, name)] for name in ("mean", "std")} | colours
