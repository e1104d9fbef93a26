"""One run folder for each analysis of each encoder, found again by the content of its weights and the settings.

OUT/<analysis>-<encoder>-<8 digits>/   config.json, metrics.jsonl (the curve), finished.json, ...
OUT/.features/                         features that probes were trained on
"""

import dataclasses
import importlib
import logging
import os
import time
from pathlib import Path
from typing import Any

import torch

from analysis.config import AnalysisConfig, CkaConfig, ClassScores
from analysis.images import Images, choose, index_split
from analysis.readout import Readout, readout_of
from analysis.subject import Measurement, Subject
from backbones import load_encoder
from backbones.source import Encoder
from engine.config import check, config_hash, to_dict
from engine.data.images import ImageIndex, count_unreadable
from engine.distributed import pick_device
from engine.errors import ConfigError, MemoryExhaustedError
from engine.explain import explain
from engine.run import storage
from engine.run.claim import FREE_TO_CHANGE
from engine.run.folder import Run
from engine.run.open import open_run
from engine.training.state import set_backends

log = logging.getLogger("mim")
DTYPES = {"float32": torch.float32, "float64": torch.float64}
MODULES = {
    "interactions": "analysis.interactions.measure",
    "fourier": "analysis.fourier.measure",
    "robustness": "analysis.robustness",
    "cam": "analysis.cam",
    "landscape": "analysis.landscape",
    "cka": "analysis.cka",
}
"""Where `measure(config, subject, folder) -> Measurement` of each is; each is imported when it is asked for."""


@dataclasses.dataclass(frozen=True)
class Done:
    """A finished analysis of one encoder."""

    label: str
    folder: Path
    config: AnalysisConfig


def analyse(name: str, config: Any, reference: str, label: str, out: Path) -> Done:
    """Analyse an encoder, or find that this was done.

    Args:
        name: of the analysis.
        config: what was asked for, of whatever encoder.
        reference: the encoder, as load_encoder spells it.
        label: what figures call it; "" for the encoder's own name.
        out: folder of the run folders.

    Raises:
        SuiteError: with the exit code of what went wrong.
    """
    check(config)
    if int(os.environ.get("WORLD_SIZE") or 1) > 1:
        raise ConfigError("an analysis runs in one process: start one for each encoder instead")
    device = pick_device()
    set_backends("float32", device)  # no TF32, whatever this process did before
    torch.backends.cudnn.benchmark = False  # which algorithm is taken must not depend on when this was started
    encoder = load_encoder(reference, image_size=config.image_size or None)
    if encoder.backbone.in_channels != 3:
        raise ConfigError(f"{reference} takes images of {encoder.backbone.in_channels} channels, files have 3")
    encoder.backbone.to(device=device, dtype=DTYPES[config.precision])
    needs_classes = isinstance(config, ClassScores) and getattr(config, "reward", "") != "cosine"
    index = index_split(config.data, config.data.split, labelled=needs_classes)
    readout = _readout(config, encoder, index, out, device) if needs_classes else None
    digest = readout.digest if readout is not None and readout.digest else encoder.digest
    size = config.image_size or encoder.image_size
    config = dataclasses.replace(config, init=reference, model=encoder.backbone.name, digest=digest, image_size=size)
    if isinstance(config, CkaConfig):
        config = dataclasses.replace(config, other_digest=load_encoder(config.other).digest)
    folder = out / f"{name}-{encoder.name}-{_key(config, index)}"
    label = label or encoder.name
    with open_run(folder, config, package="analysis", recipe=name, resume=True) as run:
        if run.finished() is not None:
            log.info("%s: %s is known, in %s", name, label, folder)
            return Done(label, folder, config)
        run.pin_data("images", index)
        _say_where_from(run, encoder)
        chosen = choose(index, getattr(config, "images", 0), config.seed)
        images = Images(index, chosen, size, config.crop_pct, encoder.mean, encoder.std, config.seed, folder)
        run.note(encoder=label, images=len(images), image_size=size, device=str(device), precision=config.precision)
        subject = Subject(label, encoder, readout, images, device, DTYPES[config.precision])
        _measure(run, name, config, subject)
    return Done(label, folder, config)


def _key(config: Any, index: ImageIndex) -> str:
    """Eight digits of all that makes it this measurement, on these images: where files lie is no part of it."""
    values = to_dict(dataclasses.replace(config, init=""))
    for name in FREE_TO_CHANGE:
        group, _, key = name.rpartition(".")
        (values.get(group, {}) if group else values).pop(key, None)
    values.pop("other", None)
    return config_hash({"config": values, "data": index.digest})[:8]


def _readout(config: Any, encoder: Encoder, index: ImageIndex, out: Path, device: torch.device) -> Readout:
    readout = readout_of(encoder, config, index.classes, out / ".features", device)
    readout.network.to(device=device, dtype=DTYPES[config.precision])
    return readout


def _say_where_from(run: Run, encoder: Encoder) -> None:
    """Tables name the method that made the weights."""
    untrained = encoder.method == "none"
    told = {"method": "untrained" if untrained else encoder.method} | (
        {"method_title": "untrained"} if untrained else {}
    )
    record = {
        "source": encoder.source or encoder.reference,
        "description": encoder.description if "method" in encoder.description else told,
        "digest": encoder.digest,
    }
    storage.write_json(run.dir / "initialisation.json", record)


def _measure(run: Run, name: str, config: Any, subject: Subject) -> None:
    started = time.monotonic()
    try:
        found: Measurement = importlib.import_module(MODULES[name]).measure(config, subject, run.dir)
    except Exception as error:
        explained = explain(error)
        if not isinstance(explained, MemoryExhaustedError):
            raise
        reason = (str(error).strip().splitlines() or ["no memory left"])[0]
        raise MemoryExhaustedError(
            f"out of memory with --batch-size {config.batch_size}: give a smaller one, nothing else changes ({reason})"
        ) from error
    if run.resumed:
        run.continue_from(0, 0)
    for step, line in enumerate(found.lines):
        run.log("val", step, line.at, line.values)
    run.log("val", len(found.lines), max(line.at for line in found.lines), found.metrics)
    seconds = time.monotonic() - started
    run.time(len(found.lines), {"seconds": round(seconds, 3)})
    run.finish(found.metrics, **found.facts, unreadable=count_unreadable(run.dir), num_analysed=len(subject.images))


def curve(done: Done) -> list[dict[str, Any]]:
    """The lines of a finished analysis: "at", and the values of each."""
    rows = Run(done.folder, "analysis", "", {}, torch.device("cpu"), True).read_metrics("val")[:-1]
    return [
        {"at": row["epoch"], **{k: v for k, v in row.items() if k not in ("step", "epoch", "split")}} for row in rows
    ]
