"""What a run measured, believed only as far as its metrics.jsonl shows it: every number, every evaluation, in order."""

import itertools
import math
from collections.abc import Iterable, Mapping
from typing import Any

from results.metrics import PRETRAINING
from results.runs.runfiles import UnusableRun, is_count, is_number
from suite_tasks import find

_NAMES = ("step", "epoch", "split")
_LAST_EPOCHS = 10  # those of "..._best_last10"


def checked_lines(rows: Iterable[Mapping[str, Any]], task: str) -> list[Mapping[str, Any]]:
    """The lines of metrics.jsonl: steps that never go back, no evaluation twice, and possible measurements.

    Args:
        rows: of read_metrics.
        task: of the run.

    Raises:
        UnusableRun: a line cannot be.
    """
    lines: list[Mapping[str, Any]] = []
    before, seen = 0, set()
    for number, row in enumerate(rows, start=1):
        where, step = f"metrics.jsonl line {number}", row.get("step")
        for name, value in row.items():
            if row.get("split") == "val" and name not in _NAMES:
                check_number(where, task, name, value)
        if not is_count(step):
            raise UnusableRun(f"{where}: step is {step!r}, not a whole number from 0 on")
        if step < before:
            raise UnusableRun(f"{where}: step {step} comes after step {before}: these are not the lines of one run")
        split = row.get("split")
        if not isinstance(split, str):
            raise UnusableRun(f"{where}: split is {split!r:.40}, not a name")
        if (step, split) in seen:
            raise UnusableRun(f"{where}: a second {split} line of step {step}")
        seen.add((step, split))
        before = step
        lines.append(row)
    return lines


def check_complete(lines: Iterable[Mapping[str, Any]], config: Mapping[str, Any], steps: int, per_epoch: float) -> None:
    """Whether the file reaches the end of training and no evaluation is missing.

    Args:
        lines: of checked_lines.
        config: of the run.
        steps: of the whole training.
        per_epoch: steps in an epoch; 1 where evaluate_every counts steps.

    Raises:
        UnusableRun: it does not, or one is.
    """
    found: dict[str, set[int]] = {"train": set(), "val": set()}
    for line in lines:
        found.setdefault(str(line.get("split")), set()).add(line["step"])
    last = max(itertools.chain(found["train"], found["val"]), default=0)
    if last < steps:
        raise UnusableRun(f"metrics.jsonl ends at step {last} of {steps}")
    if last > steps:
        raise UnusableRun(f"metrics.jsonl goes on to step {last}, training has {steps}")
    if not found["val"]:
        return
    every = config.get("evaluate_every")
    between = every * per_epoch if is_count(every) and every else steps
    due = (min(round(between * number), steps) for number in range(1, math.ceil(steps / between) + 1))
    missing = next((step for step in due if step not in found["val"]), None)  # ends soon, however many are due
    if missing is not None:
        raise UnusableRun(f"metrics.jsonl lacks the evaluation of step {missing}")


def checked_metrics(
    lines: Iterable[Mapping[str, Any]], task: str, summary: Mapping[str, Any], epochs: Any
) -> dict[str, float]:
    """finished.json's metrics, each of which must be a possible number that metrics.jsonl gives too.

    Args:
        lines: of checked_lines.
        task: of the run.
        summary: finished.json.
        epochs: of the configuration, if it has any.

    Raises:
        UnusableRun: one is not.
    """
    metrics = summary.get("metrics")
    if not isinstance(metrics, dict) or not metrics:
        raise UnusableRun("finished.json holds no metrics")
    split = "train" if task in PRETRAINING else "val"
    history = [line for line in lines if line.get("split") == split]
    for name, value in metrics.items():
        check_number("finished.json", task, name, value)
        values = _history(name, history)
        if value not in values.values():
            raise UnusableRun(f"finished.json: {name} {value} was never measured: metrics.jsonl does not hold it")
        expected = _expected(name, values, history, epochs)
        if value != expected:
            raise UnusableRun(f"finished.json: {name} is {value}, by metrics.jsonl it is {expected}")
    return {name: float(value) for name, value in metrics.items()}


def _history(name: str, history: list[Mapping[str, Any]]) -> dict[int, float]:
    """{place: value} of the curve that a metric was taken from: of top1_best_last10 it is the one of top1."""
    sources = list(itertools.accumulate(name.split("_"), "{}_{}".format))[::-1]
    found = next((source for source in sources if any(source in line for line in history)), name)
    return {place: line[found] for place, line in enumerate(history) if is_number(line.get(found))}


def _expected(name: str, values: dict[int, float], history: list[Mapping[str, Any]], epochs: Any) -> float:
    if name.endswith("_best_last10") and is_count(epochs):
        late = [value for place, value in values.items() if _epoch(history[place]) > epochs - _LAST_EPOCHS]
        return max(late or values.values())
    if name.endswith("_best"):
        return max(values.values())
    return values[max(values)]


def _epoch(line: Mapping[str, Any]) -> float:
    epoch = line.get("epoch")
    return float(epoch) if is_number(epoch) else 0.0


def check_number(where: str, task: str, name: str, value: Any) -> None:
    """Whether it can be what was measured.

    Raises:
        UnusableRun: it is no finite number, or no percentage though its task measures in percent.
    """
    if not is_number(value):
        raise UnusableRun(f"{where}: {name} is {value}, not a finite number")
    if name.startswith(("num_", "rank_", "mCE")):  # the last is relative to AlexNet's, which has 100
        return
    if find(task).percent and "loss" not in name and not 0 <= value <= 100:
        raise UnusableRun(f"{where}: {name} is {value}, outside 0 to 100 percent")
