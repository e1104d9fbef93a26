"""What figures are drawn from: the curves of a run folder, and rows grouped into panels and lines."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from results.runs.runfiles import read_metrics
from results.tables.rows import METHOD_ORDER
from results.tables.text import records, start

Floats = npt.NDArray[np.float64]
Curves = dict[str, dict[str, list[float | None]]]
"""{"train" or "val": {"epoch": [...], metric: [...], ...}}, all lists of a split equally long."""

# What a task is judged by: its metric in finished.json, and how people write it.
MAIN_METRICS = {
    "pretrain": {"loss": "training loss"},
    "classification": {"top1_best_last10": "top-1 accuracy, %", "top1_last": "top-1 accuracy, %"},
    "detection": {"box_AP": "box AP, %", "box_AP_last": "box AP, %"},
    "segmentation": {"mIoU": "mIoU, %", "mIoU_last": "mIoU, %"},
}
_POINTS = 100
_NOT_CURVES = ("step", "epoch", "split", "num_images")


Group = TypeVar("Group")


@dataclass(frozen=True)
class Line:
    """One metric of the runs that differ in nothing but the seed.

    Args:
        epochs: increasing.
        mean, low, high: over the runs, at those epochs.
    """

    method: str
    label: str
    epochs: Floats
    mean: Floats
    low: Floats
    high: Floats


def natural(text: str) -> list[str | int]:
    """Key to sort names by, r50 before r101."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", text)]


def first_of(groups: Sequence[Group], most: int) -> tuple[Sequence[Group], str]:
    """As many of the groups as a figure has room for, and what its caption has to say if that is not all."""
    if len(groups) <= most:
        return groups, ""
    return groups[:most], f" Shown are the first {most} of {len(groups)}; the tables have all."


def read_curves(run_dir: Path, points: int = _POINTS) -> Curves:
    """The curves in a run's metrics.jsonl; a line cut off by a kill is dropped.

    Args:
        run_dir: of a run that collect accepted.
        points: how many to keep of each split: means of as many stretches in training, evaluations as they are.
    """
    lines: dict[str, list[dict[str, Any]]] = {}
    for line in read_metrics(run_dir):
        lines.setdefault(str(line.get("split")), []).append(line)
    return {
        split: {
            name: _thin([line.get(name) for line in rows], points, average=split == "train")
            for name in ("epoch", *dict.fromkeys(name for line in rows for name in line if name not in _NOT_CURVES))
        }
        for split, rows in lines.items()
        if split in ("train", "val")
    }


def thinned(curves: Curves, points: int) -> Curves:
    """The curves with at most that many points in each split, those that stood at regular places."""
    return {
        split: {name: _thin(values, points, average=False) for name, values in columns.items()}
        for split, columns in curves.items()
    }


def _thin(values: Sequence[Any], points: int, *, average: bool) -> list[float | None]:
    numbers = [v if type(v) is float else float(v) if type(v) is int and abs(v) < 1e300 else None for v in values]
    if len(numbers) > points and average:
        parts = (numbers[len(numbers) * i // points : len(numbers) * (i + 1) // points] for i in range(points))
        found = ([value for value in part if value is not None] for part in parts)
        numbers = [sum(part) / len(part) if part else None for part in found]
    elif len(numbers) > points:
        numbers = [numbers[round(place)] for place in np.linspace(0, len(numbers) - 1, points)]
    return [value if value is not None and math.isfinite(value) else None for value in numbers]


def main_metric(rows: pd.DataFrame) -> str:
    """The metric that rows of one task are compared by, of those that every run has."""
    runs = rows.groupby("metric", sort=False)["run"].nunique()
    return preferred(str(rows["task"].iloc[0]), [str(name) for name in runs.index[runs == runs.max()]])


def preferred(task: str, metrics: Sequence[str]) -> str:
    """The first of MAIN_METRICS that is among a task's metrics, else the first of these."""
    return next((name for name in MAIN_METRICS.get(task, {}) if name in metrics), metrics[0])


def metric_label(task: str, metric: str) -> str:
    """How people write a metric: on an axis, or above a column."""
    return MAIN_METRICS.get(task, {}).get(metric, metric)


def with_labels(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows with `label`, where the weights came from: "A2MIM 300 epochs"; in METHOD_ORDER, then by name."""
    labelled = rows.assign(label=[start({**row, "target": ""}) for row in records(rows)])
    place = {method: place for place, method in enumerate(METHOD_ORDER)}
    keys = [
        (place.get(m, len(place)), m, label) for m, label in zip(labelled["method"], labelled["label"], strict=True)
    ]
    return labelled.iloc[sorted(range(len(keys)), key=lambda line: keys[line])]


def lines_of(runs: pd.DataFrame, curves: Mapping[str, Curves], split: str, metric: str) -> Iterator[Line]:
    """A line for each label in `runs` whose runs measured the metric, averaged over the runs.

    Args:
        runs: labelled rows, one for each run.
        curves: of each run.
        split: "train" or "val".
        metric: of finished.json; its curve may lack the ending, as top1 lacks that of top1_last.
    """
    for (method, label), group in runs.groupby(["method", "label"], sort=False):
        found = [curve for run in group["run"] if (curve := _curve(curves[str(run)], split, metric)) is not None]
        if found:
            epochs = found[0][0]
            values = np.stack([np.interp(epochs, *curve) for curve in found])
            yield Line(str(method), str(label), epochs, values.mean(0), values.min(0), values.max(0))


def _curve(curves: Curves, split: str, metric: str) -> tuple[Floats, Floats] | None:
    columns = curves.get(split, {})
    names = [name for name in columns if name != "epoch" and (metric == name or metric.startswith(f"{name}_"))]
    if not names:
        return None
    pairs = zip(columns["epoch"], columns[max(names, key=len)], strict=True)
    known = [(epoch, value) for epoch, value in pairs if epoch is not None and value is not None]
    epochs, values = np.array(known, dtype=np.float64).reshape(-1, 2).T
    return (epochs, values) if len(epochs) else None
