"""Whole runs as a user starts them: each task's demo, exact resume, and the stop for NaN."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.scenes.demo_data import write_demo_data
from benchmarks.speed.gpu.part import TINY, Part
from suite_tasks import DATA_SETS, find, of_kind

EVERY = 10  # steps between the checkpoints of the runs that are interrupted


@dataclass
class Started:
    """A run in a process of its own."""

    process: subprocess.Popen[bytes]
    folder: Path
    log: Path

    def end(self, seconds: float) -> int:
        """Its exit code, once it has ended."""
        return self.process.wait(max(seconds, 1))

    def said(self) -> str:
        """The last line it printed."""
        lines = self.log.read_text().strip().splitlines() or [""]
        return lines[-1]


def run(part: Part) -> None:
    """All at once: together they fit on the card. Then what follows from it."""
    data = write_demo_data(part.folder / "data", num_train=64, num_val=10, num_workers=1 if part.small else 8)
    demos = _start_demos(part, data)
    undisturbed, ended, killed = (_start_exact(part, data, name) for name in ("whole", "ended", "killed"))
    diverging = start(part, data, "pretrain", "nan", *quick(part), "--precision", "float32", *_HUGE_RATE)
    with part.record.attempt("exact resume"):
        _exact(part, data, undisturbed, [(ended, signal.SIGTERM), (killed, signal.SIGKILL)])
    with part.record.attempt("NaN"):
        part.record.equal("loss that is not finite: exit code", diverging.end(part.left()), 4, diverging.said())
        part.record.equal("its diagnosis", (diverging.folder / "diverged" / "report.json").is_file(), True)
    for package, started in demos.items():
        with part.record.attempt(f"{package} demo"):
            part.record.equal(f"{package} demo: exit code", started.end(part.left()), 0, started.said())


_HUGE_RATE = ("--optimizer.base-learning-rate", "1e30")


def quick(part: Part) -> tuple[str, ...]:
    """The options of a network that is soon there."""
    return ("--model", TINY if part.small else "r50", "--data.num-workers", "0" if part.small else "2")


def start(part: Part, data: Path, package: str, name: str, *options: str) -> Started:
    """A package's demo on the demo data, `name` its run folder in the part's.

    Args:
        part: whose folder it is.
        data: written by write_demo_data.
        package: of a task.
        name: of the run folder, and of the file of what it prints.
        options: more of the command line.
    """
    root = data / DATA_SETS[find(package).data]
    folder, log = part.folder / name, part.folder / f"{name}.log"
    command = [sys.executable, "-m", package, "demo", "--run-dir", str(folder), "--data.root", str(root), *options]
    environment = {**os.environ, "MIM_TRACKERS": "", "OMP_NUM_THREADS": "1"}
    with log.open("ab") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment)
    return Started(process, folder, log)


def _start_demos(part: Part, data: Path) -> dict[str, Started]:
    demos = {}
    for task in (*of_kind("pretraining"), *of_kind("finetuning")):
        missing = [module for module in task.needs if importlib.util.find_spec(module) is None]
        if missing:
            part.record.add(f"{task.name} demo", note=f"not installed here: {', '.join(missing)}")
        else:
            demos[task.name] = start(part, data, task.name, task.name, *quick(part), *task.short)
    return demos


def _start_exact(part: Part, data: Path, name: str, *more: str) -> Started:
    epochs = "15" if part.small else "60"  # long enough to be met on its way
    options = ("--deterministic", "--epochs", epochs, "--checkpoint-every", str(EVERY), "--visualize-every-epochs", "0")
    return start(part, data, "pretrain", name, *quick(part), *options, *more)


def _exact(part: Part, data: Path, undisturbed: Started, interrupted: list[tuple[Started, signal.Signals]]) -> None:
    again, waiting = [], list(interrupted)
    while waiting:
        waiting = [(started, number) for started, number in waiting if not _interrupt(started, number)]
        time.sleep(0.005)
    for started, number in interrupted:
        code = started.end(part.left())
        part.record.equal(f"{number.name}: exit code", code, 75 if number == signal.SIGTERM else -9, started.said())
        again.append((number, _start_exact(part, data, started.folder.name, "--resume")))
    part.record.equal("undisturbed run: exit code", undisturbed.end(part.left()), 0, undisturbed.said())
    expected = _result(undisturbed.folder)
    for number, started in again:
        part.record.equal(f"resumed after {number.name}: exit code", started.end(part.left()), 0, started.said())
        found = _result(started.folder)
        different = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
        part.record.equal(f"resumed after {number.name}: files that differ", len(different), 0, " ".join(different))


def _interrupt(started: Started, number: signal.Signals) -> bool:
    """Send the signal if the run has saved a step of its own, not only its beginning; whether it was sent."""
    if started.process.poll() is not None:
        raise RuntimeError(f"the run ended before it could be interrupted: {started.said()}")
    if not (started.folder / "checkpoints" / f"{EVERY:08d}").exists():
        return False
    started.process.send_signal(number)
    return True


def _result(folder: Path) -> dict[str, bytes]:
    """What must be the same bytes."""
    newest = max((folder / "checkpoints").glob("[0-9]*"))
    files = [*newest.iterdir(), folder / "metrics.jsonl", folder / "backbone.safetensors"]
    return {path.name: path.read_bytes() for path in files}
