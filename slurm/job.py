"""The object that submitit pickles: a run folder, nothing else, so that replaying an old pickle after a node failure
still finds the newest checkpoint. Runs in the job; imports a task package only there.

How a signal becomes a requeue:
1. Slurm sends USR2 (time limit, preemption) or TERM (preemption, requeue, scancel) to every process of the job.
2. engine.training.stop sets a flag; the loop ends its step, saves and raises StopRequested on every rank.
3. The first rank asks Slurm whether the job is still running. If it was cancelled, or queued again already, it leaves.
4. Otherwise it calls submitit's own handler, which writes the pickle again and calls `scontrol requeue`.
"""

import importlib
import os
import platform
import shlex
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import submitit
from submitit.core.utils import DelayedSubmission, UncompletedJobError
from submitit.helpers import TorchDistributedEnvironment

from engine import config
from engine.cli import guard
from engine.errors import STOPPED_EXIT_CODE, StopRequested
from engine.run import storage
from engine.training.stop import StopFlag
from slurm import record

WAIT_FOR_THE_END_S = 120  # of the first rank's requeue


class RunJob:
    """Trains what a run folder's config.json says, from wherever the folder stands."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = str(run_dir.absolute())

    def __call__(self) -> dict[str, float]:
        """Train to the end; returns the metrics. Leaves with the exit codes of `python -m <package>`."""
        folder, place = Path(self.run_dir), Place()
        # Signals that come before the loop has a flag of its own wait in this one (engine/training/stop.py).
        with StopFlag() as early:
            TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)
            if not place.in_slurm:
                os.environ["MASTER_ADDR"] = "127.0.0.1"  # a machine's own name need not resolve
            if place.rank == 0:
                record.append(folder, "started", job=place.job, host=platform.node(), tasks=place.num_tasks)
            metrics, stopped = self._train(folder, place)
            if stopped is not None:
                _hand_over(folder, place, early.reason or stopped)
        return metrics

    def checkpoint(self) -> DelayedSubmission:
        """What submitit pickles for the next attempt: the same again."""
        return DelayedSubmission(RunJob(Path(self.run_dir)))

    def _train(self, folder: Path, place: "Place") -> tuple[dict[str, float], str | None]:
        """(metrics, None), or ({}, why it stopped)."""
        with guard():
            try:
                stored = config.read_config_file(folder / "config.json")
                task = importlib.import_module(f"{stored['package']}.train")
                recipes = importlib.import_module(f"{stored['package']}.recipes").RECIPES
                settings = config.from_dict(type(recipes[stored["recipe"]]()), stored["config"])
                return task.train(settings, folder, recipe=stored["recipe"], resume=True), None
            except StopRequested as stop:
                print(stop, file=sys.stderr, flush=True)
                return {}, str(stop)
            except Exception as error:
                _record_failure(folder, place, error)
                raise
        raise AssertionError("guard() leaves the process on every error")


class Place:
    """Where this process stands: in which job, as which rank."""

    def __init__(self) -> None:
        self.environment = submitit.JobEnvironment()
        self.in_slurm = self.environment.cluster == "slurm"
        self.job = self.environment.job_id if self.in_slurm else f"local-{self.environment.job_id}"
        self.rank = self.environment.global_rank
        self.num_tasks = self.environment.num_tasks
        self.signal = self.environment._usr_sig()
        self.requeue: Any = signal.getsignal(self.signal)  # submitit's handler, before another takes its place


def _record_failure(folder: Path, place: Place, error: Exception) -> None:
    lines = str(error).splitlines() or [""]
    record.append(
        folder,
        "failed",
        job=place.job,
        rank=place.rank,
        reason=f"{type(error).__name__}: {lines[0]}",
        exit_code=getattr(error, "exit_code", 1),
    )


def _hand_over(folder: Path, place: Place, reason: str) -> NoReturn:
    """The state is saved: have the job queued again, unless that is not wanted or already done."""
    if place.rank != 0:
        if place.in_slurm:  # a rank that leaves would end the first one in the middle of its requeue (kill-on-bad-exit)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)  # with which Slurm ends the others when it has requeued
            time.sleep(WAIT_FOR_THE_END_S)
        sys.exit(STOPPED_EXIT_CODE)
    fate = _fate_of(place.job) if place.in_slurm else "running" if "SIGUSR2" in reason else "stopped"
    if fate != "running":
        record.append(folder, fate, job=place.job, signal=reason)
        sys.exit(STOPPED_EXIT_CODE)
    case = "timed out" if place.requeue.__self__.has_timed_out() else "preempted"
    record.append(folder, case, job=place.job, signal=reason)
    try:
        place.requeue(place.signal)
    except (UncompletedJobError, subprocess.SubprocessError) as error:
        _give_up(folder, place, error)
    raise AssertionError("submitit's handler leaves the process")


def _give_up(folder: Path, place: Place, error: Exception) -> NoReturn:
    """Submitit or Slurm refused to queue the job again."""
    reason = str(error).removeprefix("Job not requeued because: ").rstrip(".")
    where = shlex.quote(str(folder.parent))
    message = f"{reason}. The state is saved: python -m slurm retry {folder.name} --runs-dir {where}"
    record.append(folder, "failed", job=place.job, rank=0, reason=message, exit_code=STOPPED_EXIT_CODE)
    values = {"type": type(error).__name__, "message": message, "exit_code": STOPPED_EXIT_CODE}
    storage.write_json(folder / "error.json", {**values, "time": datetime.now(UTC).isoformat(timespec="seconds")})
    print(f"stopped: {message}", file=sys.stderr, flush=True)
    sys.exit(STOPPED_EXIT_CODE)


def _fate_of(job: str) -> str:
    """What Slurm takes this job for: "running", "requeued" or "stopped". After scancel, `scontrol requeue` would bring
    it back to life; preempted without a grace time, or requeued by hand, it is queued again already."""
    command = ["scontrol", "--oneliner", "show", "job", job]
    try:
        shown = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return "running"  # the requeue then says what is wrong
    # An array's last run has the array's own number, by which scontrol would show all of its runs; so `job` is 7_4.
    values = dict(word.split("=", 1) for word in shown.splitlines()[0].split() if "=" in word) if shown else {}
    if values.get("JobState") == "RUNNING":
        return "running"
    # While its processes end, a job is COMPLETING in either case; the number of its starts tells them apart.
    again = int(values.get("Restarts", 0)) > int(os.environ.get("SLURM_RESTART_COUNT", 0))
    return "requeued" if again else "stopped"
