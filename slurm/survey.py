"""What has become of runs, from their folders and Slurm's queue; the base of status, launch, retry and cancel."""

import contextlib
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.progress import is_finished
from engine.run import lock
from slurm import record, scheduler
from slurm.record import INTERRUPTIONS, Record

LIVE = ("pending", "running", "preempted")
OPEN = (*LIVE, "new", "stopped", "cancelled")  # neither finished nor failed
LOG_LINES = 5
# Slurm's words for ends that leave no event of ours, and what they mean for the user.
SLURM_ENDS = {
    "OUT_OF_MEMORY": "the node's memory was full: fewer loader workers (--num-workers) or more --mem-gb",
    "TIMEOUT": "ended by the time limit before it could save: more --save-seconds",
    "NODE_FAIL": "its node failed and Slurm did not queue it again",
    "BOOT_FAIL": "its node did not start",
    "DEADLINE": "its deadline passed",
}


@dataclass(frozen=True)
class RunState:
    """A run and how it stands.

    Args:
        record: of the run.
        state: "finished"; in the queue: "pending", "running", or "preempted" for one that waits to go on; ended:
            "failed", "cancelled" before it began or by its parent's failure, "stopped" with its state saved; "new".
        reason: why, where there is more to say.
    """

    record: Record
    state: str
    reason: str = ""

    @property
    def name(self) -> str:
        """The run's name."""
        return self.record.name


def survey(records: Sequence[Record]) -> list[RunState]:
    """How each run stands, asking Slurm at most twice however many there are.

    Raises:
        ConfigError: Slurm is there and does not answer.
    """
    finished = {each.name for each in records if is_finished(each.folder)}
    owners = {each.name: _lock_owner(each.folder) for each in records if each.name not in finished}
    in_slurm = [each for each in records if each.name in owners and each.job and not each.is_local]
    # And what runs inside of a job of the user's own: by hand, or with --local.
    inside = [
        each for each in records if any((who or {}).get("slurm_job") for who in (owners.get(each.name), each.turn))
    ]
    queue: dict[str, scheduler.Job] = {}
    for user in {_user(each.folder) for each in (*in_slurm, *inside)}:
        queue |= scheduler.queued(user)
    gone = [each.job.split("_")[0] for each in in_slurm if each.job and each.job not in queue]
    ends = scheduler.ended(gone) if gone else {}
    raw = {job.raw for job in queue.values()}
    states: dict[str, RunState] = {}
    for each in records:
        if each.name in finished:
            states[each.name] = RunState(each, "finished")
        elif each.job in queue:
            states[each.name] = _in_queue(each, queue[each.job])
        elif _lives(owners[each.name], raw):
            states[each.name] = RunState(each, "running")
        elif each.turn is not None and each.waits_here and _lives(each.turn, raw):
            states[each.name] = RunState(each, "pending", f"its turn on {each.turn['host']}")
        else:
            states[each.name] = _after_its_end(each, ends.get(each.job or ""))
    return [_blame_parents(state, states) for state in states.values()]


def _user(folder: Path) -> str:
    """Whose jobs to look for: those of the user who launched the run."""
    path = folder / record.FILE
    try:
        return path.owner()
    except KeyError:  # a user of another machine
        return str(path.stat().st_uid)


def _in_queue(each: Record, job: scheduler.Job) -> RunState:
    if job.state == "PENDING":
        waits = each.last("started") is not None
        return RunState(each, "preempted" if waits else "pending", job.reason)
    return RunState(each, "running", "" if job.state == "RUNNING" else job.state)


def _lock_owner(folder: Path) -> dict[str, Any] | None:
    with contextlib.suppress(OSError, ValueError):  # written or removed just now
        return lock.owner(folder)
    return None


def _lives(process: dict[str, Any] | None, raw: set[str]) -> bool:
    """Whether a process that wrote down its identity is alive: here, in a job of the queue, or, for all that can be
    known, on another machine."""
    if process is None:
        return False
    if process["host"] == platform.node():
        return lock.alive(process)
    return process["slurm_job"] in raw if process.get("slurm_job") else True


def _after_its_end(each: Record, job: scheduler.Job | None) -> RunState:
    if each.submitted is None:
        return RunState(each, "new")
    if starts_here(each):
        return RunState(each, "running", "starting")
    failure, end = each.last("failed"), job.state if job else ""
    if failure is not None:
        by_rank = f"rank {failure['rank']}: " if failure["rank"] else ""
        return RunState(each, "failed", f"{by_rank}{failure['reason']}")
    if end == "CANCELLED" or each.last("stopped"):
        saved = each.last("stopped", *INTERRUPTIONS) is not None
        return RunState(each, "stopped", "its state is saved") if saved else RunState(each, "cancelled")
    if end in SLURM_ENDS:
        return RunState(each, "failed", f"{SLURM_ENDS[end]} ({end})")
    last = each.last("started", *INTERRUPTIONS)
    if last is None and not end:
        return RunState(each, "cancelled", "gone from the queue before it began")
    return RunState(each, "failed", "ended without a word" + (f" (Slurm: {end})" if end else ""))


def starts_here(each: Record) -> bool:
    """Whether submitit's local controller of a run is alive: the run itself may be between two attempts."""
    if each.job is None or each.submitted is None or each.submitted.get("host") != platform.node():
        return False
    try:
        command = Path("/proc", each.job.removeprefix("local-"), "cmdline").read_bytes()
    except OSError:
        return False
    return b"submitit.local" in command


def _blame_parents(state: RunState, states: dict[str, RunState]) -> RunState:
    if state.state not in ("cancelled", "new"):
        return state
    parents = [states[need] for need in state.record.needs if need in states]
    culprit = next((p for p in parents if p.state in ("failed", "cancelled", "stopped")), None)
    return RunState(state.record, state.state, f"waits for {culprit.name}, {culprit.state}") if culprit else state


def interruptions(each: Record) -> str:
    """ "preempted 2x, timed out 1x" of the last submission; empty for none."""
    counts = {name: each.count(name) for name in INTERRUPTIONS}
    silent = each.count("started") - 1 - sum(counts.values())  # killed without notice, as by a node's failure
    found = [f"{name} {count}x" for name, count in counts.items() if count]
    return ", ".join(found + ([f"restarted {silent}x"] if silent > 0 else []))


def last_log_lines(each: Record, count: int = LOG_LINES) -> list[str]:
    """The end of a run's log; empty if there is none."""
    if each.log is None or not each.log.is_file():
        return []
    with each.log.open("rb") as file:
        file.seek(max(each.log.stat().st_size - 8192, 0))
        lines = file.read().decode(errors="replace").splitlines()
    return [line for line in lines if line.strip()][-count:]
