"""`status`, `logs` and `cancel`: what a person asks about launched runs. Imports nothing heavy: a thousand runs take a
second or two."""

import os
import platform
import shlex
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from benchmarks.progress import progress
from engine.errors import ConfigError
from slurm import record, scheduler
from slurm.record import Record
from slurm.survey import LIVE, RunState, interruptions, last_log_lines, starts_here, survey

ORDER = ("running", "preempted", "pending", "new", "stopped", "cancelled", "failed", "finished")
WIDE = 200  # columns, where the output is not a terminal
NARROW = 120  # below, Slurm's numbers are left out: every command takes the run's name
COLUMNS = ("run", "state", "job", "progress", "loss", "images/s", "left", "interrupted", "why")


def status(runs_dir: Path, names: tuple[str, ...], *, watch: float | None = None) -> int:
    """Print how runs stand; returns 1 if any failed, else 0.

    Args:
        runs_dir: folder of run folders.
        names: of sweeps and runs; all if empty.
        watch: seconds between two looks, until nothing is left in the queue; None to look once.

    Raises:
        ConfigError: a name does not exist, or Slurm does not answer.
    """
    records = record.find(runs_dir, names)
    console = Console(width=None if sys.stdout.isatty() else WIDE)
    states = survey(records)
    if watch is None:
        console.print(_view(states, runs_dir, console.width), highlight=False)
    else:
        with Live(_view(states, runs_dir, console.width, watched=True), console=console, auto_refresh=False) as live:
            while any(state.state in LIVE for state in states):
                time.sleep(watch)
                states = survey(record.find(runs_dir, names))
                live.update(_view(states, runs_dir, console.width, watched=True), refresh=True)
    return int(any(state.state == "failed" for state in states))


def _view(states: Sequence[RunState], runs_dir: Path, width: int, *, watched: bool = False) -> Group:
    """The table, what failed and why, and a line that sums up: the last, or where the rest may overflow, the first."""
    rows = []
    for state in sorted(states, key=lambda each: (ORDER.index(each.state), each.name)):
        moving = state.state in ("running", "preempted", "stopped", "failed")
        numbers = progress(state.record.folder) if moving else ("", "", "", "")
        left = numbers[3] if state.state == "running" else ""
        why = "" if state.state == "failed" else state.reason
        job = state.record.job or ""
        rows.append((state.name, state.state, job, *numbers[:3], left, interruptions(state.record), why))
    failures: list[str] = []
    for state in states:
        if state.state == "failed":
            failures.append(f"{state.name} failed: {state.reason}")
            failures += [f"    {line}" for line in last_log_lines(state.record)]
    # Text: a log may hold what looks like markup
    parts: list[Table | Text] = [
        status_table(rows, str(runs_dir), width),
        *([Text("\n".join(failures))] if failures else []),
    ]
    return Group(*([_summary(states, runs_dir), *parts] if watched else [*parts, _summary(states, runs_dir)]))


def status_table(rows: Sequence[tuple[str, ...]], title: str, width: int) -> Table:
    """Without the columns that are empty; where it is too wide, names and reasons go over several lines, whole."""
    shown = [
        k for k, name in enumerate(COLUMNS) if any(row[k] for row in rows) and not (name == "job" and width < NARROW)
    ]
    folded = ("run", "why") if width < NARROW else ("why",)
    table = Table(title=title)
    for k in shown:
        table.add_column(COLUMNS[k], overflow="fold", no_wrap=COLUMNS[k] not in folded)
    for row in rows:
        table.add_row(*(row[k] for k in shown))
    return table


def _summary(states: Sequence[RunState], runs_dir: Path) -> Text:
    counts, where = Counter(state.state for state in states), shlex.quote(str(runs_dir))
    shown = ", ".join(f"{counts[name]} {name}" for name in ORDER if counts[name])
    lines = [f"{len(states)} runs" + f": {shown}" * bool(shown)]
    if states and counts["finished"] == len(states):
        lines.append(f"the table: python -m results tables {where}")
    if counts["failed"]:
        lines.append(f"again: python -m slurm retry --runs-dir {where}")
    return Text("\n".join(lines))


def logs(runs_dir: Path, name: str, *, rank: int = 0, lines: int | None = None) -> int:
    """Print a run's log: every attempt of its last job, one after another. Returns the exit code.

    Raises:
        ConfigError: there is no such run, or no log yet.
    """
    found = [each for each in record.find(runs_dir, (name,)) if each.name == name]
    if not found:
        raise ConfigError(f"{name} is a sweep; name one of its runs (python -m slurm status {name})")
    path = found[0].log
    if path is not None and rank:
        path = path.with_name(path.name.replace("_0_log.out", f"_{rank}_log.out"))
    if path is None or not path.is_file():
        raise ConfigError(f"{name} has no log yet" + (f": {path} does not exist" if path else ": it was not submitted"))
    print(path, file=sys.stderr)
    text = path.read_text(errors="replace").splitlines()
    print("\n".join(text[-lines:] if lines else text))
    return 0


def cancel(runs_dir: Path, names: tuple[str, ...]) -> int:
    """Cancel what is in the queue or running; running ones save first. Returns the exit code.

    Raises:
        ConfigError: a name does not exist, or Slurm refuses.
    """
    live = [state.record for state in survey(record.find(runs_dir, names)) if state.state in LIVE]
    # What waits first: a sweep would start it in the place of one that ends.
    here = sorted((each for each in live if each.is_local), key=lambda each: not each.waits_here)
    numbers = [each.job for each in live if each.job and each not in here]
    if numbers:
        scheduler.cancel(numbers)
    for each in here:
        _cancel_here(each)
    if not numbers and not here:
        print("nothing to cancel: none of these is in the queue or running")
        return 0
    print(f"{len(numbers) + len(here)} runs cancelled; python -m slurm launch starts them again where they stood")
    return 0


def _cancel_here(each: Record) -> None:
    """Take a run out of its --local sweep, or ask submitit's controller on this machine to pass a stop signal on."""
    if each.waits_here:
        record.append(each.folder, "dropped")
        return
    assert each.job is not None and each.submitted is not None
    if each.submitted.get("host") != platform.node():
        raise ConfigError(f"{each.name} runs on {each.submitted.get('host')}: cancel it there")
    if not starts_here(each):  # its number may be another process's by now
        raise ConfigError(f"{each.name} was started by hand: run.lock in its folder names the process to stop")
    os.kill(int(each.job.removeprefix("local-")), signal.SIGTERM)
