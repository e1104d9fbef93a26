"""Read one run folder, every file of it once, and believe it only if it is finished, unchanged since, and possible."""

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from engine import formats
from engine.config import flatten
from engine.errors import ConfigError
from results.runs.curves import Curves, curves_from
from results.runs.facts import FRACTION, OF_A_PART, Facts, check_evaluated, read_facts
from results.runs.measurements import check_complete, checked_lines, checked_metrics
from results.runs.resumes import HARMLESS, changes_on_the_way
from results.runs.runfiles import (
    UnusableRun,
    is_count,
    is_number,
    optional_number,
    read_json,
    read_metrics,
    read_optional,
    read_summary,
    read_value,
)
from results.runs.start import Start, start_of

# What does not make another experiment. Two runs that differ in nothing else are seeds of one row.
NOT_SETTINGS = (HARMLESS - {"data.unreadable"}) | {"seed"}

# What every other use of a configuration relies on; the fields that a task lacks are not looked at.
KINDS = {"model": str, "method": str, "seed": int, "epochs": int, "iterations": int, "data": dict}


@dataclass(frozen=True)
class FinishedRun:
    """A run with its results.

    Args:
        settings: the flattened configuration but for NOT_SETTINGS.
        facts: what it was trained and evaluated on.
        config_hash: of the whole configuration.
        framework: "torchvision", "detectron2" or "mmsegmentation"; "" where the run recorded none.
        environment: environment.json; {} without one.
        curves: what metrics.jsonl holds, thinned.
        remark: what a reader of its numbers has to know, "" for nothing.
    """

    run_dir: Path
    task: str
    recipe: str
    config: dict[str, Any]
    settings: dict[str, Any]
    facts: Facts
    config_hash: str
    framework: str
    environment: dict[str, Any]
    start: Start
    metrics: dict[str, float]
    curves: Curves
    seconds: float
    images_per_second: float | None
    peak_memory_bytes: float | None
    unreadable: int
    remark: str

    def described(self, name: str, kind: type) -> Any:
        """What environment.json says under a name, None where that is of another kind: it only describes the run."""
        value = self.environment.get(name)
        return value if isinstance(value, kind) and not isinstance(value, bool) else None


def by_hash(folders: Iterable[Path]) -> dict[str, Path]:
    """Finished runs by the hash of their configuration, which weights say that they were made with."""
    found: dict[str, Path] = {}
    for folder in folders:
        with contextlib.suppress(UnusableRun):
            found.setdefault(str(read_json(folder / "finished.json").get("config_hash")), folder)
    return found


def read_run(
    run_dir: Path, known: dict[Path, FinishedRun | None], elsewhere: Mapping[str, Path] = MappingProxyType({})
) -> FinishedRun:
    """The finished run in a folder, of whatever task.

    Args:
        run_dir: the folder.
        known: the runs read so far, by resolved folder; many runs start from the same one. What is read is added,
            None while it is being read.
        elsewhere: of by_hash, to find what a run started from when it lies at another place.

    Raises:
        UnusableRun: it is unfinished, failed, was edited, or holds a number that cannot be.
    """
    place = run_dir.resolve()
    if place in known:
        run = known[place]
        if run is None:
            raise UnusableRun("it is the start of a run that it started from")
        return run
    known[place] = None
    try:
        known[place] = run = _read(run_dir, known, elsewhere)
    except UnusableRun:
        del known[place]
        raise
    except Exception as error:  # one folder of a kind that nobody thought of must not hide all the others
        del known[place]
        raise UnusableRun(f"cannot be understood ({type(error).__name__}: {error})") from error
    return run


def _read(run_dir: Path, known: dict[Path, FinishedRun | None], elsewhere: Mapping[str, Path]) -> FinishedRun:
    stored = read_json(run_dir / "config.json")
    task, recipe, config = _head(stored)
    summary = read_summary(run_dir, config)
    try:
        config = dict(formats.upgrade({**stored})["config"])  # so that runs of several versions can be compared
    except ConfigError as error:
        raise UnusableRun(f"config.json: {error}") from error
    for name, value in (("task", task), ("recipe", recipe)):
        if summary.get(name, value) != value:
            raise UnusableRun(f"config.json says {name} {value}, finished.json {summary[name]}")
    numbers = {name: optional_number(summary, name) for name in ("seconds", "images_per_second", "peak_memory_bytes")}
    unreadable = int(optional_number(summary, "unreadable") or 0)
    classes = read_value(run_dir / "classes.json") if (run_dir / "classes.json").exists() else None
    facts = read_facts(task, config, summary, read_optional(run_dir / "data.json"), classes)
    environment = _environment(run_dir)
    lines = checked_lines(read_metrics(run_dir), task)
    _check_length(lines, config, environment)
    metrics = checked_metrics(lines, task, summary, config.get("epochs"))
    check_evaluated(lines, summary)
    told = summary.get("method")
    told = told if isinstance(told, dict) else {}
    start = start_of(run_dir, task, config, told, partial(read_run, known=known, elsewhere=elsewhere), elsewhere)
    return FinishedRun(
        run_dir=run_dir,
        task=task,
        recipe=recipe,
        config=config,
        settings=_settings(config),
        facts=facts,
        config_hash=str(summary["config_hash"]),
        framework=str(summary.get("framework") or ""),
        environment=environment,
        start=start,
        metrics=metrics,
        curves=curves_from(lines),
        seconds=numbers["seconds"] or 0.0,
        images_per_second=numbers["images_per_second"],
        peak_memory_bytes=numbers["peak_memory_bytes"],
        unreadable=unreadable,
        remark=changes_on_the_way(environment) if environment else "no environment.json: what changed is not known",
    )


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The flattened configuration, but for what changes nothing."""
    flat = {name: value for name, value in flatten(dict(config)).items() if name not in NOT_SETTINGS}
    if flat.get(f"data.{FRACTION}", 1) == 1 and not config.get("data", {}).get("label_list"):
        flat.pop(OF_A_PART, None)
    return flat


def _head(stored: Mapping[str, Any]) -> tuple[str, str, dict[str, Any]]:
    task, recipe, config = stored.get("package"), stored.get("recipe"), stored.get("config")
    if not (isinstance(task, str) and isinstance(recipe, str) and isinstance(config, dict)):
        raise UnusableRun("config.json does not hold package, recipe and config")
    for name, kind in KINDS.items():
        if name not in config:
            continue
        if type(config[name]) is not kind:
            raise UnusableRun(f"config.json: {name} is {config[name]!r}, which is no {kind.__name__}")
        if kind is int and not is_count(config[name]):
            raise UnusableRun(f"config.json: {name} is {config[name]!r:.40}, which nothing can have")
    return task, recipe, config


def _environment(run_dir: Path) -> dict[str, Any]:
    values = read_optional(run_dir / "environment.json")
    ranks = values.get("world_size")
    if ranks is not None and not (is_count(ranks) and ranks < 10**6):
        return {**values, "world_size": None}
    return values


def _check_length(lines: list[Mapping[str, Any]], config: Mapping[str, Any], environment: Mapping[str, Any]) -> None:
    """Whether metrics.jsonl holds the whole training, as long as that is known to have been."""
    effective = environment.get("effective")
    told = effective if isinstance(effective, dict) else {}
    steps = config.get("iterations", told.get("steps"))
    per_epoch = told.get("steps_per_epoch") if "epochs" in config else 1  # what evaluate_every counts
    if is_count(steps) and steps and is_number(per_epoch) and per_epoch > 0:
        check_complete(lines, config, steps, per_epoch)
