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
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from benchmarks.speed.gpu.rows import COLUMNS, read, sentence
from engine.errors import ConfigError

PARTS = {
    "numbers": 110,
    "runs": 160,
    "tests": 90,
    "speed": 75,
    "memory": 45,
    "trace": 75,
    "compile": 240,
    "finetune": 75,
}
"""Name -> most seconds it may take, in the order in which they are worth having. What each does: gpu/<name>.py."""

WORTH_STARTING_S = 20
PATIENCE_ON_CPU = 3  # times as long


@dataclasses.dataclass(frozen=True, kw_only=True)
class GpuCheck:
    """Check and measure this machine's GPU: is everything computed right, how fast, where does the time go.

    Parts, in this order: numbers (losses against float64, precisions, layouts, batch norm over ranks), runs (each
    task's demo, exact resume, the stops for NaN and memory), tests (pytest -m gpu: published losses), speed (images/s
    beside the bare encoder, share of matrix rate and memory bandwidth), memory (the largest batch), trace (waiting for
    data, kernels, synchronisations), compile (torch.compile), finetune (RSB A3 beside timm's own loop). A part that
    fails or runs out of time does not keep the next ones from running. MIM_DEVICE=cpu runs all of it small, on a CPU.
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
        for name in (name for name in PARTS if name in options.parts):
            left = options.budget_seconds - (time.monotonic() - started)
            if left < WORTH_STARTING_S:
                report.extend([_row(name, "not run", note=f"{left:.0f} s of the budget were left")])
                continue
            limit = PARTS[name] * (PATIENCE_ON_CPU if os.environ.get("MIM_DEVICE") == "cpu" else 1)
            report.extend(run_part(name, min(limit, left), Path(scratch), log))
    print(f"\n{report.table()}\n\nwritten: {options.output}/gpu-check.{{json,csv,md,log}}")
    return int(any(row["ok"] is False for row in report.rows))


def run_part(name: str, seconds: float, scratch: Path, log: IO[str]) -> list[dict[str, Any]]:
    """Run one part for at most that long; returns what it found, and a line about its end.

    Args:
        name: of PARTS.
        seconds: after which it is killed with all that it started.
        scratch: a folder for its findings and files.
        log: gets what it prints.
    """
    folder = scratch / name
    folder.mkdir()
    started = time.monotonic()
    print(f"{name}: at most {seconds:.0f} s", flush=True)
    command = [sys.executable, "-m", "benchmarks.speed.gpu.part", name, str(folder), str(seconds)]
    # Its own session: at the limit every process that it started goes with it.
    process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
    note = ""
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        note = f"killed after {seconds:.0f} s, what it had found until then is above"
    finally:
        _kill(process)
    took = time.monotonic() - started
    rows = read(folder / "rows.jsonl")
    shutil.rmtree(folder)
    good = not note and process.returncode == 0
    if not good:
        note = note or f"exit code {process.returncode}, see gpu-check.log"
    rows.append(_row(name, "whole part", round(took, 1), "s", ok=None if good else False, note=note))
    for row in rows:
        print(sentence(row), flush=True)
    return rows


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


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
