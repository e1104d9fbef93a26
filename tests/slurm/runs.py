"""Tiny runs for the tests, and waiting for what becomes of them."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine.run.open import prepare
from slurm import record
from slurm.arrays import JobRun
from slurm.resources import Resources
from slurm.submit import submit
from slurm.survey import RunState, survey
from tests.engine.tiny_task import TinyConfig, TinyData

PACKAGE = "tests.slurm.tiny"
PATIENCE_S = 300  # a machine may be busy with other things; what is waited for takes seconds
CPU = Resources(gpus_per_node=0, time=1.0)


def tiny_run(
    folder: Path, *, needs: tuple[str, ...] = (), sweep: str = "tiny", num_workers: int = 0, **config
) -> JobRun:
    """A prepared folder, listed in a sweep."""
    prepare(folder, TinyConfig(data=TinyData(num_workers=num_workers), **config), package=PACKAGE, recipe="tiny")
    record.append(folder, "listed", sweep=sweep, needs=needs)
    return JobRun(folder, PACKAGE, needs=needs, num_workers=num_workers)


def submit_tiny(runs: list[JobRun], resources: Resources = CPU) -> None:
    submit(runs, resources, runs_dir=runs[0].folder.parent, label="tiny", queued={})


def state(run: JobRun) -> RunState:
    return survey([record.read(run.folder)])[0]


def events(run: JobRun) -> list[str]:
    """What the jobs of the last submission said, in order."""
    return [event["event"] for event in record.read(run.folder).events]


def last_step(run: JobRun) -> int:
    path = run.folder / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return json.loads(lines[-1])["step"] if lines else -1


def let_go(*runs: JobRun, step: int = 99) -> None:
    """Let runs pass where their `hold` keeps them (tests/engine/tiny_task.py), up to a step."""
    for run in runs:
        run.folder.with_name(f"{run.name}.go").write_text(str(step))


def wait_for_step(run: JobRun, step: int) -> None:
    """Until a run that is held in the next step has done this one."""
    wait_for(lambda: last_step(run) >= step, f"step {step}", run)


def wait_for(condition: Callable[[], Any], what: str, run: JobRun | None = None, seconds: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            log = record.read(run.folder).log if run else None
            said = log.read_text()[-3000:] if log and log.exists() else ""
            raise AssertionError(f"not within {seconds:.0f} s: {what} {events(run) if run else ''}\n{said}")
        time.sleep(0.1)


def wait_for_end(*runs: JobRun) -> None:
    for run in runs:
        wait_for(lambda run=run: (run.folder / "finished.json").exists(), f"{run.name} finished", run)


def job(run: JobRun) -> str:
    number = record.read(run.folder).job
    assert number is not None
    return number
