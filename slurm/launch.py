"""Launching and retrying: which runs to start, given what has become of each, and starting them."""

import contextlib
import fcntl
import graphlib
import shlex
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.config import check, from_dict, read_config_file
from engine.errors import ConfigError
from slurm import record, scheduler
from slurm.arrays import JobRun
from slurm.local import find_gpus, line_up, run_local
from slurm.resources import Resources
from slurm.submit import submit
from slurm.survey import LIVE, RunState, survey


@dataclass
class Choice:
    """What to do with each run of a launch, by name."""

    start: list[JobRun] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    blocked: list[str] = field(default_factory=list)
    finished: int = 0
    live: int = 0

    def describe(self) -> str:
        """In one sentence."""
        parts = [f"{len(self.start)} to start", f"{self.finished} finished", f"{self.live} in the queue or running"]
        parts += [f"{len(self.failed)} failed before"] * bool(self.failed)
        parts += [f"{len(self.blocked)} wait for one that failed or runs elsewhere"] * bool(self.blocked)
        return ", ".join(parts)


def choose(runs: Sequence[JobRun], states: dict[str, RunState], wanted: set[str], *, local: bool = False) -> Choice:
    """Start the runs in a wanted state, and the children of those that they took along.

    Args:
        runs: parents before children.
        states: of them, and of everything they need.
        wanted: states to start from.
        local: they start on this machine, where nothing can wait for a run that another launch has started.
    """
    choice, starting = Choice(), set[str]()
    for run in runs:
        state = states[run.name].state
        if state == "finished" or state in LIVE:
            choice.finished += state == "finished"
            choice.live += state != "finished"
        elif state in wanted or (state in ("cancelled", "new") and starting & set(run.needs)):
            if all(need in starting or _will_finish(states.get(need), local) for need in run.needs):
                choice.start.append(run)
                starting.add(run.name)
            else:
                choice.blocked.append(run.name)
        elif state == "failed":
            choice.failed.append(run.name)
    return choice


def _will_finish(parent: RunState | None, local: bool) -> bool:
    return parent is not None and (parent.state == "finished" or (parent.state in LIVE and not local))


def announce(choice: Choice, label: str, runs_dir: Path) -> None:
    """Print what was chosen."""
    print(f"{label}: {choice.describe()}", flush=True)
    if choice.failed:
        where = shlex.quote(str(runs_dir))
        print(f"start failed ones with --retry, or: python -m slurm retry {label} --runs-dir {where}")


def look(runs: Sequence[JobRun]) -> dict[str, RunState]:
    """How each run stands, by name; folders that do not exist yet are "new"."""
    return _survey_by_name([record.read(run.folder) for run in runs])


def _survey_by_name(records: Sequence[record.Record]) -> dict[str, RunState]:
    return {state.name: state for state in survey(records)}


@dataclass(frozen=True)
class Target:
    """Where runs go: their folders' parent, the name their jobs begin with, and whether this machine runs them."""

    runs_dir: Path
    label: str
    local: bool = False


def start(runs: Sequence[JobRun], states: dict[str, RunState], resources: Resources, target: Target) -> int:
    """Start runs; returns the exit code: of submission, or with --local of the runs themselves.

    Args:
        runs: prepared, parents before children.
        states: of what they may wait for.
        resources: of each job.
        target: where.

    Raises:
        ConfigError: Slurm refuses.
    """
    if not runs:
        return 0
    if target.local:
        return run_local(runs, resources, runs_dir=target.runs_dir, label=target.label)
    began = time.perf_counter()
    arrays = submit(runs, resources, runs_dir=target.runs_dir, label=target.label, queued=queued_jobs(states))
    seconds = time.perf_counter() - began
    print(f"{len(runs)} runs submitted as {arrays} jobs and arrays in {seconds:.1f} s")
    print(f"watch them: python -m slurm status --watch --runs-dir {shlex.quote(str(target.runs_dir))}", flush=True)
    return 0


def queued_jobs(states: dict[str, RunState]) -> dict[str, str]:
    """Slurm's numbers of the runs in its queue, by name."""
    live = {name: state.record for name, state in states.items() if state.state in LIVE}
    return {name: each.job for name, each in live.items() if each.job and not each.is_local}


