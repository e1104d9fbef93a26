"""The figure of what pre-training changed: difference to training from scratch, with intervals."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from results import metrics
from results.figures.data import first_of, main_metric, natural, with_labels
from results.figures.style import INK, PAPER, Drawing, Look, clipped_pair, looks
from results.tables.rows import benchmark_table
from results.tables.text import change, records, settings

_MOST_LINES, _MOST_FIGURES, _LINE_INCHES = 36, 3, 0.38
_WIDE, _NARROW = (6.8, 76), (4.6, 46)  # inches, and characters that have room above a bar
_MORE = f" Shown are the first {_MOST_LINES * _MOST_FIGURES} differences; the tables have all."
_CAPTION = (
    "Mean difference in percent points; bars are 95 % intervals (Student's t), with seeds paired where both sides have "
    "the same. ~ not significant. Hollow: fewer than three seeds, so no interval, and no evidence either."
)


def differences_to_scratch(rows: pd.DataFrame, *, apart: bool = False) -> Iterator[Drawing]:
    """One figure, a panel for each task: main metric minus that of the same training from scratch, with intervals.

    Args:
        rows: of collect.
        apart: as narrow as a panel of its own.
    """
    tasks = [part for _, part in rows[~rows["task"].isin(metrics.PRETRAINING)].groupby("task", sort=True)]
    found = [lines for part in tasks if len(lines := _lines(part))]
    everything = pd.concat(found) if found else pd.DataFrame()
    pages, left_out = first_of(range(0, len(everything), _MOST_LINES), _MOST_FIGURES)
    for number, first in enumerate(pages):
        name = "differences" if number == 0 else f"differences-{number + 1}"
        figure = _figure(everything.iloc[first : first + _MOST_LINES], *(_NARROW if apart else _WIDE))
        yield Drawing(name, "Difference to training from scratch", _CAPTION + (left_out and _MORE), (figure,))


def _lines(rows: pd.DataFrame) -> pd.DataFrame:
    """For every start of the weights but scratch what it changed, and `where`: what tells the experiments apart."""
    metric = main_metric(rows)
    table = benchmark_table(rows[rows["metric"] == metric])
    labelled = with_labels(table[table["difference"].notna()])
    telling = ["model", *(key for key in ("recipe", "variant", "data") if labelled[key].nunique() > 1)]
    where = [", ".join(settings(line[key]) for key in telling if line[key]) for line in records(labelled)]
    return labelled.assign(where=where).sort_values("where", key=lambda names: names.map(natural), kind="stable")


def _figure(lines: pd.DataFrame, width: float, longest: int) -> Figure:
    tasks = list(lines.groupby("task", sort=False))
    heights = [0.9 + _LINE_INCHES * len(part) for _, part in tasks]
    figure = Figure(figsize=(width, sum(heights)), layout="constrained")
    grid = figure.subplots(len(tasks), 1, squeeze=False, height_ratios=heights)
    seen = looks(lines)
    for ax, (task, part) in zip(grid[:, 0], tasks, strict=True):
        ax.axvline(0, color=INK, linewidth=1)
        for place, line in enumerate(records(part)):
            _draw(ax, place, line, seen[line["label"]], longest)
        ax.set_yticks([])
        ax.spines["left"].set_visible(False)  # the names begin where it would stand
        ax.set_ylim(len(part) - 0.5, -0.7)
        ax.margins(x=0.1)
        ax.set_title(str(task), loc="left", fontweight="bold")
        ax.set_xlabel(f"difference in {metrics.label(str(part['metric'].iloc[0]))}, points")
    return figure


def _draw(ax: Axes, place: int, line: dict[str, Any], look: Look, longest: int) -> None:
    value, low, high = line["difference"], line["difference_low"], line["difference_high"]
    known = not np.isnan(low)
    style = look.points() | ({} if known else {"markerfacecolor": PAPER, "markeredgecolor": look.color})
    bars = [[value - low], [high - value]] if known else None
    ax.errorbar([value], [place + 0.1], xerr=bars, linestyle="", capsize=4, elinewidth=1.4, **style)
    paired = ", paired" if known and line["pairs"] else ""
    text = f"{change(line, ends=False)} (n = {line['n']}{paired})".replace("-", "−")  # the axis has the sign too
    paper = {"facecolor": PAPER, "edgecolor": "none", "pad": 0.5}
    above: Any = {"xycoords": ("axes fraction", "data"), "va": "center", "fontsize": 8, "bbox": paper}
    # What it is stands above its bar, and not beside the axes: a narrow page has no room there.
    ax.annotate(clipped_pair(line["where"], line["label"], longest), (0, place - 0.3), **above)
    ax.annotate(text, (1, place - 0.3), ha="right", **above)
