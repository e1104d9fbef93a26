"""Which runs go into which job array, and what each array waits for: a pure function, also behind --dry-run.

Thousands of runs are a handful of arrays. A fine-tuning run waits for its own pre-training run only: where one array
follows another one run by run, `aftercorr` says so for all of them; otherwise `afterok` names the parents.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple


@dataclass(frozen=True)
class JobRun:
    """A run to submit: its folder, the names of the runs it starts from, and what shapes its job."""

    folder: Path
    package: str
    needs: tuple[str, ...] = ()
    num_workers: int = 0

    @property
    def name(self) -> str:
        """The run's name, its folder's."""
        return self.folder.name


class Position(NamedTuple):
    """A run of a planned array: number of the array, place in it."""

    array: int
    place: int


@dataclass(frozen=True)
class Array:
    """Runs submitted together.

    Args:
        package: of all of them.
        runs: in the array's order.
        follows: number of the array whose run of the same place each run waits for.
        parents: runs of earlier arrays that all runs of this one wait for.
        jobs: as parents, jobs that are in the queue already, by Slurm's number.
    """

    package: str
    runs: list[JobRun]
    follows: int | None = None
    parents: tuple[Position, ...] = ()
    jobs: tuple[str, ...] = ()

    def dependency(self, number: "dict[Position | int, str]") -> str | None:
        """What sbatch is told, given Slurm's numbers of earlier arrays and of their runs."""
        if self.follows is not None:
            return f"aftercorr:{number[self.follows]}"
        numbers = [*(number[parent] for parent in self.parents), *self.jobs]
        return "afterok:" + ":".join(numbers) if numbers else None


@dataclass
class _Plan:
    limit: int
    queued: dict[str, str]
    arrays: list[Array] = field(default_factory=list)
    places: dict[str, Position] = field(default_factory=dict)

    def add(self, package: str, runs: Sequence[JobRun], **waiting: Any) -> None:
        """Cut runs that wait for the same into arrays; `waiting` are Array's fields."""
        for first in range(0, len(runs), self.limit):
            part = list(runs[first : first + self.limit])
            self.places |= {run.name: Position(len(self.arrays), i) for i, run in enumerate(part)}
            self.arrays.append(Array(package, part, **waiting))


def plan(runs: Sequence[JobRun], *, queued: dict[str, str], limit: int) -> list[Array]:
    """Arrays in an order in which each comes after those it waits for.

    Args:
        runs: to submit, parents before children. A need that is neither among them nor queued is finished.
        queued: names of runs that are in the queue already -> Slurm's number.
        limit: most runs in an array.
    """
    made = _Plan(limit, queued)
    waiting = list(runs)
    while waiting:
        unplaced = {run.name for run in waiting}
        level = [run for run in waiting if not unplaced & set(run.needs)]
        waiting = [run for run in waiting if unplaced & set(run.needs)]
        children = Counter(need for run in waiting for need in run.needs)
        for package in dict.fromkeys(run.package for run in level):
            group = [run for run in level if run.package == package]
            # Parents of many come first, so that a second child's array can follow the first places of theirs.
            _add_level(made, package, sorted(group, key=lambda run: -children[run.name]))
    return made.arrays


def _add_level(made: _Plan, package: str, runs: list[JobRun]) -> None:
    """Place the runs of one package whose parents are all placed, queued or finished."""
    single: dict[int, dict[int, list[JobRun]]] = defaultdict(lambda: defaultdict(list))
    others: dict[tuple[tuple[Position, ...], tuple[str, ...]], list[JobRun]] = defaultdict(list)
    for run in runs:
        parents = tuple(made.places[need] for need in run.needs if need in made.places)
        jobs = tuple(made.queued[need] for need in run.needs if need in made.queued)
        if len(parents) == 1 and not jobs:
            single[parents[0].array][parents[0].place].append(run)
        else:
            others[parents, jobs].append(run)
    for (parents, jobs), group in others.items():
        made.add(package, group, parents=parents, jobs=jobs)
    for array, by_parent in single.items():
        slots = _slots(by_parent)
        if slots is not None and len(slots) < len(by_parent):
            for slot in slots:
                alone = {"parents": (Position(array, 0),)}  # a single run is no array, and has no place to follow from
                made.add(package, slot, **({"follows": array} if len(slot) > 1 else alone))
        else:
            for index, group in by_parent.items():
                made.add(package, group, parents=(Position(array, index),))


def _slots(by_parent: dict[int, list[JobRun]]) -> list[list[JobRun]] | None:
    """The first children of all parents, the second children, ...: each list in the parents' order, for aftercorr. None
    if one would leave a gap in that order, for Slurm's places are counted from 0."""
    slots = []
    for k in range(max(map(len, by_parent.values()))):
        indices = sorted(index for index, group in by_parent.items() if len(group) > k)
        if indices != list(range(len(indices))):
            return None
        slots.append([by_parent[index][k] for index in indices])
    return slots
