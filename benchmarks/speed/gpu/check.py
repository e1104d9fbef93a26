"""`python -m benchmarks gpu-check`: the parts one after another, most important first, each in a process of its own."""

import contextlib
import csv
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from benchmarks.speed.gpu.rows import COLUMNS, read, sentence
from engine.errors import ConfigError

PARTS = {
    "numbers": 140,
    "runs": 140,
    "tests": 140,
    "speed": 75,
    "memory": 90,
    "trace": 70,
    "finetune": 75,
    "compile": 240,
}
"""Name -> most seconds it may take, in the order in which they are worth having. What each does: gpu/<name>.py."""

TOGETHER = ("numbers", "runs", "tests")  # at once: nothing in them is timed, and no one of them fills card or processor

WORTH_STARTING_S = 20
PATIENCE_ON_CPU = 3  # times as long


@dataclasses.dataclass(frozen=True, kw_only=True)
class GpuCheck:
    """Check and measure this machine's GPU: is everything computed right, how fast, where does the time go.

    Parts, the first three at once: numbers (losses against float64, precisions, layouts, batch norm over ranks), runs
    (each task's demo, exact resume, the stop for NaN), tests (pytest -m gpu: published losses), speed (images/s beside
    the bare encoder, share of matrix rate and memory bandwidth), memory (the stop when it is full, the largest batch),
    trace (waiting for data, kernels, synchronisations), finetune (RSB A3 beside timm's own loop), compile
    (torch.compile, as many networks as there is time for). A part that fails or runs out of time does not keep the next
    ones from running. MIM_DEVICE=cpu runs all of it small, on a CPU.
    """

    output: Path = Path("gpu-check")
    """Folder for gpu-check.json, .csv, .md and .log."""
    parts: tuple[str, ...] = tuple(PARTS)
    """Which, whatever the order they are given in."""
    budget_seconds: float = 480
    """Of all parts together; parts that it leaves no time for are listed as not run."""


def run_check(options: GpuCheck) -> int:
    """Run the parts, write the four files after each of them; returns 1 if any finding is not as it should be.

    Raises:
        ConfigError: there is no such part.
    """
    unknown = [name for name in options.parts if name not in PARTS]
    if unknown:
        raise ConfigError(f"--parts {unknown[0]}: there are {', '.join(PARTS)}")
    options.output.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    report = Report(options.output, f"{datetime.now(UTC):%Y-%m-%d %H:%M}")
    with tempfile.TemporaryDirectory() as scratch, (options.output / "gpu-check.log").open("w") as log:
        for names in _groups(options.parts):
            left = options.budget_seconds - (time.monotonic() - started)
            if left < WORTH_STARTING_S:
                note = f"{left:.0f} s of the budget were left"
                report.extend([_row(name, "not run", note=note) for name in names])
            else:
                report.extend(run_together(names, left, Path(scratch), log))
    print(f"\n{report.table()}\n\nwritten: {options.output}/gpu-check.{{json,csv,md,log}}")
    return int(any(row["ok"] is False for row in report.rows))


def _groups(parts: Sequence[str]) -> list[list[str]]:
    """The parts asked for, in the order of PARTS, those that may run at once in one group."""
    wanted = [name for name in PARTS if name in parts]
    together = [name for name in wanted if name in TOGETHER]
    return [group for group in (together, *([name] for name in wanted if name not in TOGETHER)) if group]


def run_together(names: Sequence[str], seconds: float, scratch: Path, log: IO[str]) -> list[dict[str, Any]]:
    """Run parts at once, each for at most its own limit; returns what they found, and a line about each one's end.

    Args:
        names: of PARTS.
        seconds: after which all are killed, with all that they started.
        scratch: a folder for their findings and files.
        log: gets what they print.
    """
    patience = PATIENCE_ON_CPU if os.environ.get("MIM_DEVICE") == "cpu" else 1
    started: list[_Started] = []
    try:
        for name in names:
            started.append(_Started(name, min(PARTS[name] * patience, seconds), scratch, log))
        while [part for part in started if part.is_running()]:
            time.sleep(0.1)
        return [row for part in started for row in part.findings()]
    finally:
        for part in started:
            part.kill()


class _Started:
    """A part in a process of its own.

    Args: as of run_together.
    """

    def __init__(self, name: str, seconds: float, scratch: Path, log: IO[str]) -> None:
        self.name, self.seconds, self.folder = name, seconds, scratch / name
        self.folder.mkdir()
        print(f"{name}: at most {seconds:.0f} s", flush=True)
        command = [sys.executable, "-m", "benchmarks.speed.gpu.part", name, str(self.folder), str(seconds)]
        # Its own session: at the limit every process that it started goes with it.
        self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        self.started, self.took, self.note = time.monotonic(), 0.0, ""

    def is_running(self) -> bool:
        """Whether it still is; at its limit it is killed."""
        if self.process.returncode is None:
            self.took = time.monotonic() - self.started
            if self.process.poll() is None and self.took >= self.seconds:
                self.note = f"killed after {self.seconds:.0f} s, what it had found until then is above"
                self.kill()
        return self.process.returncode is None

    def findings(self) -> list[dict[str, Any]]:
        """What it found, and a line about its end; printed too."""
        self.kill()
        rows = read(self.folder / "rows.jsonl")
        shutil.rmtree(self.folder)
        good = not self.note and self.process.returncode == 0
        if not good:
            self.note = self.note or f"exit code {self.process.returncode}, see gpu-check.log"
        rows.append(_row(self.name, "whole part", round(self.took, 1), "s", ok=None if good else False, note=self.note))
        for row in rows:
            print(sentence(row), flush=True)
        return rows

    def kill(self) -> None:
        """It and its children, if they are still there."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def _row(part: str, check: str, value: Any = None, unit: str = "", **more: Any) -> dict[str, Any]:
    return {**dict.fromkeys(COLUMNS), "part": part, "check": check, "value": value, "unit": unit, **more}


class Report:
    """The findings of all parts until now, and their files.

    Args:
        folder: for the files; exists.
        date: of the beginning.
    """

    def __init__(self, folder: Path, date: str) -> None:
        self.folder, self.date = folder, date
        self.rows: list[dict[str, Any]] = []

    def extend(self, rows: list[dict[str, Any]]) -> None:
        """Add a part's findings and write all files again."""
        self.rows += rows
        base = self.folder / "gpu-check"
        record = {"date": self.date, "command": sys.argv[1:], "rows": self.rows}
        base.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")
        with base.with_suffix(".csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(self.rows)
        base.with_suffix(".md").write_text(self.table() + "\n")

    def table(self) -> str:
        """Markdown: what failed first, then everything."""
        bad = [row for row in self.rows if row["ok"] is False]
        good = sum(row["ok"] is True for row in self.rows)
        lines = [f"{self.date}: {good} checks good, {len(bad)} failed", *(f"- {sentence(row)}" for row in bad), ""]
        lines += ["| part | what | value | | expected | |", "| --- | --- | --- | --- | --- | --- |"]
        for row in self.rows:
            value = "" if row["value"] is None else row["value"]
            shown = f"{value:.4g}" if isinstance(value, float) else str(value)
            verdict = {True: "ok", False: "FAILED", None: ""}[row["ok"]]
            note = (row["note"] or "").replace("|", "/")
            cells = (row["part"], row["check"], shown, row["unit"] or "", row["expected"] or "", f"{verdict} {note}")
            lines.append("| " + " | ".join(cell.strip() for cell in cells) + " |")
        return "\n".join(lines)
