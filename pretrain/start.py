"""Where a pre-training begins: at random weights, at an encoder from elsewhere, or at all of another pre-training."""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from backbones import LoadReport, WeightsError
from backbones.weights.faults import find_faults
from backbones.weights.files import WeightsFile, open_weights
from backbones.weights.load import load_file
from engine import config as configurations
from engine.errors import CheckpointError, ConfigError
from engine.run import checkpoint, storage
from pretrain.config import PretrainConfig
from pretrain.methods import find_method, method_order

log = logging.getLogger("mim")
Tensors = dict[str, Tensor]

_OF_A_DECODER = ("decoder_embed.", "proj.")
"""Beside these, `mask_token` is what MAE and FCMAE give their decoders, and none of an encoder."""


_OTHERS = {
    "decoder": re.compile(r"(dense_)?decoder|neck\.|pred|proj|densify"),
    "token": re.compile(r"mask_token"),
}
"""How other methods' files name what they have in place of a part."""
_NOTHING = re.compile(r"(?!)")


@dataclass(frozen=True)
class StartReport(LoadReport):
    """What a pre-training went on from."""

    kept: tuple[str, ...] = ()
    """Parts beside the encoder that went on too: decoder, token."""
    fresh: tuple[str, ...] = ()
    """Parts that begin anew, each with the reason."""
    whole: bool = False
    """Whether the source holds anything beside an encoder and a classifier."""

    def __str__(self) -> str:
        alone = "the encoder alone of a whole pre-training" if self.whole else "an encoder alone"
        kept = f"a whole pre-training: {' and '.join(self.kept)} kept" if self.kept else alone
        fresh = f"; begun anew: {'; '.join(self.fresh)}" if self.fresh else ""
        return f"{kept}{fresh}; {super().__str__()}"


def load(model: Any, config: PretrainConfig, source: str) -> StartReport:
    """Load what `config.init` names into a freshly built PretrainModel: the encoder, and decoder and token where the
    source has them and they fit. The model is unchanged if anything is refused.

    Raises:
        WeightsError: the encoder's weights do not fit, or hold values that none has.
        WeightsFileError: the file is missing or damaged.
    """
    file = open_weights(source)
    rest, other = _whole(source, file)
    elsewhere = find_method(config.method).elsewhere
    fitting, fresh = fit_rest(rest, beside_encoder(model), elsewhere)
    if "token" in {name.partition(".")[0] for name in fitting} and (why := _other_token(other, config)):
        fitting = {name: tensor for name, tensor in fitting.items() if not name.startswith("token.")}
        fresh.append(f"token ({why})")
    report = load_file(model.encoder, file, source)
    model.load_state_dict(fitting, strict=False)
    used = {name for own in fitting for name in (own, *elsewhere.get(own, ()))}
    fields: dict[str, Any] = {field: getattr(report, field) for field in LoadReport.__dataclass_fields__}
    fields["dropped"] = tuple(name for name in report.dropped if name not in used)
    return StartReport(**fields, kept=_parts(fitting), fresh=tuple(fresh), whole=bool(rest))


def beside_encoder(model: nn.Module) -> Tensors:
    """The tensors of a PretrainModel that are not its encoder's."""
    return {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("encoder.")}


def fit_rest(
    rest: Mapping[str, Tensor], own: Mapping[str, Tensor], elsewhere: Mapping[str, Sequence[str]]
) -> tuple[Tensors, list[str]]:
    """Those of the tensors `rest` beside an encoder that are, part by part, the model's `own`, under its names and in
    its shapes; and each part that they do not fill, with the reason.

    A part (decoder, token) fits as a whole or not at all: a gate without its token, or one layer of a decoder, would be
    trained against random numbers.

    Raises:
        WeightsError: a part fits but holds values that no network has.
    """
    if any(name.startswith(_OF_A_DECODER) for name in rest):
        rest = {name: tensor for name, tensor in rest.items() if name != "mask_token"}
    found: Tensors = {}
    for name in (*own, *(name for name in elsewhere if name not in own)):
        there = next((alias for alias in (name, *elsewhere.get(name, ())) if alias in rest), None)
        if there is not None:
            found[name] = rest[there]
    fitting: Tensors = {}
    fresh: list[str] = []
    for part in _parts(own):
        mine = {name: tensor for name, tensor in own.items() if name.partition(".")[0] == part}
        theirs = {name: tensor for name, tensor in found.items() if name.partition(".")[0] == part}
        reason = _why_not(theirs, mine) if theirs else _not_there(part, rest)
        if reason:
            fresh.append(f"{part} ({reason})")
        else:
            fitting |= {name: tensor.reshape(mine[name].shape) for name, tensor in theirs.items()}
    faults = {kind: names for kind, names in find_faults(fitting, own).items() if names}
    if faults:
        listed = "; ".join(f"{kind}: {', '.join(names[:5])}" for kind, names in faults.items())
        raise WeightsError(f"what the weights hold beside the encoder no network has ({listed}). Nothing was loaded.")
    return fitting, fresh


