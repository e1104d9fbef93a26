"""Run a graph of runs one after another: skip what is finished, continue what was interrupted, stop cleanly."""

import json
import logging
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from benchmarks import progress
from benchmarks.plan import Stage, lay_out
from engine.errors import STOPPED_EXIT_CODE

log = logging.getLogger("mim")
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)


@dataclass
class Outcome:
    """How the graph ended: the state of every stage by name, and the exit code that sums them up."""

    states: dict[str, str] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """0: all finished; 75: stopped on request; 1: something failed."""
        if "stopped" in self.states.values():
            return STOPPED_EXIT_CODE
        return 0 if set(self.states.values()) <= {"finished"} else 1


def run_stages(stages: Sequence[Stage], runs_dir: Path, *, num_devices: int = 1) -> Outcome:
    """Run every stage whose needs are finished, in order.

    Args:
        stages: in an order that respects their needs.
        runs_dir: folder of run folders.
        num_devices: processes per run; more than one go through torchrun.

    Raises:
        ConfigError: a run folder holds another configuration.
    """
    lay_out(stages, runs_dir)
    outcome = Outcome({stage.name: "finished" if is_finished(stage, runs_dir) else "pending" for stage in stages})
    child = _Child()
    with child.forwarding_signals(), _view(stages, runs_dir, outcome) as show:
        for stage in stages:
            if outcome.states[stage.name] == "finished":
                continue
            if child.stopping:
                outcome.states[stage.name] = "stopped"
            elif any(outcome.states[need] != "finished" for need in stage.needs):
                outcome.states[stage.name] = "blocked"
            else:
                outcome.states[stage.name] = "running"
                code = child.run(_command(stage, runs_dir, num_devices), stage.folder(runs_dir), show)
                outcome.states[stage.name] = _state_after(stage, runs_dir, code)
            show()
    return outcome


def is_finished(stage: Stage, runs_dir: Path) -> bool:
    """Whether a stage's run folder holds the result of exactly its configuration."""
    return progress.is_finished(stage.folder(runs_dir))


def failure(stage: Stage, runs_dir: Path) -> str:
    """Why a stage's run stopped, in one line."""
    try:
        return str(json.loads((stage.folder(runs_dir) / "error.json").read_text())["message"]).splitlines()[0]
    except (OSError, ValueError, KeyError, IndexError):
        return f"no reason recorded; see {stage.folder(runs_dir) / 'output.log'}"


def _state_after(stage: Stage, runs_dir: Path, code: int) -> str:
    if code == 0 and is_finished(stage, runs_dir):
        return "finished"
    return "stopped" if code == STOPPED_EXIT_CODE else "failed"


def _command(stage: Stage, runs_dir: Path, num_devices: int) -> list[str]:
    folder = stage.folder(runs_dir)
    launcher = [sys.executable]
    if num_devices > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num_devices}"]
    return [*launcher, "-m", stage.package, str(folder / "config.json"), "--run-dir", str(folder), "--resume"]


class _Child:
    """The process of the current stage; stop signals are passed on to it, and it saves before it leaves."""

    def __init__(self) -> None:
        self.stopping = False
        self._process: subprocess.Popen[bytes] | None = None

    @contextmanager
    def forwarding_signals(self) -> Iterator[None]:
        previous = {number: signal.signal(number, self._forward) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _forward(self, number: int, frame: FrameType | None) -> None:
        if self.stopping and number == signal.SIGINT and self._process is not None:
            self._process.kill()  # a second Ctrl-C does not wait for the save
            return
        self.stopping = True
        if self._process is not None:
            self._process.terminate()

    def run(self, command: list[str], folder: Path, show: Any) -> int:
        """Run to the end; the output goes to the run folder. Returns the exit code."""
        # A session of its own: a Ctrl-C on the terminal reaches it once, through us.
        with (folder / "output.log").open("ab") as output:
            self._process = subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True
            )
            if self.stopping:
                self._process.terminate()
            while self._process.poll() is None:
                show()
                time.sleep(0.5)
        code, self._process = self._process.returncode, None
        return code


@contextmanager
def _view(stages: Sequence[Stage], runs_dir: Path, outcome: Outcome) -> Iterator[Any]:
    """One live table of all stages on a terminal; elsewhere a line for each change of state."""
    if sys.stdout.isatty():
        with Live(console=Console(), refresh_per_second=2) as live:
            yield lambda: live.update(_table(stages, runs_dir, outcome))
            live.update(_table(stages, runs_dir, outcome))
        return
    said: dict[str, str] = {}

    def say() -> None:
        for name, state in outcome.states.items():
            if said.get(name, "pending") != state:
                said[name] = state
                print(f"{time.strftime('%H:%M:%S')}  {name}: {state}", flush=True)

    say()
    yield say
    say()


def _table(stages: Sequence[Stage], runs_dir: Path, outcome: Outcome) -> Table:
    table = Table("run", "state", "progress", "loss", "images/s", "left", title=str(runs_dir))
    for stage in stages:
        state = outcome.states[stage.name]
        table.add_row(stage.name, state, *progress.progress(stage.folder(runs_dir)))
    return table
