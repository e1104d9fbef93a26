"""Files of weights: opened without running anything in them, written so that they are whole or absent.

Kinds of files are containers.py's business, prefixes of other libraries' checkpoints wrappers.py's, the names inside
keymaps.py's.
"""

import hashlib
import json
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import save as to_safetensors
from torch import Tensor

from backbones.errors import WeightsFileError

from .containers import HEADER_KEY, read_container
from .keymaps import State, recognise
from .origins import origin_of
from .released import PREFIX, fetch_weights, find_released
from .wrappers import AVERAGED, encoder_part, find_tensors, split_averaged

OUR_FILE = "backbone.safetensors"
"""Name of the encoder in a run folder."""
BESIDE = "beside."
"""Before the names of what an imported file holds beside encoder and classifier."""
TIMM_FILE = "model.safetensors"
"""Name of the weights in a folder that timm or the Hugging Face hub keeps."""
_HASH_IN_NAME = re.compile(r"[.-]sha256-([0-9a-f]{8,64})$")
_DIGITS_IN_NAME = re.compile(r"-([0-9a-f]{8,64})$")


@dataclass(frozen=True)
class WeightsFile:
    """What a file of weights holds, under timm's names."""

    state: State
    convention: str
    """Whose names it used: timm, torchvision, openmixup, facebook, microsoft, detectron2 and others of KEYMAPS."""
    origin: str = "timm"
    """Whose file it is by its names, as far as they tell (ORIGINS)."""
    containers: tuple[str, ...] = ()
    """Keys under which its tensors lie, outermost first; last what stood before the encoder's names."""
    unused: tuple[str, ...] = ()
    """Keys of other tensors in it, such as an optimizer's."""
    renamed: dict[str, str] = field(default_factory=dict)
    """Names in `state` -> in the file, behind its wrappers, where they differ."""
    description: dict[str, Any] = field(default_factory=dict)
    """What save_backbone was told; empty for other people's files."""
    rest: State = field(default_factory=dict)
    """What belongs to no encoder or classifier, under the file's own names: decoders, mask tokens, necks, averaged
    copies."""
    remarks: tuple[str, ...] = ()
    """What looks odd about the file and does not prevent its use, one sentence each."""

    @property
    def dropped(self) -> tuple[str, ...]:
        """The names of `rest`."""
        return tuple(sorted(self.rest))


