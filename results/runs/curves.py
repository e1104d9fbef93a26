"""The curves of a run: the lines of its metrics.jsonl by split and metric, at most so many points of each."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

Curves = dict[str, dict[str, list[float | None]]]
"""{"train" or "val": {"epoch": [...], metric: [...], ...}}, all lists of a split equally long."""

_POINTS = 100
_NOT_CURVES = ("step", "epoch", "split", "num_images")


def curves_from(lines: Iterable[Mapping[str, Any]], points: int = _POINTS) -> Curves:
    """The curves in the lines of a metrics.jsonl.

    Args:
        lines: of a run.
        points: how many to keep of each split: means of as many stretches in training, evaluations as they are.
    """
    by_split: dict[str, list[Mapping[str, Any]]] = {}
    for line in lines:
        by_split.setdefault(str(line.get("split")), []).append(line)
    return {
        split: {
            name: _thin([line.get(name) for line in rows], points, average=split == "train")
            for name in ("epoch", *dict.fromkeys(name for line in rows for name in line if name not in _NOT_CURVES))
        }
        for split, rows in by_split.items()
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
