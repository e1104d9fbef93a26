"""Collect run folders into one table of measurements, each from a run that proves what it measured."""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from engine.errors import ConfigError, DataError
from results.methods import places, title
from results.metrics import PRETRAINING
from results.runs.curves import Curves
from results.runs.data_names import names_of, with_named_starts, without_own
from results.runs.facts import FRACTION, OF_A_PART
from results.runs.runfiles import UnusableRun, is_count, is_file
from results.runs.runfolder import FinishedRun, by_hash, read_run

# Of a row; the documentation of each is collect's.
COLUMNS = (
    "task", "dataset", "data", "data_name", "model", "parameters", "recipe", "epochs", "variant", "probe", "framework",
    "method", "method_title", "method_place", "pretrain_dataset", "pretrain_recipe", "pretrain_epochs",
    "pretrain_variant", "pretrain_seed", "seed", "metric", "value", "seconds", "pretrain_seconds", "devices", "device",
    "images_per_second", "peak_memory_bytes", "unreadable", "config_hash", "commit", "remark", "run",
)  # fmt: skip

_FILES_OF_A_RUN = {"config.json", "metrics.jsonl", "finished.json"}  # one is enough to be listed
# Told even where all runs have the same other value than these.
_ALWAYS_TOLD: dict[str, tuple[Any, ...]] = {f"data.{FRACTION}": (1.0,), "freeze": ("none", "encoder")}
# Counted in epochs: where these are the same share of every length, they are the same setting.
_OF_THE_LENGTH = ("schedule.warmup_epochs", "evaluate_every")


@dataclass(frozen=True)
class Rejected:
    """A run folder that is not in the rows, and why."""

    run_dir: Path
    reason: str

    def __str__(self) -> str:
        return f"{self.run_dir}: {self.reason}"


@dataclass(frozen=True)
class Collection:
    """Run folders, each file of which was read once.

    Args:
        rows: of collect.
        rejected: of collect.
        runs: every run in rows by its folder, as the column `run` has it.
    """

    rows: pd.DataFrame
    rejected: list[Rejected]
    runs: dict[str, FinishedRun]

    @property
    def curves(self) -> dict[str, Curves]:
        """The curves of every run, by its folder."""
        return {name: run.curves for name, run in self.runs.items()}


def collect(runs_dirs: Iterable[Path | str]) -> tuple[pd.DataFrame, list[Rejected]]:
    """Every measurement of every trustworthy run, one per row, and the runs left out.

    Args:
        runs_dirs: run folders, or folders that hold run folders at any depth.

    Returns:
        The rows, with COLUMNS: `variant` are the settings in which a run differs from others of the same task, model
        and recipe ("" if in none), as "epochs=2 drop_path=0.1", and `pretrain_variant` likewise for the run it started
        from; `dataset` is the published data set with as many images, or "N + M images"; `data` tells image sets
        apart, and is of the whole set where a run trained on a fraction; `data_name` is what people call it, by its
        folder; `parameters` of the network with its
        classifier, where the run recorded them; `epochs` are iterations in tasks that count those; `probe` whether
        the encoder was frozen; `method_title` how people write the method and `method_place` its place among those of
        the rows; `seconds` are of training, on `devices` devices at once; `unreadable` counts images skipped, before
        and in the run; `commit` is the suite's; `remark` what changed on the way. Then the folders that were left out:
        unfinished, failed, edited or impossible ones, and copies.

    Raises:
        DataError: a folder does not exist.
        ConfigError: two runs have the same settings and seed, but other results.
    """
    found = read_runs(runs_dirs)
    return found.rows, found.rejected