def open_weights(source: str | Path, *, ema: bool = False) -> WeightsFile:
    """Read a run folder (its backbone.safetensors), a folder of timm's (model.safetensors), a safetensors, torch or
    ONNX file, or a published file by its name (`released:a2mim-r50-300e`), which is downloaded unless it is here.

    Understood besides our own and timm's: torchvision, OpenMixup and its relatives (A2MIM and SimMIM checkpoints whole
    or extracted, MMSelfSup, MMPretrain, MMSegmentation), the official SimMIM, MAE, SparK, ConvNeXt (FCMAE's too),
    MaskFeat, I-JEPA and DINO files, Detectron2's ResNet. `ema` takes the averaged copy that training scripts keep:
    OpenMixup's beside each weight (`ema_` and its name with underscores), or under model_ema and the like.

    What kind of file it is, its bytes say, not its name. Nothing in the file is run. Raises WeightsFileError if it is
    missing, empty, damaged, holds no weights, would have to run code, or does not have the sha256 that its run's
    finished.json or its own name gives it (`name.sha256-0676ba61.pth`).
    """
    entry = find_released(str(source)) if str(source).startswith(PREFIX) else None
    path = _find_file(Path(source)) if entry is None else fetch_weights(entry)
    remarks = _check_hashes(path) + ((entry.note,) if entry is not None and entry.note else ())
    raw, description = read_container(path)
    found = find_tensors(raw, path, ema=ema)
    use = ema and not any(name in AVERAGED for name in found.containers)
    beside = {name.removeprefix(BESIDE): tensor for name, tensor in found.state.items() if name.startswith(BESIDE)}
    alone = {name: tensor for name, tensor in found.state.items() if not name.startswith(BESIDE)}
    state, averaged = split_averaged(alone, use=use, path=path)
    state, rest, prefixes = encoder_part(state)
    keymap = recognise(state)
    renamed = {new: name for name in state if (new := keymap.new_name(name)) != name} if keymap else {}
    state = keymap.to_timm(state) if keymap else state
    if keymap and description.get("final_norm") == "fc_norm":  # exported from here, under a name that leaves it open
        state = {f"fc_{name}" if name.startswith("norm.") else name: tensor for name, tensor in state.items()}
    untrained = description.get("untrained", ())  # by an export, where a whole network was asked for
    convention = keymap.convention if keymap else "timm"
    if convention == "slowfast":
        remarks += ("its final norm is that before its prediction, as the encoder itself has none",)
    return WeightsFile(
        state={name: tensor for name, tensor in state.items() if name not in untrained},
        convention=convention,
        origin=origin_of(
            found.state,
            found.containers,
            convention,
            ours=bool(description.keys() & {"suite_version", "imported_from"}),
        ),
        containers=(*found.containers, *([prefixes] if prefixes else [])),
        unused=found.others,
        renamed=renamed,
        description=description if entry is None else {**description, **entry.description},
        rest={**averaged, **beside, **rest},
        remarks=remarks,
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


def _find_file(source: Path) -> Path:
    """The file itself: of a run folder, its encoder. Raises WeightsFileError if there is none that can be read."""
    path = source / OUR_FILE if source.is_dir() else source
    if source.is_dir() and not path.exists() and (source / TIMM_FILE).is_file():
        path = source / TIMM_FILE
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        if path == source:
            raise WeightsFileError(
                f"{source} does not exist: give a file of weights, or the folder of a finished run."
            ) from None
        raise WeightsFileError(f"{source} holds no {OUR_FILE}: {_why_not_there(source)}.") from None
    except OSError as error:
        raise WeightsFileError(f"{path} cannot be read: {error.strerror}.") from error
    if not stat.S_ISREG(mode):
        raise WeightsFileError(f"{path} is no regular file: give a file of weights, or the folder of a finished run.")
    return path


def _why_not_there(folder: Path) -> str:
    if not (folder / "config.json").exists():
        return "it is no run folder (it has no config.json)"
    if (folder / "finished.json").exists():
        return "its run finished without one: give the folder of a pre-training or a classification"
    return "its run has not finished (it has no finished.json)"


def _check_hashes(path: Path) -> tuple[str, ...]:
    """Compare the file with the sha256 in its run's finished.json and in its own name, where they stand.

    Other digits at the end of a name (`resnet50-0676ba61.pth`) are as often a commit as the hash they are for
    torchvision: if they differ from the file's, that is returned as a remark.
    """
    in_run, in_name = _recorded_hash(path), _HASH_IN_NAME.search(path.stem)
    digits = _DIGITS_IN_NAME.search(path.stem)
    if not (in_run or in_name or digits):
        return ()
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsFileError(f"{path} cannot be read: {error.strerror}.") from error
    for recorded, where in ((in_run, f"in {path.parent / 'finished.json'}"), (in_name and in_name[1], "in its name")):
        if recorded and not digest.startswith(recorded):
            raise WeightsFileError(
                f"{path} is not the file that was written: it has the sha256 {digest[:8]}..., not the {recorded[:8]} "
                f"{where}. Take an unchanged copy, or write it again."
            )
    if digits and not digits[1].isdecimal() and not digest.startswith(digits[1]):  # decimal digits are a date
        return (f"if the {digits[1]} in its name is meant as a sha256, it is another file's (this one: {digest[:8]})",)
    return ()


def _recorded_hash(path: Path) -> str | None:
    """The sha256 of a run's encoder that the run wrote down when it finished; None where it wrote none."""
    record = path.parent / "finished.json"
    if not record.exists():
        return None
    try:
        summary = json.loads(record.read_bytes())
        files = summary.get("files", {})
        recorded = files.get(path.name)
    except (OSError, ValueError, RecursionError, AttributeError) as error:
        raise WeightsFileError(
            f"{record} cannot be read ({type(error).__name__}), so {path} cannot be compared with it: restore it, or "
            "copy the weights elsewhere to use them unchecked."
        ) from error
    if recorded is None:
        return None
    if not re.fullmatch("[0-9a-f]{64}", str(recorded)):
        raise WeightsFileError(f"{record} holds {str(recorded)[:70]!r} where the sha256 of {path.name} belongs.")
    return str(recorded)
