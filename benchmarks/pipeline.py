"""Run a graph of runs: skip what is finished, continue what was interrupted, stop cleanly."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from benchmarks import progress
from benchmarks.graph import State, advance, exit_code
from benchmarks.plan import Stage, lay_out
from engine.cores import allowed_cores
from engine.errors import STOPPED_EXIT_CODE

log = logging.getLogger("mim")
POLL_S = 0.1
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)


@dataclass
class Outcome:
    """How the graph ended: the state of every stage by name, and the exit code that sums them up."""

    states: dict[str, State] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """0: all finished; 75: stopped on request; 1: something failed."""
        return exit_code(self.states)


def run_stages(
    stages: Sequence[Stage],
    runs_dir: Path,
    *,
    num_devices: int = 1,
    parallel: int = 1,
    children: "Children | None" = None,
    finished: Callable[[Stage], None] = lambda stage: None,
) -> Outcome:
    """Run every stage whose needs are finished.

    Args:
        stages: in an order that respects their needs.
        runs_dir: folder of run folders.
        num_devices: processes per run; more than one go through torchrun.
        parallel: how many runs at once; with several, each keeps to its share of the processor cores.
        children: the processes to run in, instead of one for each run.
        finished: called with each stage when it has finished.

    Raises:
        ConfigError: a run folder holds another configuration.
    """
    lay_out(stages, runs_dir)
    outcome = Outcome({stage.name: "finished" if is_finished(stage, runs_dir) else "pending" for stage in stages})
    by_name, needs = {stage.name: stage for stage in stages}, {stage.name: stage.needs for stage in stages}
    states, children = outcome.states, children or Children(parallel)
    with children.forwarding_signals(), _view(stages, runs_dir, outcome) as show:
        while True:
            changes = advance(needs, states, room=children.room(), stopping=children.stopping)
            states |= changes
            for name in (name for name, state in changes.items() if state == "running"):
                children.start(name, _command(by_name[name], runs_dir, num_devices), runs_dir / name)
            show()
            if not children.running:
                return outcome
            time.sleep(POLL_S)
            for name, code in children.ended():
                states[name] = _state_after(runs_dir / name, code, stopping=children.stopping)
                if states[name] == "finished":
                    finished(by_name[name])


def is_finished(stage: Stage, runs_dir: Path) -> bool:
    """Whether a stage's run folder holds the result of exactly its configuration."""
    return progress.is_finished(stage.folder(runs_dir))


def failure(stage: Stage, runs_dir: Path) -> str:
    """Why a stage's run stopped, in one line."""
    try:
        return str(json.loads((stage.folder(runs_dir) / "error.json").read_text())["message"]).splitlines()[0]
    except (OSError, ValueError, KeyError, IndexError):
        return f"no reason recorded; see {stage.folder(runs_dir) / 'output.log'}"


def _state_after(folder: Path, code: int, *, stopping: bool) -> State:
    if code == 0 and progress.is_finished(folder):
        return "finished"
    try:  # torchrun has exit codes of its own; the run's is in its folder
        recorded = json.loads((folder / "error.json").read_text())["exit_code"]
    except (OSError, ValueError, KeyError):
        recorded = code
    return "stopped" if stopping or STOPPED_EXIT_CODE in (code, recorded) else "failed"


def _command(stage: Stage, runs_dir: Path, num_devices: int) -> list[str]:
    folder = stage.folder(runs_dir)
    launcher = [sys.executable]
    if num_devices > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num_devices}"]
    return [*launcher, "-m", stage.package, str(folder / "config.json"), "--run-dir", str(folder), "--resume"]


def threads_of_each(parallel: int) -> int | None:
    """The threads of each of several runs at once, its share of the cores; None where a run decides by itself."""
    shared = parallel > 1 and "OMP_NUM_THREADS" not in os.environ
    return max(allowed_cores() // parallel, 1) if shared else None


class Children:
    """The processes of the running stages; stop signals are passed on to them, and they save before they leave.

    Args:
        parallel: how many at most.
        threads: of each; by default its share of the processor's cores where there are several.
    """

    def __init__(self, parallel: int, threads: int | None = None) -> None:
        self.stopping = False
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self._parallel = parallel
        threads = threads_of_each(parallel) if threads is None else threads
        self._environment = os.environ | ({"OMP_NUM_THREADS": str(threads)} if threads else {})

    @contextmanager
    def forwarding_signals(self) -> Iterator[None]:
        """Pass signals on in this block."""
        previous = {number: signal.signal(number, self._forward) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _forward(self, number: int, frame: FrameType | None) -> None:
        again = self.stopping and number == signal.SIGINT
        self.stopping = True
        for process in list(self.running.values()):
            process.kill() if again else process.terminate()  # a second Ctrl-C does not wait for the save

    def room(self) -> int:
        """How many more may start."""
        return self._parallel - len(self.running)

    def start(self, name: str, command: list[str], folder: Path) -> None:
        """Start a stage; its output goes to its run folder."""
        # A session of its own: a Ctrl-C on the terminal reaches it once, through us.
        with (folder / "output.log").open("ab") as output:
            self.running[name] = subprocess.Popen(
                command,
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                env=self._environment,
            )

    def ended(self) -> Iterator[tuple[str, int]]:
        """The stages that ended since the last call, with their exit codes."""
        for name, process in list(self.running.items()):
            if (code := process.poll()) is not None:
                del self.running[name]
                yield name, code


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
