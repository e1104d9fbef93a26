"""How many threads a run on the CPU computes with: torch takes one for every core of the machine, which crawls where
other processes are at work on them, or where the container may use only some."""

import json
import logging
import os
import time
from pathlib import Path

import torch

from engine.cores import allowed_cores

log = logging.getLogger("mim")
_OURS = "OMP_NUM_THREADS"
_WORTH = 1.2  # times as fast, below which it may be chance
_ROUNDS = 4


def choose_threads(run_dir: Path) -> None:
    """Lower this process's threads to what its share of the machine can use.

    A run that is continued computes with as many as before, for sums round otherwise. OMP_NUM_THREADS decides where it
    is set. On a machine that has nothing else to do, all of torch's threads stay.

    Args:
        run_dir: of the run, whose environment.json may know.
    """
    most = torch.get_num_threads()
    if _OURS in os.environ or most == 1:
        return
    if (before := _recorded(run_dir)) is not None:
        torch.set_num_threads(min(before, most))
        return
    if (allowed := allowed_cores()) < most:
        log.info("%d threads: this process may use no more cores (torch would take %d)", allowed, most)
        torch.set_num_threads(allowed)
        most = allowed
    if most > 1 and os.getloadavg()[0] > most / 2:
        _measure(most)


def _recorded(run_dir: Path) -> int | None:
    """How many threads a run that has taken steps began with."""
    if not any((run_dir / "checkpoints").glob("[0-9]*[1-9]*")):
        return None
    try:
        number = json.loads((run_dir / "environment.json").read_bytes())["num_threads"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return number if isinstance(number, int) and number > 0 else None


def _measure(most: int) -> None:
    """Time a convolution with all threads, half of them and one, in turn, and keep to the fastest."""
    tried = sorted({most, max(most // 2, 1), 1}, reverse=True)
    seconds = dict.fromkeys(tried, 0.0)
    convolution, images = torch.nn.Conv2d(64, 64, 3, padding=1), torch.rand(4, 64, 28, 28)
    with torch.no_grad():
        for _ in range(_ROUNDS):
            for number in tried:
                torch.set_num_threads(number)
                started = time.perf_counter()
                convolution(images)
                seconds[number] += time.perf_counter() - started
    best = min(tried, key=lambda number: seconds[number])
    times = seconds[most] / seconds[best]
    torch.set_num_threads(best if times > _WORTH else most)
    if times > _WORTH:
        log.info(
            "%d of %d threads: other processes are at work here (load %.1f), and a convolution was just now %.1f times "
            "as fast with them as with all; %s=N says otherwise",
            *(best, most, os.getloadavg()[0], times, _OURS),
        )
