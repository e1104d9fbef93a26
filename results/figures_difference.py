"""The figure of what pre-training changed: difference to training from scratch, with intervals."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from results.figures_data import main_metric, metric_label, records, with_labels
from results.figures_style import INK, PAPER, Drawing, Look, looks
from results.statistics import difference_of

_MOST_LINES, _LINE_INCHES = 36, 0.27


def differences_to_scratch(rows: pd.DataFrame) -> Iterator[Drawing]:
    """One figure, a panel for each task: main metric minus that of the same training from scratch, with intervals.

    Args:
        rows: of collect.
    """
    lines = [line for _, part in rows[rows["task"] != "pretrain"].groupby("task", sort=True) for line in _lines(part)]
    everything = pd.DataFrame(lines)
    for first in range(0, len(lines), _MOST_LINES):
        page = everything.iloc[first : first + _MOST_LINES]
        name = "differences" if first == 0 else f"differences-{first // _MOST_LINES + 1}"
        caption = (
            "Mean difference in percent points; bars are 95 % intervals (Student's t), with seeds paired where both "
            "sides have the same. Hollow: fewer than three seeds, so no interval, and no evidence either."
        )
        yield Drawing(name, "Difference to training from scratch", caption, _figure(page))


def _lines(rows: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """For every start of the weights but scratch: what it changed, where there is a scratch to compare with."""
    metric = main_metric(rows)
    labelled = with_labels(rows[rows["metric"] == metric])
    several = [key for key in ("recipe", "variant", "dataset", "data") if labelled[key].nunique() > 1]
    several = several[:-1] if several[-2:] == ["dataset", "data"] else several  # the name says it, if it differs
    for keys, group in labelled.groupby(["model", "recipe", "variant", "dataset", "data"], sort=True):
        control = _by_seed(group[group["method"] == "scratch"])
        names = dict(zip(("model", "recipe", "variant", "dataset", "data"), map(str, keys), strict=True))
        for (method, label), ours in group[group["method"] != "scratch"].groupby(["method", "label"], sort=False):
            values = _by_seed(ours)
            if control:
                where = ", ".join(names[key] for key in ("model", *several) if names[key])
                line = {"task": rows["task"].iloc[0], "metric": metric, "method": method, "label": label}
                yield line | {"where": where, "n": len(values), **asdict(difference_of(values, control))}


def _by_seed(rows: pd.DataFrame) -> dict[int, float]:
    return {int(row["seed"]): float(row["value"]) for row in records(rows)}


def _figure(lines: pd.DataFrame) -> Figure:
    tasks = list(lines.groupby("task", sort=False))
    heights = [0.8 + _LINE_INCHES * len(part) for _, part in tasks]
    figure = Figure(figsize=(6.8, sum(heights)), layout="constrained")
    grid = figure.subplots(len(tasks), 1, squeeze=False, height_ratios=heights)
    seen = looks(list(zip(lines["method"], lines["label"], strict=True)))
    for ax, (task, part) in zip(grid[:, 0], tasks, strict=True):
        ax.axvline(0, color=INK, linewidth=1)
        for place, line in enumerate(records(part)):
            _draw(ax, place, line, seen[line["label"]])
        ax.set_yticks(range(len(part)), [f"{w}: {m}" for w, m in zip(part["where"], part["label"], strict=True)])
        ax.set_ylim(len(part) - 0.5, -0.5)
        ax.margins(x=0.1)
        ax.set_title(str(task), loc="left")
        ax.set_xlabel(
            f"difference in {metric_label(str(task), str(part['metric'].iloc[0])).removesuffix(', %')}, points"
        )
    return figure


def _draw(ax: Axes, place: int, line: dict[str, Any], look: Look) -> None:
    value, low, high = line["difference"], line["low"], line["high"]
    known = not np.isnan(low)
    style = look.points() | ({} if known else {"markerfacecolor": PAPER, "markeredgecolor": look.color})
    bars = [[value - low], [high - value]] if known else None
    ax.errorbar([value], [place], xerr=bars, linestyle="", capsize=4, elinewidth=1.4, **style)
    paired = ", paired" if known and line["pairs"] else ""
    text = f"{value:+.2f}  (n = {line['n']}{paired})".replace("-", "−")  # the axis has the sign, not the hyphen
    ax.annotate(text, (1.02, place), xycoords=("axes fraction", "data"), va="center", fontsize=8)
