"""What Slurm says: which jobs are in its queue, how ended ones ended, its limits. A few plain commands per question."""

import contextlib
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from engine.errors import ConfigError

DEFAULT_MAX_ARRAY_SIZE = 1001
IDS_PER_COMMAND = 500  # keeps a command line short


@dataclass(frozen=True)
class Job:
    """A job, or one run of a job array. `raw` is Slurm's number without the array notation."""

    state: str
    reason: str = ""
    raw: str = ""


def available() -> bool:
    """Whether jobs can be submitted from here."""
    return shutil.which("sbatch") is not None and shutil.which("srun") is not None


def queued(user: str) -> dict[str, Job]:
    """A user's jobs that are pending or running, by number ("123", or "123_4" in an array).

    Raises:
        ConfigError: Slurm does not answer.
    """
    if shutil.which("squeue") is None:
        return {}
    lines = _run("squeue", "--noheader", "--array", "--user", user, "--format", "%i|%T|%r|%A")
    jobs = {}
    for line in lines.splitlines():
        number, state, reason, raw = line.split("|")
        jobs[number] = Job(state, "" if reason == "None" else reason, raw)
    return jobs


def ended(numbers: Iterable[str]) -> dict[str, Job]:
    """How jobs that are in the queue no more ended; those that Slurm has forgotten, or never accounted, are left out.

    Args:
        numbers: of jobs or whole arrays, without the place in the array.
    """
    wanted = sorted(set(numbers))
    jobs: dict[str, Job] = {}
    if shutil.which("sacct") is None:
        return jobs
    for first in range(0, len(wanted), IDS_PER_COMMAND):
        ids = ",".join(wanted[first : first + IDS_PER_COMMAND])
        command = ("sacct", "--noheader", "--parsable2", "--allocations", "--jobs", ids, "--format", "JobID,State")
        with contextlib.suppress(ConfigError):  # a cluster without accounting: run folders must do
            for line in _run(*command).splitlines():
                number, state = line.split("|")[:2]
                jobs |= dict.fromkeys(_expand(number), Job(state.split()[0]))  # "CANCELLED by 1000"
    return jobs


def cancel(numbers: Iterable[str]) -> None:
    """Cancel jobs, or runs of arrays, by number; running ones save first.

    Raises:
        ConfigError: Slurm refuses.
    """
    wanted = list(numbers)
    for first in range(0, len(wanted), IDS_PER_COMMAND):
        _run("scancel", *wanted[first : first + IDS_PER_COMMAND])


def max_array_size() -> int:
    """How many runs one job array may hold here."""
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", _run("scontrol", "show", "config"), re.MULTILINE)
    return max(int(found[1]) if found else DEFAULT_MAX_ARRAY_SIZE, 1)


def _expand(number: str) -> Iterator[str]:
    """ "7_[0-2,5%4]" -> 7_0 7_1 7_2 7_5: runs of an array that never started are listed together."""
    found = re.fullmatch(r"(\d+)_\[([\d,-]+)(?:%\d+)?\]", number)
    if found is None:
        yield number
        return
    for part in found[2].split(","):
        first, _, last = part.partition("-")
        yield from (f"{found[1]}_{index}" for index in range(int(first), int(last or first) + 1))


def _run(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    except subprocess.CalledProcessError as error:
        lines = error.stderr.strip().splitlines() or [f"exit code {error.returncode}"]
        raise ConfigError(f"{command[0]} failed: {lines[-1]}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError(f"{command[0]} does not answer: {error}") from error
