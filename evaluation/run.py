"""One run folder for each encoder, and the comparison of all: the common course of every protocol."""

import dataclasses
import importlib
import io
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from backbones import load_encoder
from engine.config import check, config_hash, to_dict
from engine.distributed import world_size
from engine.errors import ConfigError
from engine.run import storage
from engine.run.claim import FREE_TO_CHANGE
from engine.run.environment import environment
from engine.run.open import Run, open_run
from engine.training.state import set_backends
from evaluation.command import Asked
from evaluation.compare import CORRECT, compare
from evaluation.config import EvaluationConfig
from evaluation.intervals import accuracy_interval
from evaluation.measured import Inputs, Measured, complete_row
from evaluation.protocols import PROTOCOLS

log = logging.getLogger("mim")


class Subject(Protocol):
    """What is measured, as far as a run folder tells of it: `backbones.Encoder` says what each means."""

    reference: str
    name: str
    digest: str
    method: str
    source: str
    description: dict[str, Any]

    @property
    def model(self) -> str:
        """Name of the network."""
        ...

    @property
    def image_size(self) -> int:
        """Side in pixels of what it sees."""
        ...


def evaluate_all(asked: Asked) -> str:
    """Measure every encoder that is not measured yet; write and return the comparison.

    Raises:
        SuiteError: with the exit code of what went wrong; encoders before it are measured.
    """
    folders = measure_all(asked)
    return compare(folders, asked.runs_dir, asked.protocol) if os.environ.get("RANK", "0") == "0" else ""


def measure_all(asked: Asked) -> list[Path]:
    """Measure every encoder that is not measured yet; returns the run folder of each.

    Raises:
        SuiteError: with the exit code of what went wrong; encoders before it are measured.
    """
    check(asked.config)
    module = importlib.import_module(PROTOCOLS[asked.protocol].module)
    data = module.open_data(asked.config)
    digests = {name: index.digest for name, index in data.indices.items()}
    load: Callable[..., Any] = getattr(module, "load", load_encoder)
    folders = []
    for reference in dict.fromkeys(asked.encoders):
        encoder = load(reference, image_size=asked.config.image_size)
        config = for_encoder(asked.config, encoder)
        folder = asked.runs_dir / _folder_name(asked.protocol, encoder, config, digests)
        evaluate_one(asked.protocol, encoder, config, data, folder, asked.cache_dir)
        folders.append(folder)
    return folders


def for_encoder(config: EvaluationConfig, encoder: Subject) -> Any:
    """The configuration with what follows from the encoder."""
    return dataclasses.replace(
        config,
        init=encoder.reference,
        model=encoder.model,
        digest=encoder.digest,
        image_size=encoder.image_size,
    )


def evaluate_one(
    protocol: str, encoder: Subject, config: Any, data: Any, folder: Path, cache_dir: Path
) -> dict[str, float]:
    """One encoder's run, from wherever the folder stands; a finished one is only read.

    Args:
        protocol: its name.
        encoder: what is measured.
        config: of the protocol, for this encoder.
        data: of the protocol's open_data.
        folder: of the run.
        cache_dir: of cached features.

    Returns:
        The metrics of finished.json.
    """
    module = importlib.import_module(PROTOCOLS[protocol].module)
    recipe: Callable[..., str] = getattr(module, "recipe", lambda _: protocol)
    with open_run(folder, config, package="evaluation", recipe=recipe(config), resume=True) as run:
        known = run.finished()
        if known is not None:
            log.info("%s is finished", folder)
            return known
        on_ranks: Callable[..., bool] = getattr(module, "on_ranks", lambda _: False)
        if world_size() > 1 and not on_ranks(config):
            raise ConfigError(f"{run.recipe} runs in one process: start it without torchrun")
        set_backends(config.precision if config.precision == "tf32" else "float32", run.device)
        started = time.perf_counter()
        _pin(run, data, encoder)
        measured: Measured = module.measure(run, encoder, config, Inputs(data, cache_dir))
        if not run.main:
            return {}
        seconds = time.perf_counter() - started
        return _finish(run, config, encoder, dataclasses.replace(measured, version=module.VERSION), seconds)


def _pin(run: Run, data: Any, encoder: Subject) -> None:
    for name, index in data.indices.items():
        run.pin_data(name, index)
    if run.main:
        method = "scratch" if encoder.method == "none" else encoder.method  # without training: the control
        told = encoder.description if "method" in encoder.description else {"method": method} if method else {}
        record = {"source": encoder.source or encoder.reference, "description": told}
        with storage.storage_errors(run.dir):
            storage.write_json(run.dir / "initialisation.json", record)


def _finish(run: Run, config: Any, encoder: Subject, measured: Measured, seconds: float) -> dict[str, float]:
    metrics, correct = dict(measured.metrics), measured.correct
    trained = bool(run.read_metrics("val"))
    if correct is not None:
        content = io.BytesIO()
        np.save(content, correct)
        with storage.storage_errors(run.dir):
            storage.write_atomic(run.dir / CORRECT, content.getvalue())
    if not trained:
        if correct is not None:
            low, high = accuracy_interval(correct, seed=config.seed, resamplings=config.bootstrap)
            headline = next(iter(metrics))
            metrics |= {f"{headline}_low": low, f"{headline}_high": high}
        run.log("val", 0, 0.0, metrics)
        run.time(0, {"seconds": round(seconds, 3)})
    about = environment(run.device)
    known: dict[str, Any] = {
        "protocol": run.recipe,
        "version": measured.version,
        "encoder": encoder.name,
        "reference": encoder.reference,
        "encoder_sha256": encoder.digest,
        "model": encoder.model,
        "method": encoder.method,
        "resolution": config.image_size,
        "crop_pct": config.crop_pct,
        "interpolation": config.interpolation,
        "seeds": [config.seed],
        "precision": config.precision,
        "versions": about["versions"],
        "device": about["device"],
        "seconds": round(seconds, 3),
        **{name: measured.facts[name] for name in ("num_train", "num_val") if name in measured.facts},
        **measured.row,
    }
    row = complete_row(**known)
    run.finish(metrics, **measured.facts, row=row)
    return metrics


def _folder_name(protocol: str, encoder: Subject, config: Any, digests: dict[str, str]) -> str:
    """<protocol>-<encoder>-<8 digits>: of everything that makes it this measurement, on these images."""
    values = to_dict(config)
    for name in FREE_TO_CHANGE:
        group, _, key = name.rpartition(".")
        (values.get(group, {}) if group else values).pop(key, None)
    return f"{protocol}-{encoder.name}-{config_hash({'config': values, 'data': digests})[:8]}"
