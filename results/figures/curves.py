"""Figures of training over time: loss of pre-training, evaluations of what was trained after it."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from results import metrics
from results.figures import expected as figures_expected
from results.figures.data import Line, first_of, lines_of, main_metric, natural, with_labels
from results.figures.expected import draw_expected, published_for
from results.figures.style import Drawing, Look, legend_below, looks, panels
from results.runs.curves import Curves

Groups = list[tuple[str, pd.DataFrame]]
"""For each panel its title and its runs."""

_MOST_PANELS, _MOST_LINES = 15, 16  # of one figure
_FEW = 15  # points, each of which is marked
_LONG = 6  # evaluations, of which the later half tells the methods apart
_SEEDS = "Mean over seeds, shaded from lowest to highest."
_LATER = " Shown is the later half of training."
_OWN_LOSSES = " Methods have losses of their own: the height of a curve compares the runs of one, not the methods."


def pretraining_curves(rows: pd.DataFrame, curves: Mapping[str, Curves]) -> Iterator[Drawing]:
    """Training loss against epochs, a panel for each model and data set, a line for each method.

    Args:
        rows: of collect.
        curves: of every run in rows.
    """
    runs = rows[rows["task"] == "pretrain"].drop_duplicates("run")
    if len(runs):
        # A pre-training run is itself what other runs start from: its own epochs and settings tell the lines apart.
        runs = with_labels(runs.assign(pretrain_epochs=runs["epochs"], pretrain_variant=runs["variant"]))
        groups, left_out = _groups(runs, ["model", "data"])
        figure = _losses(groups, curves, "loss")
        yield Drawing("curves-pretraining", "Pre-training: loss", _SEEDS + _OWN_LOSSES + left_out, figure)


def finetuning_curves(rows: pd.DataFrame, curves: Mapping[str, Curves]) -> Iterator[Drawing]:
    """The main metric against epochs, a figure for each task and recipe, a panel for each model, setting and data set.

    Runs that were evaluated only at their end have no such curve: for them it is the training loss.

    Args:
        rows: of collect.
        curves: of every run in rows.
    """
    measured = rows[rows["task"] != "pretrain"]
    published = published_for(measured)
    for (task, recipe), part in measured.groupby(["task", "recipe"], sort=True):
        metric = main_metric(part)
        groups, left_out = _groups(with_labels(part.drop_duplicates("run")), ["model", "variant", "data"])
        name, title = f"curves-{task}-{recipe}", f"{str(task).capitalize()}, {recipe}"
        lines = [line for _, group in groups for line in lines_of(group, curves, "val", metric)]
        if any(len(line.epochs) > 1 for line in lines):
            figure, caption = _evaluations(groups, curves, metric, published)
            yield Drawing(name, f"{title}: evaluations", caption + left_out, figure)
        else:
            figure = _losses(groups, curves, "training loss")
            yield Drawing(name, f"{title}: training loss", _SEEDS + left_out, figure)


def _losses(groups: Groups, curves: Mapping[str, Curves], label: str) -> Figure:
    figure, axes, seen = _axes(groups, label)
    for ax, (_, group) in zip(axes, groups, strict=True):
        _draw(ax, list(lines_of(group, curves, "train", "loss")), seen)
    legend_below(figure, axes)
    return figure


def _evaluations(
    groups: Groups, curves: Mapping[str, Curves], metric: str, published: Mapping[figures_expected.Key, float]
) -> tuple[Figure, str]:
    """The figure and its caption."""
    figure, axes, seen = _axes(groups, f"{metrics.label(metric)}, %")
    expected, later = False, False
    for ax, (_, group) in zip(axes, groups, strict=True):
        lines = list(lines_of(group, curves, "val", metric))
        _draw(ax, lines, seen)
        numbers = draw_expected(ax, group, published, seen)
        expected |= bool(numbers)
        if any(len(line.epochs) >= _LONG for line in lines):
            _show_later_half(ax, lines, numbers)
            later = True
    legend_below(figure, axes)
    return figure, _SEEDS + _LATER * later + figures_expected.CAPTION * expected


def _show_later_half(ax: Axes, lines: Sequence[Line], numbers: Sequence[float]) -> None:
    late = [values[line.epochs >= line.epochs[-1] / 2] for line in lines for values in (line.low, line.high)]
    shown = np.concatenate([*late, np.array(numbers)])
    margin = 0.08 * (shown.max() - shown.min()) or 1.0
    ax.set_ylim(shown.min() - margin, shown.max() + margin)
    ax.set_xlim(left=0.48 * max(line.epochs[-1] for line in lines))


def _groups(runs: pd.DataFrame, keys: list[str]) -> tuple[Groups, str]:
    """Panels, titled by what tells them apart and the model; and what is left out."""
    labels, fewer_lines = first_of(list(runs["label"].unique()), _MOST_LINES)
    shown = runs[runs["label"].isin(labels)]
    telling = [key for key in keys if key == "model" or runs[key].nunique() > 1]
    groups = [(_title(group, telling), group) for _, group in shown.groupby(keys, dropna=False)]
    kept, fewer_panels = first_of(sorted(groups, key=lambda entry: natural(entry[0])), _MOST_PANELS)
    return list(kept), fewer_panels or fewer_lines


def _title(group: pd.DataFrame, telling: Sequence[str]) -> str:
    values = {key: str(group[key].iloc[0]) for key in telling}
    return ", ".join(f"data {value}" if key == "data" else value for key, value in values.items() if value)


def _axes(groups: Groups, label: str) -> tuple[Figure, list[Axes], dict[str, Look]]:
    """The panels, and how each label is drawn in them."""
    figure, axes = panels([title for title, _ in groups])
    for ax in axes:
        ax.set_xlabel("epochs")
        ax.set_ylabel(label)
        ax.xaxis.set_major_locator(MaxNLocator(nbins="auto", steps=[1, 2, 5, 10]))
    everything = with_labels(pd.concat([group for _, group in groups]))
    return figure, axes, looks(everything)


def _draw(ax: Axes, lines: Sequence[Line], seen: Mapping[str, Look]) -> None:
    for line in lines:
        look, every = seen[line.label], max(len(line.epochs) // _FEW, 1)
        ax.plot(line.epochs, line.mean, label=line.label, markevery=every, **look.line())
        if (line.high > line.low).any():
            ax.fill_between(line.epochs, line.low, line.high, color=look.color, alpha=0.18, linewidth=0)
