"""Figures of training over time: loss of pre-training, evaluations of what was trained after it."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from results import metrics
from results.figures import expected as figures_expected
from results.figures.data import Line, as_starts, first_of, lines_of, main_metric, natural, with_labels
from results.figures.expected import draw_expected, published_for
from results.figures.style import Drawing, Look, legend_below, looks, panels, seeds_caption
from results.runs.curves import Curves
from results.tables.text import settings

Groups = list[tuple[str, pd.DataFrame, list[Line]]]
"""For each panel its title, its runs and their curves, of which there is at least one."""
Figures = tuple[tuple[Figure, ...], str]
"""Figures and their caption."""

_MONITORED = {
    "knn_top1": ("knn", "k-NN of the frozen encoder", "k-NN top-1, %"),
    "rank_me": ("rank", "effective rank of the features", "RankMe"),
}
"""What a monitor measures of the encoder during pre-training, that is compared over methods."""
_MOST_PANELS, _MOST_LINES = 15, 16  # of one figure
_FEW = 15  # points, each of which is marked
_LONG = 6  # evaluations, of which the later half tells the methods apart
_SEEDS = "Means over seeds, shaded from lowest to highest."
_LATER = " Shown is the later half of training."
_OWN_LOSSES = " Methods have losses of their own: the height of a curve compares the runs of one, not the methods."


def pretraining_curves(rows: pd.DataFrame, curves: Mapping[str, Curves], *, apart: bool = False) -> Iterator[Drawing]:
    """Training loss, and what monitors measured: a panel for each model and data set, a line for each method.

    Args:
        rows: of collect.
        curves: of every run in rows.
        apart: every panel as a figure of its own.
    """
    runs = as_starts(rows[rows["task"].isin(metrics.PRETRAINING)].drop_duplicates("run"))
    groups, left_out = _groups(runs, ["model", "data"], curves, ("train", "loss"))
    if groups:
        figures, caption = _losses(groups, "training loss", apart)
        yield Drawing("curves-pretraining", "Pre-training: loss", caption + _OWN_LOSSES + left_out, figures)
    for metric, (name, title, label) in _MONITORED.items():
        groups, left_out = _groups(runs, ["model", "data"], curves, ("val", metric))
        if groups:
            figures, caption = _losses(groups, label, apart)
            yield Drawing(f"curves-pretraining-{name}", f"Pre-training: {title}", caption + left_out, figures)


def finetuning_curves(rows: pd.DataFrame, curves: Mapping[str, Curves], *, apart: bool = False) -> Iterator[Drawing]:
    """The main metric against epochs, a figure for each task and recipe, a panel for each model, setting and data set.

    Runs that were evaluated only at their end have no such curve: for them it is the training loss.

    Args:
        rows: of collect.
        curves: of every run in rows.
        apart: every panel as a figure of its own.
    """
    measured = rows[~rows["task"].isin(metrics.PRETRAINING)]
    published = published_for(measured)
    for (task, recipe), part in measured.groupby(["task", "recipe"], sort=True):
        metric, runs = main_metric(part), with_labels(part.drop_duplicates("run"))
        keys = ["model", "data", "variant"]
        name, title = f"curves-{task}-{recipe}", f"{str(task).capitalize()}, {recipe}"
        evaluated, left_out = _groups(runs, keys, curves, ("val", metric))
        if evaluated:
            label = metrics.axis_label(str(task), metrics.curve_label(metric))
            figures, caption = _evaluations(evaluated, label, published, apart)
            yield Drawing(name, f"{title}: evaluations", caption + left_out, figures)
            continue
        trained, left_out = _groups(runs, keys, curves, ("train", "loss"))
        if trained:
            figures, caption = _losses(trained, "training loss", apart)
            yield Drawing(name, f"{title}: training loss", caption + left_out, figures)


def _losses(groups: Groups, label: str, apart: bool) -> Figures:
    figures, axes, seen = _axes(groups, label, apart)
    for ax, (_, _, lines) in zip(axes, groups, strict=True):
        _draw(ax, lines, seen)
    legend_below(figures)
    return figures, _seeds(groups)


def _seeds(groups: Groups) -> str:
    return seeds_caption(max(line.n for _, _, lines in groups for line in lines), _SEEDS)


def _evaluations(groups: Groups, label: str, published: Mapping[figures_expected.Key, float], apart: bool) -> Figures:
    figures, axes, seen = _axes(groups, label, apart)
    expected, later = False, False
    for ax, (_, runs, lines) in zip(axes, groups, strict=True):
        _draw(ax, lines, seen)
        numbers = draw_expected(ax, runs, published, seen)
        expected |= bool(numbers)
        if any(len(line.epochs) >= _LONG for line in lines):
            _show_later_half(ax, lines, numbers)
            later = True
    legend_below(figures)
    return figures, _seeds(groups) + _LATER * later + figures_expected.CAPTION * expected


def _show_later_half(ax: Axes, lines: Sequence[Line], numbers: Sequence[float]) -> None:
    late = [values[line.epochs >= line.epochs[-1] / 2] for line in lines for values in (line.low, line.high)]
    shown = np.concatenate([*late, np.array(numbers)])
    margin = 0.08 * (shown.max() - shown.min()) or 1.0
    ax.set_ylim(shown.min() - margin, shown.max() + margin)
    ax.set_xlim(left=0.48 * max(line.epochs[-1] for line in lines))


def _groups(
    runs: pd.DataFrame, keys: list[str], curves: Mapping[str, Curves], what: tuple[str, str]
) -> tuple[Groups, str]:
    """Panels with lines in them, titled by what tells them apart and the model; and what is left out.

    Args:
        runs: labelled, a row for each.
        keys: of one panel.
        curves: of every run.
        what: split and metric of the lines.
    """
    labels, fewer_lines = first_of(list(runs["label"].unique()), _MOST_LINES)
    shown = runs[runs["label"].isin(labels)]
    telling = [key for key in keys if key == "model" or runs[key].nunique() > 1]
    drawn = [(group, list(lines_of(group, curves, *what))) for _, group in shown.groupby(keys, dropna=False)]
    groups = [(_title(group, telling), group, lines) for group, lines in drawn if lines]
    kept, fewer_panels = first_of(sorted(groups, key=lambda entry: natural(entry[0])), _MOST_PANELS)
    return list(kept), fewer_panels or fewer_lines


def _title(group: pd.DataFrame, telling: Sequence[str]) -> str:
    values = {key: settings(group["data_name" if key == "data" else key].iloc[0]) for key in telling}
    return ", ".join(f"on {value}" if key == "data" else value for key, value in values.items() if value)


def _axes(groups: Groups, label: str, apart: bool) -> tuple[tuple[Figure, ...], list[Axes], dict[str, Look]]:
    """The panels, and how each label is drawn in them."""
    figures, axes = panels([title for title, _, _ in groups], apart=apart)
    for ax in axes:
        ax.set_xlabel("epochs")
        ax.set_ylabel(label)
        ax.xaxis.set_major_locator(MaxNLocator(nbins="auto", steps=[1, 2, 5, 10]))
    return figures, axes, looks(with_labels(pd.concat([runs for _, runs, _ in groups])))


def _draw(ax: Axes, lines: Sequence[Line], seen: Mapping[str, Look]) -> None:
    for line in lines:
        look, every = seen[line.label], max(len(line.epochs) // _FEW, 1)
        ax.plot(line.epochs, line.mean, label=line.label, markevery=every, **look.line())
        if (line.high > line.low).any():
            ax.fill_between(line.epochs, line.low, line.high, color=look.color, alpha=0.18, linewidth=0)