def read_runs(runs_dirs: Iterable[Path | str]) -> Collection:
    """What collect returns, and the runs that it is made of.

    Raises:
        DataError, ConfigError: as collect.
    """
    runs, rejected, known = list[FinishedRun](), list[Rejected](), dict[Path, FinishedRun | None]()
    folders = _find(runs_dirs, rejected)
    elsewhere = by_hash(folders)
    for run_dir in folders:
        try:
            # Read as the start of another it may go by another name.
            runs.append(replace(read_run(run_dir, known, elsewhere), run_dir=run_dir))
        except UnusableRun as error:
            rejected.append(Rejected(run_dir, str(error)))
    unique, copies = _without_copies(_with_whole_sets(runs))
    rejected += copies
    names = names_of(unique)
    unique = with_named_starts(unique, names)
    variant = _variants(unique, _family, _own_settings)
    # the epochs of pre-training are a column of their own
    pretrain_variant = _variants(unique, _start_family, lambda run: run.start.settings or {}, untold="epochs")
    place, titles = places(_orders(unique)), _titles(unique)
    rows = [
        row | {"method_place": place[run.start.method], "method_title": titles[run.start.method], "data_name": name}
        for run, own, before in zip(unique, variant, pretrain_variant, strict=True)
        for name in [names[run.task, run.facts.key]]
        for row in _rows(run, own, without_own(before, name))
    ]
    return Collection(pd.DataFrame(rows, columns=list(COLUMNS)), rejected, {str(run.run_dir): run for run in unique})


def _find(runs_dirs: Iterable[Path | str], rejected: list[Rejected]) -> list[Path]:
    found: dict[Path, Path] = {}
    for path in map(Path, runs_dirs):
        if not path.is_dir():
            raise DataError(f"{path}: no folder" if path.exists() else f"{path}: no such folder of runs")
        for folder in sorted(_run_folders(path, rejected), key=lambda folder: (len(folder.parts), folder)):
            if not any(parent in found for parent in folder.resolve().parents):
                found.setdefault(folder.resolve(), folder)
    return list(found.values())


def _run_folders(path: Path, rejected: list[Rejected]) -> Iterator[Path]:
    def unread(error: OSError) -> None:
        rejected.append(Rejected(_as_text(Path(str(error.filename))), f"cannot be looked into ({error.strerror})"))

    for place, inside, files in os.walk(path, onerror=unread):
        # A link to nothing or to itself is listed by os.walk as a file, a folder of that name as a folder.
        if "config.json" in files or "finished.json" in files:
            inside.clear()  # files inside a run are its own affair
        there = [Path(place)] * (not _FILES_OF_A_RUN.isdisjoint([*files, *inside]))
        linked = [folder for name in inside if (folder := Path(place, name)).is_symlink()]
        there += [folder for folder in linked if any(is_file(folder / name) for name in _FILES_OF_A_RUN)]
        for folder in there:
            if _as_text(folder) == folder:
                yield folder
            else:
                rejected.append(Rejected(_as_text(folder), "its name is no text (UTF-8)"))


def _as_text(path: Path) -> Path:
    """The path with a sign in place of what is no text in it."""
    return Path(os.fsencode(path).decode(errors="replace"))


def _with_whole_sets(runs: Sequence[FinishedRun]) -> list[FinishedRun]:
    """The runs, those on a fraction of a set that is not known as a whole with the key of the one it is a part of.

    A set that was used as a whole and is evaluated on the same images, if there is only one such in its task or else
    among all runs, is that one.
    """
    wholes: dict[tuple[str, ...], set[str]] = {}
    for run in runs:
        for where in ((run.task, run.facts.evaluated), (run.facts.evaluated,)):
            if run.facts.whole:
                wholes.setdefault(where, set()).add(run.facts.key)
    found = []
    for run in runs:
        known = wholes.get((run.task, run.facts.evaluated)) or wholes.get((run.facts.evaluated,), set())
        part = not run.facts.whole and len(known) == 1
        found.append(replace(run, facts=replace(run.facts, key=next(iter(known)))) if part else run)
    return found


def _identity(run: FinishedRun) -> str:
    """Everything that makes a run the same measurement again."""
    start = run.start
    parts = [run.task, run.recipe, run.settings, run.config.get("seed"), run.facts.key, start.method, start.recipe]
    parts += [run.config.get("digest"), run.config.get("other_digest")]  # of what only looks at weights
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
    return run.task, run.config.get("model"), run.recipe, run.start.method if run.task in PRETRAINING else None


def _own_settings(run: FinishedRun) -> dict[str, Any]:
    # The hash of a measured encoder tells runs apart as where the weights came from does, which has columns of its own.
    return {name: value for name, value in run.settings.items() if name != "digest"}


