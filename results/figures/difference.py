"""The figure of what pre-training changed: difference to training from scratch, with intervals."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from results import metrics
from results.figures.data import first_of, main_metric, natural, with_labels
from results.figures.style import INK, PAPER, Drawing, Look, clipped, looks
from results.tables.rows import benchmark_table
from results.tables.text import change, records, settings

_MOST_LINES, _MOST_FIGURES = 36, 3
_APART_LINES = 8  # differences in a panel of its own
_LINE_INCHES, _NAME_INCHES, _AXIS_INCHES = 0.36, 0.22, 0.75
_WIDE, _NARROW = (6.8, 100), (4.6, 66)  # inches, and characters that have room above the bars
_BAR = 0.1  # how far below the middle of its line a bar lies: above it stands what it is
_MORE = f" Shown are about the first {_MOST_LINES * _MOST_FIGURES} differences; the tables have all."
_CAPTION = (
    "Mean difference in percent points; bars are 95 % intervals (Student's t), with seeds paired where both sides have "
    "the same. ~ not significant. Hollow: fewer than three seeds, so no interval, and no evidence either."
)


def differences_to_scratch(rows: pd.DataFrame, *, apart: bool = False) -> Iterator[Drawing]:
    """One figure, a panel for each task: main metric minus that of the same training from scratch, with intervals.

    Args:
        rows: of collect.
        apart: every panel as a figure of its own, narrow.
    """
    tasks = [part for _, part in rows[~rows["task"].isin(metrics.PRETRAINING)].groupby("task", sort=True)]
    found = [lines for part in tasks if len(lines := _lines(part))]
    everything = pd.concat(found) if found else pd.DataFrame()
    pages, left_out = first_of(list(_pages(everything)), _MOST_FIGURES)
    for number, page in enumerate(pages):
        name = "differences" if number == 0 else f"differences-{number + 1}"
        parts = [part for _, part in page.groupby("task", sort=False)]
        seen = looks(page)
        if apart:
            figures = tuple(_figure([piece], seen, *_NARROW) for part in parts for piece in _pieces(part))
            _align(figures, [piece["task"].iloc[0] for part in parts for piece in _pieces(part)])
        else:
            figures = (_figure(parts, seen, *_WIDE),)
        which = f" ({number + 1} of {len(pages)})" if len(pages) > 1 else ""
        yield Drawing(name, f"Difference to training from scratch{which}", _CAPTION + (left_out and _MORE), figures)


def _pages(lines: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """About _MOST_LINES lines each; an experiment is whole unless it alone has more."""
    begun: list[pd.DataFrame] = []
    for _, experiment in lines.groupby(["task", "where"], sort=False) if len(lines) else ():
        for first in range(0, len(experiment), _MOST_LINES):
            part = experiment.iloc[first : first + _MOST_LINES]
            if begun and sum(map(len, begun)) + len(part) > _MOST_LINES:
                yield pd.concat(begun)
                begun = []
            begun.append(part)
    if begun:
        yield pd.concat(begun)


def _pieces(lines: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """Whole experiments, about _APART_LINES of them all: columns of a page are filled with small pieces."""
    sizes = lines.groupby("where", sort=False).size()
    number = (sizes.cumsum() - sizes) // _APART_LINES
    for _, piece in lines.groupby(lines["where"].map(number), sort=False):
        yield piece


def _align(figures: Sequence[Figure], tasks: Sequence[str]) -> None:
    """One scale for the pieces of a task."""
    for task in set(tasks):
        axes = [figure.axes[0] for figure, name in zip(figures, tasks, strict=True) if name == task]
        limits = [ax.get_xlim() for ax in axes]
        for ax in axes:
            ax.set_xlim(min(low for low, _ in limits), max(high for _, high in limits))


def _lines(rows: pd.DataFrame) -> pd.DataFrame:
    """For every start of the weights but scratch what it changed, and `where`: what tells the experiments apart."""
    metric = main_metric(rows)
    table = benchmark_table(rows[rows["metric"] == metric])
    labelled = with_labels(table[table["difference"].notna()])
    # What tells most stands first: a long name is cut off.
    measured = metrics.measures(str(rows["task"].iloc[0]))  # by a protocol, which is its recipe
    several = (key for key in ("data", "recipe", "variant") if labelled[key].nunique() > 1)
    telling = list(dict.fromkeys(["model", *["recipe"] * measured, *several]))
    where = [
        ", ".join(f"on {line['data_name']}" if key == "data" else settings(line[key]) for key in telling if line[key])
        for line in records(labelled)
    ]
    return labelled.assign(where=where).sort_values("where", key=lambda names: names.map(natural), kind="stable")


def _figure(panels: Sequence[pd.DataFrame], seen: Mapping[str, Look], width: float, longest: int) -> Figure:
    heights = [_height(part) for part in panels]
    figure = Figure(figsize=(width, sum(heights)), layout="constrained")
    grid = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)
    for ax, part in zip(grid[:, 0], panels, strict=True):
        _draw(ax, part, seen, longest)
        ax.set_title(str(part["task"].iloc[0]), loc="left", fontweight="bold")
        ax.set_xlabel(f"difference in {metrics.label(str(part['metric'].iloc[0]))}, points")
    return figure


def _height(lines: pd.DataFrame) -> float:
    return _AXIS_INCHES + _NAME_INCHES * lines["where"].nunique() + _LINE_INCHES * len(lines)


def _draw(ax: Axes, lines: pd.DataFrame, seen: Mapping[str, Look], longest: int) -> None:
    """The experiments below each other, each with its name and a bar for each start; inches from the top down."""
    top = 0.0
    for where, part in lines.groupby("where", sort=False):
        _write(ax, clipped(str(where), longest), 0, top + _NAME_INCHES / 2)
        top += _NAME_INCHES
        for line in records(part):
            _bar(ax, top, line, seen[line["label"]], longest)
            top += _LINE_INCHES
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)  # the names begin where it would stand
    ax.set_ylim(top, 0)
    ax.margins(x=0.1)
    low, high = ax.get_xlim()
    ax.set_xlim(min(low, 0), max(high, 0))


def _bar(ax: Axes, top: float, line: dict[str, Any], look: Look, longest: int) -> None:
    value, low, high = line["difference"], line["difference_low"], line["difference_high"]
    known = not np.isnan(low)
    style = look.points() | ({} if known else {"markerfacecolor": PAPER, "markeredgecolor": look.color})
    bars = [[value - low], [high - value]] if known else None
    place = top + _LINE_INCHES / 2 + _BAR
    # The axis of no difference beside the bars alone: what stands above them would lie on it.
    ax.plot([0, 0], [place - 0.08, place + 0.08], color=INK, linewidth=1, zorder=1)
    ax.errorbar([value], [place], xerr=bars, linestyle="", capsize=4, elinewidth=1.4, **style)
    paired = ", paired" if known and line["pairs"] else ""
    text = f"{change(line, ends=False)} (n = {line['n']}{paired})".replace("-", "−")  # the axis has the sign too
    _write(ax, clipped(line["label"], longest - len(text) - 2), 0.015, top + _LINE_INCHES / 2 - 0.07)
    _write(ax, text, 1, top + _LINE_INCHES / 2 - 0.07, ha="right")


def _write(ax: Axes, text: str, x: float, y: float, **options: Any) -> None:
    """Text on paper, which hides the lines of the grid behind it; x is a share of the width."""
    paper = {"facecolor": PAPER, "edgecolor": "none", "pad": 0.5}
    ax.annotate(text, (x, y), xycoords=("axes fraction", "data"), va="center", fontsize=8, bbox=paper, **options)
