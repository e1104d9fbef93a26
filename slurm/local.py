"""The same job objects on this machine, through submitit's local executor, which knows no dependencies and no limit on
how many run at once: both are kept here."""

import logging
import os
import platform
import signal
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import submitit
import torch
from submitit.helpers import environment_variables

from benchmarks.graph import State, advance, exit_code
from benchmarks.progress import is_finished
from engine.errors import ConfigError
from engine.run import lock
from slurm import record
from slurm.arrays import JobRun
from slurm.job import RunJob
from slurm.resources import Resources
from slurm.submit import PATIENT_PYTHON, ROOT, ignoring_signals, note_submission

log = logging.getLogger("mim")
POLL_S = 0.2
MOST_STARTS = 1000  # of a run that is interrupted again and again


def line_up(runs: Sequence[JobRun]) -> None:
    """Say in the folders that this process will start them, so that another launch leaves them alone."""
    for run in runs:
        record.append(run.folder, "queued", **lock.identity())


def run_local(runs: Sequence[JobRun], resources: Resources, *, runs_dir: Path, label: str) -> int:
    """Run all to the end, each after those it needs, `array_parallelism` at a time.

    Args:
        runs: prepared folders, parents before children; needs that are not among them are finished.
        resources: of which GPUs, time and parallelism mean something here.
        runs_dir: pickles and logs go to a new folder in its slurm/.
        label: start of that folder's name.

    Returns:
        0 if all finished, 1 if some failed, 75 if stopped by a signal with their state saved.
    """
    folder = runs_dir.absolute() / "slurm" / f"{label}-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    sweep = _Sweep({run.name: run for run in runs}, resources, folder)
    with sweep.stopping_on_signals():
        while {"pending", "running"} & set(sweep.states.values()):
            sweep.collect()
            sweep.start_ready()
            time.sleep(POLL_S)
    return exit_code(sweep.states)


def find_gpus() -> tuple[int, ...]:
    """The numbers of the GPUs that runs on this machine may use: CUDA_VISIBLE_DEVICES, or all there are.

    Raises:
        ConfigError: it names them by something else than numbers, which submitit does not take.
    """
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is None:
        return tuple(range(torch.cuda.device_count()))
    try:
        numbers = [int(word) for word in listed.split(",") if word.strip()]
    except ValueError:
        raise ConfigError(f"CUDA_VISIBLE_DEVICES={listed}: --local needs GPUs by number") from None
    return tuple(number for number in numbers if number >= 0)


@dataclass
class _Sweep:
    runs: dict[str, JobRun]
    resources: Resources
    folder: Path
    active: dict[str, submitit.Job[Any]] = field(default_factory=dict)
    states: dict[str, State] = field(init=False)
    starts: dict[str, int] = field(default_factory=dict)
    gpus: tuple[int, ...] = field(default_factory=find_gpus)
    used: dict[str, tuple[int, ...]] = field(default_factory=dict)
    stopping: bool = False

    def __post_init__(self) -> None:
        self.states = dict.fromkeys(self.runs, "pending")

    def collect(self) -> None:
        """Take note of the jobs that have ended; one that was interrupted starts again."""
        for name, job in list(self.active.items()):
            if not job.done():
                continue
            del self.active[name]
            folder = self.runs[name].folder
            events = record.read(folder)
            if is_finished(folder):
                self._say(name, "finished")
            elif events.last("failed"):
                self._say(name, "failed", events.last("failed")["reason"])  # type: ignore[index]
            elif events.last("stopped") or self.stopping:
                self._say(name, "stopped")
            elif events.last(*record.INTERRUPTIONS) and self.starts[name] < MOST_STARTS:
                self.states[name] = "pending"  # submitit's controller starts a job again six times only
            else:
                self._say(name, "failed", f"ended without a word; see {events.log}")

    def start_ready(self) -> None:
        """Start what needs nothing unfinished, as far as there is room."""
        needs = {name: run.needs for name, run in self.runs.items()}
        room = (self.resources.array_parallelism or 1) - len(self.active)
        for name, state in advance(needs, self.states, room=room, stopping=self.stopping).items():
            turn = record.read(self.runs[name].folder).turn if state == "running" else None
            if state != "running" or (turn is not None and turn["event"] == "dropped"):  # by `cancel`
                record.append(self.runs[name].folder, "dropped")
                self._say(name, "stopped" if state == "running" else state)
                continue
            self.starts[name] = self.starts.get(name, 0) + 1
            self.active[name] = self._submit(self.runs[name])
            self._say(name, "running")

    def _least_used_gpus(self, run: JobRun) -> tuple[int, ...]:
        """GPUs for one more run; submitit would give each the first ones. None on a machine without any."""
        taken = Counter(gpu for name in self.active for gpu in self.used[name])
        self.used[run.name] = tuple(sorted(self.gpus, key=lambda gpu: taken[gpu])[: self.resources.gpus_per_node])
        return self.used[run.name]

    def _submit(self, run: JobRun) -> submitit.Job[Any]:
        executor = submitit.LocalExecutor(
            self.folder, max_num_timeout=self.resources.max_timeouts, python=PATIENT_PYTHON
        )
        executor.update_parameters(
            timeout_min=self.resources.minutes,
            signal_delay_s=self.resources.save_seconds,
            tasks_per_node=self.resources.num_tasks,
            gpus_per_node=len(self._least_used_gpus(run)),
            visible_gpus=self.used[run.name],
            stderr_to_stdout=True,
        )
        path = f"{ROOT}:{os.environ['PYTHONPATH']}" if os.environ.get("PYTHONPATH") else str(ROOT)
        threads = os.environ.get("OMP_NUM_THREADS", self.resources.threads(run.num_workers))
        # A Ctrl-C reaches the whole group of the terminal. submitit's controller would kill its tasks on it; it
        # inherits that the signal is ignored, while the run has a handler of its own and saves.
        with ignoring_signals(signal.SIGINT), environment_variables(PYTHONPATH=path, OMP_NUM_THREADS=threads):
            job = executor.submit(RunJob(run.folder))
        note_submission(run, f"local-{job.job_id}", self.resources, logs=self.folder, host=platform.node())
        return job

    def _say(self, name: str, state: State, reason: str = "") -> None:
        self.states[name] = state
        print(f"{time.strftime('%H:%M:%S')}  {name}: {state}" + f" ({reason})" * bool(reason), flush=True)

    @contextmanager
    def stopping_on_signals(self) -> Iterator[None]:
        """On a stop signal start nothing more, and have what runs save and leave."""

        def stop(number: int, frame: FrameType | None) -> None:
            self.stopping = True
            for job in self.active.values():
                os.kill(int(job.job_id), signal.SIGTERM)  # submitit's controller, which passes it on

        numbers = (signal.SIGINT, signal.SIGTERM)
        previous = {number: signal.signal(number, stop) for number in numbers}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
