"""Anybody's file of weights as one of ours: which network it is, what fitted, and a file that says so."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from backbones.build import build_backbone
from backbones.encoder import Backbone
from backbones.errors import BackboneError, WeightsError, WeightsFileError

from .faults import is_plain
from .files import BESIDE, WeightsFile, open_weights, write_weights
from .fit import Fit, first_few, fit_file
from .guess import guess_network, native_size
from .heads import build_head, head_description
from .origins import ORIGINS, agrees
from .released import PREFIX

_GONE_ON_FROM = re.compile(r"neck|decoder|dense_decoder|densify|token|mask_|pred|proj")
"""How the names of decoders and tokens begin, whoever named them."""


@dataclass(frozen=True)
class Imported:
    """A file that was read into a network."""

    source: str
    file: WeightsFile
    fit: Fit
    backbone: Backbone
    """With the weights in it."""
    loaded: dict[str, torch.Tensor]
    """What of the file is in it."""
    classifier: nn.Module | None
    """The same network with the file's classifier, if it has one that can be used."""

    @property
    def beside(self) -> dict[str, torch.Tensor]:
        """What a pre-training can go on from beside the encoder: decoder and token, under the file's names."""
        rest = sorted(self.file.rest.items())
        return {name: tensor for name, tensor in rest if _GONE_ON_FROM.match(name) and is_plain(tensor)}

    @property
    def report(self) -> str:
        """What was found, matched, renamed, resized and left out, as lines to read."""
        file, fit = self.file, self.fit
        wrappers = f", below {' / '.join(file.containers)}" if file.containers else ""
        lines = [
            f"{self.source}: {ORIGINS[file.origin]}, {file.convention} names{wrappers}",
            f"network     {self.backbone.name} at {self.backbone.image_size} px",
        ]
        renamed = [f"{file.renamed[name]} -> {name}" for name in self.loaded if name in file.renamed]
        problems = {kind: fit.problems.get(kind, []) for kind in ("missing", "unexpected", "of another shape")}
        head = (
            [] if self.classifier is None else [name for name in fit.left_out if name in self.classifier.state_dict()]
        )
        others = [name for name in (*file.dropped, *fit.left_out) if name not in self.beside and name not in head]
        unused = [*others, *(f"{name} (all of it)" for name in file.unused)]
        rows: dict[str, Sequence[str]] = {
            "matched": [name for name in self.loaded if name not in file.renamed],
            "renamed": renamed,
            "resized": fit.resized,
            "missing": problems["missing"],
            "unexpected": problems["unexpected"],
            "mis-shaped": problems["of another shape"],
            "unused": unused,
            "classifier": head,
            "beside": [f"{name} (to go on from)" for name in self.beside],
        }
        for name, found in rows.items():
            shown = f": {first_few(found)}" if found and name != "matched" else ""
            lines.append(f"{name:<11} {len(found)}{shown}")
        lines += [f"note: {sentence}" for sentence in (*file.remarks, *fit.changed)]
        return "\n".join(lines)


def import_weights(
    source: str,
    *,
    model: str | None = None,
    origin: str | None = None,
    ema: bool = False,
    image_size: int | None = None,
    allow_partial: bool = False,
) -> Imported:
    """Read a file, a run folder or released:NAME into the network it is of.

    Args:
        source: what open_weights takes.
        model: name of the network; found by names and shapes if not given.
        origin: whose file it is (a key of ORIGINS), to be checked against the names in it.
        ema: take the averaged copy.
        image_size: that the network is for; tables of positions are resized. The file's own if not given.
        allow_partial: load what fits; the rest begins at random weights of seed 0.

    Raises:
        WeightsError: something is missing, left over or of another shape, or the names are not of that origin.
        WeightsFileError: the file cannot be had, is damaged, or would have to run code.
        BackboneError: there is no such network.
    """
    file = open_weights(source, ema=ema)
    if origin is not None and not agrees(origin, file.origin):
        raise WeightsError(
            f"{source} is of {ORIGINS[file.origin]} by its names ({first_few(list(file.state)[:3])}), not of "
            f"{ORIGINS[origin]}."
        )
    if model is None and source.startswith(PREFIX) and "name" not in file.description:
        raise WeightsError(f"{source}: {'; '.join(file.remarks)}.")
    model = model or guess_network(file, source)
    size = image_size or int(file.description.get("image_size") or native_size(file.state))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = build_backbone(model, image_size=size, **_channels(file))
    fit = fit_file(backbone, file, source)
    loaded = {name: tensor for name, tensor in fit.fitting.items() if _fits(name, tensor, fit)}
    faulty = fit.problems.keys() - {"missing", "unexpected", "of another shape"}
    if not loaded or faulty or (fit.problems and not allow_partial):
        listed = "".join(f"\n  {len(names)} {kind}: {first_few(names)}" for kind, names in fit.problems.items())
        advice = "" if faulty or not loaded else " Take another --model, or what fits alone with --allow-partial."
        raise WeightsError(f"{source} does not fit {model} at {size} px:{listed}\nNothing was written.{advice}")
    fit.target.load_state_dict(loaded, strict=False)
    classifier = None if fit.problems else build_head(file, model, size, source)
    return Imported(source=source, file=file, fit=fit, backbone=backbone, loaded=loaded, classifier=classifier)


def _channels(file: WeightsFile) -> dict[str, int]:
    """The option for images of other than three channels."""
    mean = file.description.get("mean")
    return {"in_chans": len(mean)} if isinstance(mean, list) and len(mean) != 3 else {}


def _fits(name: str, tensor: torch.Tensor, fit: Fit) -> bool:
    faulty = {line.partition(" ")[0] for kind, lines in fit.problems.items() for line in lines if kind != "missing"}
    return name not in faulty


def check_output(path: Path) -> None:
    """Raise BackboneError for a name that does not end in .safetensors, or in a folder that is not there."""
    if path.suffix != ".safetensors":
        raise BackboneError(f"-o {path}: the name of the file must end in .safetensors.")
    if not path.parent.is_dir():
        raise BackboneError(f"-o {path}: there is no folder {path.parent}.")


def save_imported(imported: Imported, path: Path) -> None:
    """Write a file that every --init takes: the encoder under timm's names, its classifier if the file has one (then
    `python -m classification evaluate` takes it too), and what else a pre-training goes on from, below BESIDE.

    Raises WeightsFileError where it cannot be written.
    """
    file, backbone = imported.file, imported.backbone
    state = dict((imported.classifier or backbone.net).state_dict())
    state |= {f"{BESIDE}{name}": tensor.clone() for name, tensor in imported.beside.items()}
    partial = {kind: names for kind, names in imported.fit.problems.items() if kind != "unexpected"}
    header: dict[str, Any] = {
        **file.description,
        "name": backbone.name,
        "image_size": backbone.image_size,
        "imported_from": imported.source if imported.source.startswith(PREFIX) else Path(imported.source).name,
        "origin": file.origin,
    }
    if imported.classifier is not None:
        network = imported.classifier
        header |= head_description(file, backbone.name, backbone.image_size, network, header["imported_from"])
    if partial:
        header["partial"] = {kind: len(names) for kind, names in partial.items()}
    try:
        write_weights(path, state, header)
    except OSError as error:
        raise WeightsFileError(f"{path} cannot be written: {error.strerror or error}.") from error
