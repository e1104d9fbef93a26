"""Figures of training over time: loss of pre-training, evaluations of what was trained after it."""

from collections.abc import Iterator, Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from results.figures_data import Curves, Line, lines_of, main_metric, metric_label, with_labels
from results.figures_style import Drawing, Look, legend_below, looks, panels

Groups = list[tuple[dict[str, str], pd.DataFrame]]
"""For each panel what tells it apart, and its runs."""

MOST_PANELS = 12  # of one figure; what is more goes to a next one
_SEEDS = "Mean over seeds, shaded from lowest to highest."
_FEW = 15  # evaluations, each of which is marked


def pretraining_curves(rows: pd.DataFrame, curves: Mapping[str, Curves]) -> Iterator[Drawing]:
    """Training loss against epochs, a panel for each model and data set, a line for each method.

    Args:
        rows: of collect.
        curves: of every run in rows.
    """
    runs = rows[rows["task"] == "pretrain"].drop_duplicates("run")
    # A pre-training run is itself what other runs start from: its own epochs and settings tell the lines apart.
    runs = with_labels(runs.assign(pretrain_epochs=runs["epochs"], pretrain_variant=runs["variant"]))
    caption = (
        f"{_SEEDS} Methods have losses of their own: the height of a curve compares the runs of one, not the methods."
    )
    for number, part in enumerate(_pages(runs, ["model", "data"])):
        figure = _page(part, curves, "train", "loss", "loss")
        yield Drawing(_numbered("curves-pretraining", number), "Pre-training: loss", caption, figure)


def finetuning_curves(rows: pd.DataFrame, curves: Mapping[str, Curves]) -> Iterator[Drawing]:
    """The main metric against epochs, a figure for each task and recipe, a panel for each model, setting and data set.

    Runs that were evaluated only at their end have no such curve: for them it is the training loss.

    Args:
        rows: of collect.
        curves: of every run in rows.
    """
    measured = rows[rows["task"] != "pretrain"]
    for (task, recipe), part in measured.groupby(["task", "recipe"], sort=True):
        metric = main_metric(part)
        runs = with_labels(part.drop_duplicates("run"))
        evaluated = any(len(line.epochs) > 1 for line in lines_of(runs, curves, "val", metric))
        split, name = ("val", metric) if evaluated else ("train", "loss")
        axis = metric_label(str(task), metric) if evaluated else "training loss"
        title = f"{str(task).capitalize()}, {recipe}: {'evaluations during training' if evaluated else axis}"
        for number, page in enumerate(_pages(runs, ["model", "variant", "data"])):
            figure = _page(page, curves, split, name, axis)
            yield Drawing(_numbered(f"curves-{task}-{recipe}", number), title, _SEEDS, figure)


def _pages(runs: pd.DataFrame, keys: list[str]) -> Iterator[Groups]:
    """Groups in lists of at most MOST_PANELS, each with those keys that tell the groups apart, and the model."""
    if not len(runs):
        return
    telling = [key for key in keys if key == "model" or runs[key].nunique() > 1]
    groups = [
        ({key: str(group[key].iloc[0]) for key in telling}, group) for _, group in runs.groupby(keys, dropna=False)
    ]
    for first in range(0, len(groups), MOST_PANELS):
        yield groups[first : first + MOST_PANELS]


def _title(keys: Mapping[str, str]) -> str:
    return ", ".join(f"data {value}" if key == "data" else value for key, value in keys.items() if value)


def _numbered(name: str, number: int) -> str:
    return name if number == 0 else f"{name}-{number + 1}"


def _page(groups: Groups, curves: Mapping[str, Curves], split: str, metric: str, axis: str) -> Figure:
    figure, axes = panels([_title(keys) for keys, _ in groups])
    everything = with_labels(pd.concat([group for _, group in groups]))
    seen = looks(list(zip(everything["method"], everything["label"], strict=True)))
    for ax, (_, group) in zip(axes, groups, strict=True):
        for line in lines_of(group, curves, split, metric):
            _draw(ax, line, seen[line.label])
        ax.set_xlabel("epochs")
        ax.set_ylabel(axis)
        ax.xaxis.set_major_locator(MaxNLocator(nbins="auto", steps=[1, 2, 5, 10]))
    legend_below(figure, axes)
    return figure


def _draw(ax: Axes, line: Line, look: Look) -> None:
    every = max(len(line.epochs) // _FEW, 1)
    ax.plot(line.epochs, line.mean, label=line.label, markevery=every, **look.line())
    if (line.high > line.low).any():
        ax.fill_between(line.epochs, line.low, line.high, color=look.color, alpha=0.18, linewidth=0)