def _start_family(run: FinishedRun) -> tuple[Any, ...]:
    return run.config.get("model"), run.start.method, run.start.recipe


def _variants(
    runs: Sequence[FinishedRun],
    family: Callable[[FinishedRun], tuple[Any, ...]],
    settings: Callable[[FinishedRun], dict[str, Any]],
    untold: str = "",
) -> list[str]:
    """For every run, its values of those settings but `untold` that are not the same throughout its family."""
    families: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for run in runs:
        families.setdefault(family(run), []).append(settings(run))
    names = {key: _varying(members, untold) for key, members in families.items()}
    return [_told(settings(run), *names[family(run)]) for run in runs]


def _told(settings: dict[str, Any], varying: list[str], newer: list[str]) -> str:
    """The values that tell a run from others of its family; of settings that its version lacked that it lacked them."""
    parts = [f"{name}={json.dumps(settings[name])}" for name in varying if name in settings]
    lacking = [name for name in (*varying, *newer) if name not in settings and name != OF_A_PART]
    if lacking:
        more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
        parts.append(f"(older: without {lacking[0]}{more})")
    return " ".join(parts)


def _orders(runs: Sequence[FinishedRun]) -> dict[str, int | None]:
    """{method: its place}, the first that a run told."""
    told: dict[str, int | None] = {}
    for run in runs:
        told[run.start.method] = run.start.order if told.get(run.start.method) is None else told[run.start.method]
    return told


def _titles(runs: Sequence[FinishedRun]) -> dict[str, str]:
    """{method: its title}, the first that a run told; with the name where two methods have the same."""
    told: dict[str, str] = {}
    for run in runs:
        told[run.start.method] = told.get(run.start.method) or run.start.title
    found = {name: title(name, text) for name, text in told.items()}
    several = {text for text, count in Counter(found.values()).items() if count > 1}
    return {name: f"{text} ({name})" if text in several else text for name, text in found.items()}


def _varying(members: list[dict[str, Any]], untold: str) -> tuple[list[str], list[str]]:
    """The settings of which there are several values, and those of one value that some members do not have."""
    names = dict.fromkeys(name for member in members for name in member if name != untold)
    values = {name: {json.dumps(member[name]) for member in members if name in member} for name in names}
    varying = [
        name
        for name in names
        if (len(values[name]) > 1 and not (name in _OF_THE_LENGTH and _in_proportion(members, name)))
        or (name in _ALWAYS_TOLD and not values[name] <= set(map(json.dumps, _ALWAYS_TOLD[name])))
    ]
    newer = [name for name in names if name not in varying and any(name not in member for member in members)]
    return varying, newer


def _in_proportion(members: list[dict[str, Any]], name: str) -> bool:
    pairs = [(member[name], member.get("epochs")) for member in members if name in member]
    if not all(isinstance(value, int | float) and is_count(epochs) and epochs for value, epochs in pairs):
        return False
    return len({value / epochs for value, epochs in pairs}) == 1


def _rows(run: FinishedRun, variant: str, pretrain_variant: str) -> list[dict[str, Any]]:
    probe = run.config.get("freeze") in ("encoder", "all")
    effective = run.described("effective", dict) or {}
    trained = effective.get("trainable_parameters")
    shared = {
        "task": run.task,
        "dataset": run.facts.name,
        "data": run.facts.key,
        "model": run.config.get("model", ""),
        "parameters": trained if is_count(trained) and not probe else None,
        "recipe": run.recipe,
        "epochs": run.config.get("iterations", run.config.get("epochs")),
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
        "device": run.described("device", str) or "",
        "images_per_second": run.images_per_second,
        "peak_memory_bytes": run.peak_memory_bytes,
        "unreadable": run.unreadable + run.start.unreadable,
        "config_hash": run.config_hash,
        "commit": run.described("git_commit", str) or "",
        "remark": "; ".join(filter(None, (run.remark, run.start.remark))),
        "run": str(run.run_dir),
    }
    return [{**shared, "metric": name, "value": value} for name, value in run.metrics.items()]
