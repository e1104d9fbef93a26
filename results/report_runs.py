"""Sections of the page: one for each run, with all that its folder says."""

import itertools
import json
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd

from engine.config import flatten
from results.figures_data import main_metric, metric_label
from results.report_pictures import Picture, panel_files
from results.tables_text import records, start


@dataclass(frozen=True)
class Shown:
    """A picture of a section. `data` is empty where only the link is shown."""

    name: str
    link: str
    data: str = ""
    width: int = 0
    height: int = 0


@dataclass(frozen=True)
class Section:
    """What the template shows of one run; `number` is its place among the curves."""

    number: int
    id: str
    name: str
    link: str
    headline: str
    facts: list[tuple[str, str]]
    command: str
    note: str
    metrics: str
    configuration: str
    environment: str
    pictures: list[Shown]
    more_pictures: list[Shown]


def link(target: Path, page: Path) -> str:
    """A relative address of a file or folder, as seen from the page."""
    return quote(Path(os.path.relpath(target.resolve(), page.resolve().parent)).as_posix())


def names(runs: Sequence[str], runs_dirs: Sequence[Path]) -> dict[str, str]:
    """What each run is called: its path below the folder it was found in, wherever that is."""
    return {run: short(run, runs_dirs) for run in runs}


def short(text: str, runs_dirs: Sequence[Path]) -> str:
    """Text with the paths of run folders as seen from the folders they were found in."""
    for folder in sorted(map(str, runs_dirs), key=len, reverse=True):
        text = text.replace(f"{folder}{os.sep}", "").replace(folder, Path(folder).name)
    return text


def section(number: int, rows: pd.DataFrame, name: str, page: Path, drawn: Mapping[Path, Picture]) -> Section:
    """The section of a run.

    Args:
        number: its place among the runs.
        rows: its measurements, as collect gives them.
        name: what it is called.
        page: the page's path.
        drawn: the pictures that go into the page.
    """
    first = records(rows)[0]
    folder = Path(str(first["run"]))
    stored, environment = _read(folder / "config.json"), _read(folder / "environment.json")
    metric = main_metric(rows)
    value = float(rows.loc[rows["metric"] == metric, "value"].iloc[0])
    files = panel_files(folder)
    return Section(
        number=number,
        id=f"run-{number + 1}",
        name=name,
        link=link(folder, page),
        headline=f"{metric_label(str(first['task']), metric)} {value:.4g}",
        facts=_facts(first),
        command=command(folder, stored, environment, page),
        note=_note(stored, environment),
        metrics="\n".join(f"{m} = {v!r}" for m, v in zip(rows["metric"], rows["value"].tolist(), strict=True)),
        configuration="\n".join(f"{k} = {json.dumps(v)}" for k, v in flatten(stored.get("config", {})).items()),
        environment=json.dumps(environment, indent=2),
        pictures=[_shown(file, page, drawn[file]) for file in files if file in drawn],
        more_pictures=[_shown(file, page) for file in files if file not in drawn],
    )


def command(folder: Path, stored: Mapping[str, Any], environment: Mapping[str, Any], page: Path) -> str:
    """What makes the run again in a new folder, with as many processes and threads as it had.

    Paths are as the run was given them, so the place to type it is where the run was started.
    """
    given = [str(part) for part in environment.get("command") or []]
    where = next((after for part, after in itertools.pairwise(given) if part == "--run-dir"), "")
    where = where or next((part.partition("=")[2] for part in given if part.startswith("--run-dir=")), "")
    where = where or os.path.relpath(folder.resolve(), page.resolve().parent)
    ranks = int(environment.get("world_size") or 1)
    start = ["python"] if ranks == 1 else ["torchrun", "--standalone", "--nproc-per-node", str(ranks)]
    threads = environment.get("num_threads")
    if threads and str(environment.get("device", "")).startswith("cpu"):
        start.insert(0, f"OMP_NUM_THREADS={threads}")
    parts = [*start, "-m", str(stored.get("package")), f"{where}/config.json", "--run-dir", f"{where}-again"]
    return shlex.join(parts)


def _note(stored: Mapping[str, Any], environment: Mapping[str, Any]) -> str:
    commit, start = environment.get("git_commit"), stored.get("config", {}).get("init", "none")
    parts = [f"Made at commit {commit}." if commit else "", "" if start == "none" else f"Starts from {start}."]
    return " ".join(filter(None, parts))


def _facts(first: Mapping[str, Any]) -> list[tuple[str, str]]:
    memory, rate = first["peak_memory_bytes"], first["images_per_second"]
    found = {
        "task": first["task"],
        "model": first["model"],
        "recipe": f"{first['recipe']} {first['variant']}",
        "method": start({**first, "target": ""}),
        "seed": first["seed"],
        "data": first["dataset"],
        "framework": first["framework"],
        "hours": f"{first['seconds'] / 3600:.3f}",
        "images/s": "" if pd.isna(rate) else f"{rate:.4g}",
        "peak memory, GB": "" if pd.isna(memory) else f"{memory / 1e9:.2f}",
        "device": f"{first['devices']} × {first['device']}" if first["device"] else "",
        "images skipped": first["unreadable"] or "",
        "configuration hash": first["config_hash"],
    }
    return [(name, str(value).strip()) for name, value in found.items() if str(value).strip()]


def _shown(file: Path, page: Path, picture: Picture | None = None) -> Shown:
    if picture is None:
        return Shown(file.name, link(file, page))
    return Shown(file.name, link(file, page), picture.data, picture.width, picture.height)


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError):  # environment.json only describes the run
        return {}
    return values if isinstance(values, dict) else {}
