"""What figures are drawn from: rows grouped into panels, and curves averaged into lines."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from results.metrics import headline
from results.runs.curves import Curves
from results.tables.text import records, start

Floats = npt.NDArray[np.float64]

Group = TypeVar("Group")


@dataclass(frozen=True)
class Line:
    """One metric of the runs that differ in nothing but the seed.

    Args:
        epochs: increasing, at least two.
        mean, low, high: over the runs, at those epochs.
        n: how many runs.
    """

    method: str
    label: str
    epochs: Floats
    mean: Floats
    low: Floats
    high: Floats
    n: int


def natural(text: str) -> list[str | int]:
    """Key to sort names by, r50 before r101."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", text)]


def first_of(groups: Sequence[Group], most: int) -> tuple[Sequence[Group], str]:
    """As many of the groups as a figure has room for, and what its caption has to say if that is not all."""
    if len(groups) <= most:
        return groups, ""
    return groups[:most], f" Shown are the first {most} of {len(groups)}; the tables have all."


def on_data(group: pd.DataFrame, everything: pd.DataFrame) -> str:
    """What a panel's title says of its data, "on NAME": nothing where all panels have the same."""
    return f"on {group['data_name'].iloc[0]}" if everything["data"].nunique() > 1 else ""


def as_starts(runs: pd.DataFrame) -> pd.DataFrame:
    """Pre-training runs, labelled as what other runs start from: their own epochs and settings tell them apart."""
    variants = runs["variant"].str.replace(r"(^| )epochs=\d+(?= |$)", "", regex=True).str.strip()
    return with_labels(runs.assign(pretrain_epochs=runs["epochs"], pretrain_variant=variants))


def main_metric(rows: pd.DataFrame) -> str:
    """The metric that rows of one task are compared by, of those that every run has."""
    runs = rows.groupby("metric", sort=False)["run"].nunique()
    return headline(str(rows["task"].iloc[0]), [str(name) for name in runs.index[runs == runs.max()]])


def with_labels(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows with `label`, where the weights came from, by method and length; in the order of methods, then by name."""
    labelled = rows.assign(label=[start(row) for row in records(rows)])
    keys = list(zip(labelled["method_place"], map(natural, labelled["label"]), strict=True))
    return labelled.iloc[sorted(range(len(keys)), key=lambda line: keys[line])]


def lines_of(runs: pd.DataFrame, curves: Mapping[str, Curves], split: str, metric: str) -> Iterator[Line]:
    """A line for each label in `runs` whose runs measured the metric at least twice, averaged over the runs.

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
            yield Line(str(method), str(label), epochs, values.mean(0), values.min(0), values.max(0), len(found))


def _curve(curves: Curves, split: str, metric: str) -> tuple[Floats, Floats] | None:
    columns = curves.get(split, {})
    names = [name for name in columns if name != "epoch" and (metric == name or metric.startswith(f"{name}_"))]
    if not names:
        return None
    pairs = zip(columns["epoch"], columns[max(names, key=len)], strict=True)
    known = [(epoch, value) for epoch, value in pairs if epoch is not None and value is not None]
    epochs, values = np.array(known, dtype=np.float64).reshape(-1, 2).T
    return (epochs, values) if len(epochs) > 1 else None  # a dot is no curve