def _not_there(part: str, rest: Mapping[str, Tensor]) -> str:
    """Why none of the tensors beside an encoder are those of a part: there are none, or another method's."""
    other = next((name for name in rest if _OTHERS.get(part, _NOTHING).match(name)), None)
    return "not in the weights" if other is None else f"the weights have another, with {other}"


def _why_not(theirs: Tensors, mine: Tensors) -> str:
    """Why a part does not fit, "" if it does."""
    if missing := mine.keys() - theirs.keys():
        return f"the weights lack its {min(missing).partition('.')[2]}"
    if more := theirs.keys() - mine.keys():
        hint = " (--options.token.form gated)" if "token.mask_gamma" in more else ""
        return f"that of the weights is of another form, with a {min(more).partition('.')[2]}{hint}"
    for name, tensor in theirs.items():
        if [side for side in tensor.shape if side != 1] != [side for side in mine[name].shape if side != 1]:
            return f"{name.partition('.')[2]} is {list(tensor.shape)} there, {list(mine[name].shape)} here"
    return ""


def _parts(names: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.partition(".")[0] for name in names))


def _whole(source: str, file: WeightsFile) -> tuple[Mapping[str, Tensor], dict[str, Any]]:
    """What stands beside the encoder in a source, and the configuration of the pre-training that it is, {} if unknown.

    A run folder has it in its last checkpoint, which counts only if that holds the same encoder.
    """
    folder = Path(source)
    if not folder.is_dir():
        return file.rest, {}
    try:
        stored = configurations.read_config_file(folder / "config.json")
        last = checkpoint.newest(folder) if stored["package"] == "pretrain" else None
    except (ConfigError, CheckpointError) as error:
        log.warning("%s: only its encoder can be used: %s", folder, error)
        return {}, {}
    if last is None:
        return {}, {}
    whole = open_weights(last / "model.safetensors")
    same = all(name in whole.state and torch.equal(whole.state[name], tensor) for name, tensor in file.state.items())
    return (whole.rest, stored["config"]) if same else ({}, {})


def _other_token(other: Mapping[str, Any], config: PretrainConfig) -> str:
    """How the token of the run that is gone on from stands elsewhere in the encoder than here, "" where it does not."""
    there = (other.get("options") or {}).get("token") or {}
    here = asdict(config.options).get("token") or {}
    different = [name for name in ("stage", "form") if name in there and there[name] != here.get(name)]
    return ", ".join(f"{name} {there[name]} there, {here.get(name)} here" for name in different)


def named(config: PretrainConfig, run_dir: Path) -> dict[str, Any]:
    """Name, title and place of the run's method in tables, where one that went on from other weights is a method of its
    own: what is measured of it owes to both.

    {"name", "title", "order"}, and "start" with what it went on from where it did.
    """
    method = find_method(config.method)
    known: dict[str, Any] = {"name": method.name, "title": method.title, "order": method_order(method.name)}
    if config.init == "none":
        return known
    try:
        record = storage.read_object(run_dir / "initialisation.json")
    except (OSError, ValueError):  # hours of training do not end on it
        record = {}
    description = record.get("description") or {}
    file = f"file {Path(config.init).name}"
    name, title = (
        description.get("method") or file,
        description.get("method_title") or description.get("method") or file,
    )
    known |= {"name": f"{method.name} from {name}", "title": f"{method.title} from {title}"}
    return {**known, "start": {"source": config.init, **{part: record.get(part, []) for part in ("kept", "fresh")}}}
