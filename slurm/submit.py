"""Handing prepared run folders to Slurm through submitit, and saying in each folder that it was done."""

import os
import shlex
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import submitit
from submitit.core.utils import FailedJobError, FailedSubmissionError
from submitit.helpers import clean_env

from engine.errors import ConfigError
from engine.run import lock
from slurm import record, scheduler
from slurm.arrays import Array, JobRun, Position, plan
from slurm.job import RunJob
from slurm.resources import Resources

ROOT = Path(__file__).resolve().parent.parent
# A signal that arrives before submitit has its handlers, in the first second of a process, must not kill it.
PATIENT_PYTHON = f"""bash -c 'trap "" USR2 TERM; exec "$@"' bash {shlex.quote(sys.executable)}"""
DEFAULT_PARALLELISM = 256


def submit(
    runs: Sequence[JobRun],
    resources: Resources,
    *,
    runs_dir: Path,
    label: str,
    queued: dict[str, str],
) -> int:
    """Submit runs with what they wait for; returns the number of job arrays.

    Args:
        runs: prepared folders, parents before children, none of them finished or in the queue.
        resources: of each job; checked before.
        runs_dir: pickles and logs go to a new folder in its slurm/.
        label: a sweep or a run: start of the jobs' names and of that folder's.
        queued: names of runs in the queue -> Slurm's number, for needs that are not in `runs`.

    Raises:
        ConfigError: Slurm refuses; arrays submitted before stay.
    """
    arrays = plan(runs, queued=queued, limit=scheduler.max_array_size())
    logs = runs_dir.absolute() / "slurm" / f"{label}-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    numbers: dict[Position | int, str] = {}
    for k, array in enumerate(arrays):
        for run in array.runs:
            _forget_dead_owner(run.folder)
        name = f"{label}-{array.package}"
        executor = _executor(logs / f"{k:02d}-{array.package}", resources, array, name, array.dependency(numbers))
        with ignoring_signals(signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # no job without a note of it
            try:
                with _outside_of_jobs():
                    jobs = executor.submit_array([RunJob(run.folder) for run in array.runs])
            except (FailedSubmissionError, FailedJobError, OSError) as error:
                done = sum(len(earlier.runs) for earlier in arrays[:k])
                raise ConfigError(f"sbatch refused after {done} of {len(runs)} runs: {_last_line(error)}") from error
            numbers[k] = jobs[0].job_id.split("_")[0]
            for i, (run, job) in enumerate(zip(array.runs, jobs, strict=True)):
                numbers[Position(k, i)] = job.job_id
                note_submission(run, job.job_id, resources, logs=executor.folder)
    return len(arrays)


def note_submission(run: JobRun, job: str, resources: Resources, *, logs: Path, **more: Any) -> None:
    """Write into the run folder what status, logs, cancel and retry need."""
    values = {"logs": str(logs), "directory": str(Path.cwd()), "resources": asdict(resources), **more}
    record.append(run.folder, "submitted", job=job, **values)


def _executor(
    folder: Path, resources: Resources, array: Array, name: str, dependency: str | None
) -> submitit.SlurmExecutor:
    num_workers = max(run.num_workers for run in array.runs)
    executor = submitit.SlurmExecutor(folder, max_num_timeout=resources.max_timeouts, python=PATIENT_PYTHON)
    more: dict[str, Any] = {
        "requeue": True,
        "kill-on-invalid-dep": "yes",
        **dict(option.split("=", 1) for option in resources.sbatch),
    }
    if resources.mem_gb is not None:
        more["mem"] = f"{resources.mem_gb}G"
    executor.update_parameters(
        job_name=name,
        partition=resources.partition,
        time=round(resources.minutes),
        nodes=resources.nodes,
        ntasks_per_node=max(resources.gpus_per_node, 1),
        gpus_per_node=resources.gpus_per_node or None,
        cpus_per_task=resources.cores(num_workers),
        account=resources.account,
        qos=resources.qos,
        constraint=resources.constraint,
        dependency=dependency,
        signal_delay_s=resources.save_seconds,
        array_parallelism=resources.array_parallelism or DEFAULT_PARALLELISM,
        stderr_to_stdout=True,
        setup=[
            f"export PYTHONPATH={shlex.quote(str(ROOT))}${{PYTHONPATH:+:$PYTHONPATH}}",
            f"export OMP_NUM_THREADS=${{OMP_NUM_THREADS:-{resources.threads(num_workers)}}}",
            *resources.setup,
        ],
        # One rank's crash ends the others at once instead of after MIM_TIMEOUT_S. Without cpus-per-task, which srun
        # does not take over from sbatch from Slurm 22.05 on, each process would be bound to one core, with its loader.
        srun_args=["--kill-on-bad-exit=1", f"--cpus-per-task={resources.cores(num_workers)}"],
        additional_parameters=more,
    )
    return executor


@contextmanager
def ignoring_signals(*numbers: signal.Signals) -> Iterator[None]:
    """Ignore signals for the moment; processes started meanwhile ignore them for good, or until they say otherwise."""
    previous = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def _outside_of_jobs() -> Iterator[None]:
    """Hide the SLURM_ variables of a job that we may run in, which would become the new job's; not where Slurm is."""
    configuration = os.environ.get("SLURM_CONF")
    with clean_env():
        if configuration is not None:
            os.environ["SLURM_CONF"] = configuration
        yield


def _forget_dead_owner(folder: Path) -> None:
    """Remove the lock that a killed job left on another machine, where no process can look for its owner. The run is
    not in the queue, so Slurm itself says that this job is over."""
    owner = lock.owner(folder)
    if owner is not None and owner.get("slurm_job"):
        lock.release(folder)


def _last_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    refusals = [line for line in lines if "error" in line.lower()]
    return (refusals or lines or ["no reason given"])[-1].strip()
