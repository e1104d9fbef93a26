"""Which runs of a graph may start now, and what the end of the graph amounts to.

One rule for every way of starting them: as processes (benchmarks/pipeline.py) and as submitit's local jobs
(slurm/local.py). On a cluster Slurm itself keeps the order (slurm/arrays.py).
"""

from collections.abc import Mapping, Sequence
from typing import Literal

from engine.errors import STOPPED_EXIT_CODE

State = Literal["pending", "running", "finished", "failed", "blocked", "stopped"]
"""Of a run: "blocked" waits for one that failed, "stopped" can be continued."""


def advance(
    needs: Mapping[str, Sequence[str]], states: Mapping[str, State], *, room: int, stopping: bool = False
) -> dict[str, State]:
    """The states that change now: those that become "running" are to be started.

    Args:
        needs: run -> the runs that must be finished before it, parents before children, which is also the order in
            which they start. A need that is no run of the graph is finished.
        states: of all runs of the graph.
        room: how many more may start.
        stopping: nothing starts any more; what waits is "stopped".
    """
    changes: dict[str, State] = {}
    for name, parents in needs.items():
        if states[name] != "pending":
            continue
        ends = {changes.get(parent) or states.get(parent, "finished") for parent in parents}
        if stopping or "stopped" in ends:
            changes[name] = "stopped"
        elif ends & {"failed", "blocked"}:
            changes[name] = "blocked"
        elif ends <= {"finished"} and room > 0:
            changes[name] = "running"
            room -= 1
    return changes


def exit_code(states: Mapping[str, State]) -> int:
    """0: all finished; 75: some were stopped and can be continued; 1: something failed."""
    if "stopped" in states.values():
        return STOPPED_EXIT_CODE
    return 0 if set(states.values()) <= {"finished"} else 1
