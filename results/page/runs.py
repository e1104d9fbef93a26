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
from results import metrics
from results.page.pictures import Picture, panel_files
from results.runs.runfolder import FinishedRun
from results.tables.text import records, settings, start
from suite_tasks import find


@dataclass(frozen=True)
class Measured:
    """A run of the page, and one of its rows for what all of them say."""

    run: FinishedRun
    row: dict[str, Any]

    @property
    def main(self) -> str:
        """The metric that its task is judged by."""
        return metrics.headline(self.run.task, list(self.run.metrics))


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
    return quote(os.fsencode(Path(os.path.relpath(target.resolve(), page.resolve().parent)).as_posix()))


def called(run_dir: Path, folders: Sequence[Path]) -> str:
    """What a run is called: its path below the folder it was found in, which stands before it if there are several."""
    folder = next((folder for folder in folders if run_dir.is_relative_to(folder)), run_dir)
    below = run_dir.relative_to(folder)
    if below == Path():
        return run_dir.resolve().name
    return below.as_posix() if len(folders) == 1 else f"{folder.resolve().name}/{below.as_posix()}"


def without_folders(text: str, folders: Sequence[Path]) -> str:
    """A reason without the place of the folders, which says nothing to who reads the page elsewhere."""
    for folder in sorted(map(str, folders), key=len, reverse=True):
        text = text if folder == "." else text.replace(f"{folder}{os.sep}", "")
    return text


def measured_runs(rows: pd.DataFrame, runs: Mapping[str, FinishedRun]) -> list[Measured]:
    """Every run in rows of collect, in order.

    Args:
        rows: of collect.
        runs: of a Collection.
    """
    return [Measured(runs[str(row["run"])], row) for row in records(rows.drop_duplicates("run"))]


def section(number: int, run: Measured, name: str, page: Path, drawn: Mapping[Path, Picture]) -> Section:
    """The section of a run.

    Args:
        number: its place among the runs.
        run: what it measured.
        name: what it is called.
        page: the page's path.
        drawn: the pictures that go into the page.
    """
    folder, environment = run.run.run_dir, run.run.environment
    files = panel_files(folder)
    return Section(
        number=number,
        id=f"run-{number + 1}",
        name=name,
        link=link(folder, page),
        headline=f"{metrics.label(run.main)} {run.run.metrics[run.main]:.4g}",
        facts=_facts(run.row),
        command=command(folder, run.run.task, environment, page),
        note=_note(run.run),
        metrics="\n".join(f"{metric} = {value!r}" for metric, value in run.run.metrics.items()),
        configuration="\n".join(f"{k} = {json.dumps(v)}" for k, v in flatten(run.run.config).items()),
        environment=json.dumps(environment, indent=2),
        pictures=[_shown(file, page, drawn[file]) for file in files if file in drawn],
        more_pictures=[_shown(file, page) for file in files if file not in drawn],
    )


def command(folder: Path, task: str, environment: Mapping[str, Any], page: Path) -> str:
    """What makes the run again in a new folder, with as many processes and threads as it had.

    Paths are as the run was given them, so the place to type it is where the run was started.
    """
    command_line, ranks = environment.get("command"), environment.get("world_size")
    given = [str(part) for part in command_line] if isinstance(command_line, list) else []
    where = _value(given, "--run-dir") or _below(
        folder.resolve(), _value(given, "--runs-dir") or _value(given, "--out")
    )
    where = where or os.path.relpath(folder.resolve(), page.resolve().parent)
    start = ["python"] if ranks in (1, None) else ["torchrun", "--standalone", "--nproc-per-node", str(ranks)]
    threads = environment.get("num_threads")
    if threads and str(environment.get("device", "")).startswith("cpu"):
        start.insert(0, f"OMP_NUM_THREADS={threads}")
    flag = find(task).folder_flag
    target = Path(where) if flag == "--run-dir" else Path(where).parent
    again = target if target.name else folder.resolve().parent.name
    return shlex.join([*start, "-m", task, f"{where}/config.json", flag, f"{again}-again"])


def _value(given: Sequence[str], flag: str) -> str:
    """What a command line says after a flag, "" without it."""
    after = next((after for part, after in itertools.pairwise(given) if part == flag), "")
    return after or next((part.partition("=")[2] for part in given if part.startswith(f"{flag}=")), "")


def _below(folder: Path, given: str) -> str:
    """A folder by the path that was given of one above it, "" where it does not lie below one of that name."""
    parts, wanted = folder.parts, Path(given).parts
    places = [place for place in range(len(parts)) if wanted and parts[place : place + len(wanted)] == wanted]
    return Path(*parts[places[-1] :]).as_posix() if places else ""


def _note(run: FinishedRun) -> str:
    commit, start = run.described("git_commit", str), run.config.get("init", "none")
    parts = [f"Made at commit {commit}." if commit else "", "" if start == "none" else f"Starts from {start}."]
    return " ".join(filter(None, (*parts, run.remark)))


def _facts(first: Mapping[str, Any]) -> list[tuple[str, str]]:
    memory, rate = first["peak_memory_bytes"], first["images_per_second"]
    found = {
        "task": first["task"],
        "model": first["model"],
        "recipe": f"{first['recipe']} {settings(first['variant'])}",
        "method": start(first),
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
