"""Collect run folders into one table of measurements, each from a run that proves what it measured."""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from engine.errors import ConfigError, DataError
from results.runs.runfiles import UnusableRun
from results.runs.runfolder import FinishedRun, read_run

# Of a row; the documentation of each is collect's.
COLUMNS = (
    "task", "dataset", "data", "model", "parameters", "recipe", "epochs", "variant", "probe", "framework", "method",
    "pretrain_dataset", "pretrain_recipe", "pretrain_epochs", "pretrain_variant", "pretrain_seed", "seed", "metric",
    "value", "seconds", "pretrain_seconds", "devices", "device", "images_per_second", "peak_memory_bytes", "unreadable",
    "config_hash", "commit", "run",
)  # fmt: skip

_FILES_OF_A_RUN = {"config.json", "metrics.jsonl", "finished.json"}  # one is enough to be listed
_ABSENT = "not a setting"  # of the version of the suite that made the run


@dataclass(frozen=True)
class Rejected:
    """A run folder that is not in the rows, and why."""

    run_dir: Path
    reason: str

    def __str__(self) -> str:
        return f"{self.run_dir}: {self.reason}"


def collect(runs_dirs: Iterable[Path | str]) -> tuple[pd.DataFrame, list[Rejected]]:
    """Every measurement of every trustworthy run, one per row, and the runs left out.

    Args:
        runs_dirs: run folders, or folders that hold run folders at any depth.

    Returns:
        The rows, with COLUMNS: `variant` are the settings in which a run differs from others of the same task, model
        and recipe ("" if in none), as "epochs=2 drop_path=0.1", and `pretrain_variant` likewise for the run it started
        from; `dataset` is the published data set with as many images, or "N + M images"; `data` tells image sets
        apart; `parameters` of the network with its classifier, where the run recorded them; `epochs` are iterations
        in detection and segmentation; `probe` whether the encoder was frozen; `seconds` are of training, on `devices`
        devices at once; `unreadable` counts images skipped, before and in the run; `commit` is the suite's. Then the
        folders that were left out: unfinished, failed, edited or impossible ones, and copies.

    Raises:
        DataError: a folder does not exist.
        ConfigError: two runs have the same settings and seed, but other results.
    """
    runs, rejected, known = [], [], dict[Path, FinishedRun | None]()
    for run_dir in _find(runs_dirs):
        try:
            # Read as the start of another it may go by another name.
            runs.append(replace(read_run(run_dir, known), run_dir=run_dir))
        except UnusableRun as error:
            rejected.append(Rejected(run_dir, str(error)))
    unique, copies = _without_copies(runs)
    rejected += copies
    variant = _variants(unique, _family, lambda run: run.settings)
    pretrain_variant = _variants(unique, _start_family, _start_settings)
    rows = [
        row
        for run, own, before in zip(unique, variant, pretrain_variant, strict=True)
        for row in _rows(run, own, before)
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS)), rejected


def _find(runs_dirs: Iterable[Path | str]) -> list[Path]:
    found: dict[Path, Path] = {}
    for path in map(Path, runs_dirs):
        if not path.is_dir():
            raise DataError(f"{path}: no such folder of runs")
        for folder in sorted(_run_folders(path), key=lambda folder: (len(folder.parts), folder)):
            if not any(parent in found for parent in folder.resolve().parents):
                found.setdefault(folder.resolve(), folder)
    return list(found.values())


def _run_folders(path: Path) -> Iterator[Path]:
    for place, inside, files in os.walk(path):
        if "config.json" in files:
            inside.clear()  # files inside a run are its own affair
        if not _FILES_OF_A_RUN.isdisjoint(files):
            yield Path(place)


def _identity(run: FinishedRun) -> str:
    """Everything that makes a run the same measurement again."""
    start = run.start
    parts = [run.task, run.recipe, run.settings, run.config.get("seed"), run.data, start.method, start.recipe]
    return json.dumps([*parts, start.epochs, start.seed, start.settings], sort_keys=True)


def _without_copies(runs: Sequence[FinishedRun]) -> tuple[list[FinishedRun], list[Rejected]]:
    first: dict[str, FinishedRun] = {}
    copies = []
    for run in runs:
        known = first.setdefault(_identity(run), run)
        if known is run:
            continue
        if known.metrics != run.metrics:
            raise ConfigError(
                f"{known.run_dir} and {run.run_dir} have the same settings and seed but different results: "
                "averaging both would count a seed twice. Move one of them out of the way"
            )
        copies.append(Rejected(run.run_dir, f"the same run as {known.run_dir}, counted once"))
    return list(first.values()), copies


def _family(run: FinishedRun) -> tuple[Any, ...]:
    # The settings of two pre-training methods differ by nature; those of what is trained after them must not.
    return run.task, run.config.get("model"), run.recipe, run.start.method if run.task == "pretrain" else None


def _start_family(run: FinishedRun) -> tuple[Any, ...]:
    return run.config.get("model"), run.start.method, run.start.recipe


def _start_settings(run: FinishedRun) -> dict[str, Any]:
    # pretrain_epochs is a column of its own
    return {name: value for name, value in (run.start.settings or {}).items() if name != "epochs"}


def _variants(
    runs: Sequence[FinishedRun],
    family: Callable[[FinishedRun], tuple[Any, ...]],
    settings: Callable[[FinishedRun], dict[str, Any]],
) -> list[str]:
    """For every run, its values of those settings that are not the same throughout its family."""
    families: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for run in runs:
        families.setdefault(family(run), []).append(settings(run))
    varying = {key: _varying(members) for key, members in families.items()}
    return [
        " ".join(f"{name}={json.dumps(settings(run).get(name, _ABSENT))}" for name in varying[family(run)])
        for run in runs
    ]


def _varying(members: list[dict[str, Any]]) -> list[str]:
    names = dict.fromkeys(name for member in members for name in member)
    return [name for name in names if len({json.dumps(member.get(name, _ABSENT)) for member in members}) > 1]


def _rows(run: FinishedRun, variant: str, pretrain_variant: str) -> list[dict[str, Any]]:
    probe = run.config.get("freeze") == "encoder"
    trained = run.environment.get("effective", {}).get("trainable_parameters")
    shared = {
        "task": run.task,
        "dataset": run.dataset,
        "data": run.data,
        "model": run.config.get("model"),
        "parameters": None if probe else trained,
        "recipe": run.recipe,
        "epochs": run.config.get("epochs", run.config.get("iterations")),
        "variant": variant,
        "probe": probe,
        "framework": run.framework,
        "method": run.start.method,
        "pretrain_dataset": run.start.dataset,
        "pretrain_recipe": run.start.recipe,
        "pretrain_epochs": run.start.epochs,
        "pretrain_variant": pretrain_variant,
        "pretrain_seed": run.start.seed,
        "seed": run.config.get("seed"),
        "seconds": run.seconds,
        "pretrain_seconds": run.start.seconds,
        "devices": run.environment.get("world_size"),
        "device": run.environment.get("device", ""),
        "images_per_second": run.images_per_second,
        "peak_memory_bytes": run.peak_memory_bytes,
        "unreadable": run.unreadable + run.start.unreadable,
        "config_hash": run.config_hash,
        "commit": run.environment.get("git_commit", ""),
        "run": str(run.run_dir),
    }
    return [{**shared, "metric": name, "value": value} for name, value in run.metrics.items()]