def require_slurm(local: bool) -> None:
    """Insist on a place to run.

    Raises:
        ConfigError: there is no Slurm, and --local was not given.
    """
    if not local and not scheduler.available():
        raise ConfigError("no Slurm here (no sbatch and srun on PATH); add --local to run the jobs one after another")


def check_batches(configs: dict[str, Any], resources: Resources, *, local: bool = False) -> None:
    """Refuse resources that make no sense, and runs that could not train with their global batch on so many processes.

    Raises:
        ConfigError: listing the runs.
    """
    check(resources)
    if local and resources.nodes > 1:
        raise ConfigError(f"--nodes {resources.nodes} with --local: this is one machine")
    if local and 0 < len(find_gpus()) < resources.gpus_per_node:
        raise ConfigError(f"--gpus-per-node {resources.gpus_per_node} with --local: {len(find_gpus())} to be used here")
    wrong = []
    for name, config in configs.items():
        parts = resources.num_tasks * (getattr(config, "accumulation", None) or 1)
        if config.batch_size % parts:
            wrong.append(f"{name}: batch_size {config.batch_size} is no multiple of {parts}")
    if wrong:
        raise ConfigError(
            f"{len(wrong)} runs cannot keep their batch on {resources.nodes} nodes x {max(resources.gpus_per_node, 1)} "
            f"GPUs x accumulation, the first being {wrong[0]}: use another number of GPUs or of accumulation steps"
        )


@contextlib.contextmanager
def one_at_a_time(runs_dir: Path) -> Iterator[None]:
    """Two launches into one folder wait for each other, so that none submits what the other just did."""
    folder = runs_dir / "slurm"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "launch.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def list_in_sweep(runs: Sequence[JobRun], sweep: str) -> None:
    """Write into each run folder which sweep it belongs to and what it starts from, once."""
    for run in runs:
        if sweep not in record.read(run.folder).sweeps:
            record.append(run.folder, "listed", sweep=sweep, needs=run.needs)


def recorded_run(each: record.Record) -> JobRun:
    """The run of a folder that was prepared before.

    Raises:
        ConfigError: its config.json cannot be read.
    """
    stored = read_config_file(each.folder / "config.json")
    workers = stored["config"].get("data", {}).get("num_workers", 0)
    return JobRun(each.folder, stored["package"], needs=each.needs, num_workers=workers)


def retry(runs_dir: Path, names: tuple[str, ...]) -> int:
    """Start failed runs again, with the children they took along, as they were started before; returns the exit code.

    Raises:
        ConfigError: a name does not exist, or Slurm refuses.
    """
    runs_dir = runs_dir.absolute()
    with one_at_a_time(runs_dir):
        by_name = {each.name: each for each in record.find(runs_dir, names)}
        order = graphlib.TopologicalSorter({name: each.needs for name, each in by_name.items()}).static_order()
        runs = [recorded_run(by_name[name]) for name in order if name in by_name]
        states = _survey_by_name(record.find(runs_dir))
        choice = choose(runs, states, {"failed"})
        print(choice.describe(), flush=True)
        groups = _alike(choice.start, by_name)
        for (resources, directory, local), group in groups.items():
            if local:
                line_up(group)
                continue
            require_slurm(local)
            with contextlib.chdir(directory):  # for relative paths in the configurations
                start(group, states, resources, Target(runs_dir, "retry"))
            states = _survey_by_name(record.find(runs_dir))
    code = 0
    for (resources, directory, local), group in groups.items():
        if local:
            with contextlib.chdir(directory):
                code = max(code, start(group, states, resources, Target(runs_dir, "retry", local)))
    return code


def _alike(
    runs: Sequence[JobRun], records: dict[str, record.Record]
) -> dict[tuple[Resources, str, bool], list[JobRun]]:
    """Runs by what they were submitted with; a child that never was goes with its parent."""
    groups: dict[tuple[Resources, str, bool], list[JobRun]] = {}
    keys: dict[str, tuple[Resources, str, bool]] = {}
    for run in runs:
        before = records[run.name].submitted
        if before is None:
            keys[run.name] = next(keys[need] for need in run.needs if need in keys)
        else:
            resources = from_dict(Resources, before["resources"])
            keys[run.name] = (resources, before["directory"], records[run.name].is_local)
        groups.setdefault(keys[run.name], []).append(run)
    return groups
