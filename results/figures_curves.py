"""Figures of training over time: loss of pre-training, evaluations of what was trained after it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from results.figures_data import Curves, Line, first_of, lines_of, main_metric, metric_label, with_labels
from results.figures_style import Drawing, Look, clipped, legend_below, looks, panels
from results.published import load_published
from results.tables_comparison import compare_with_published
from results.tables_text import records

Groups = list[tuple[dict[str, str], pd.DataFrame]]
"""For each panel what tells it apart, and its runs."""
Key = tuple[str, ...]
"""Model, recipe, variant, data and label."""

_MOST_PANELS, _MOST_FIGURES, _MOST_LINES = 12, 2, 16  # of one figure, of one task and recipe, of a figure
_SEEDS = "Mean over seeds, shaded from lowest to highest."
_EXPECTED = (
    "Dotted: the accuracy published for the same data set, architecture, method, recipe and lengths of training, which "
    "a curve is expected to end at."
)
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
    pages, left_out = _pages(runs, ["model", "data"])
    for number, page in enumerate(pages):
        figure = _page(page, curves, "train", "loss", "loss")
        yield Drawing(_numbered("curves-pretraining", number), "Pre-training: loss", caption + left_out, figure)


def finetuning_curves(rows: pd.DataFrame, curves: Mapping[str, Curves]) -> Iterator[Drawing]:
    """The main metric against epochs, a figure for each task and recipe, a panel for each model, setting and data set.

    Runs that were evaluated only at their end have no such curve: for them it is the training loss.

    Args:
        rows: of collect.
        curves: of every run in rows.
    """
    measured = rows[rows["task"] != "pretrain"]
    published = _published(measured)
    for (task, recipe), part in measured.groupby(["task", "recipe"], sort=True):
        metric = main_metric(part)
        runs = with_labels(part.drop_duplicates("run"))
        evaluated = any(len(line.epochs) > 1 for line in lines_of(runs, curves, "val", metric))
        split, name = ("val", metric) if evaluated else ("train", "loss")
        axis = metric_label(str(task), metric) if evaluated else "training loss"
        title = f"{str(task).capitalize()}, {recipe}: {'evaluations during training' if evaluated else axis}"
        pages, left_out = _pages(runs, ["model", "variant", "data"])
        for number, page in enumerate(pages):
            figure = _page(page, curves, split, name, axis)
            expected = evaluated and _draw_expected(figure.axes, page, published)
            caption = f"{_SEEDS} {_EXPECTED}" if expected else _SEEDS
            yield Drawing(_numbered(f"curves-{task}-{recipe}", number), title, caption + left_out, figure)


def _published(rows: pd.DataFrame) -> dict[Key, float]:
    """What was published for the same as a run: data set, architecture, method, recipe and lengths of training."""
    if not len(rows):
        return {}
    lines = compare_with_published(rows, load_published())
    known = lines[(lines["origin"] == "measured") & lines["published"].notna()]
    main = known[known["metric"].isin(("top1", "box_AP", "mIoU"))]
    return {_key(line): float(line["published"]) for line in records(with_labels(main.assign(target="")))}


def _key(line: Mapping[str, Any]) -> Key:
    return tuple(str(line[name]) for name in ("model", "recipe", "variant", "data", "label"))


def _draw_expected(axes: Sequence[Axes], groups: Groups, published: Mapping[Key, float]) -> bool:
    """A thin line across the panel at the published number of each line; returns whether there was any."""
    keys = [_key(line) for _, group in groups for line in records(group.drop_duplicates("label"))]
    if not published.keys() & set(keys):
        return False
    for ax, (_, group) in zip(axes, groups, strict=True):
        colors = {str(line.get_label()): line.get_color() for line in ax.get_lines()}
        for line in records(group.drop_duplicates("label")):
            value = published.get(_key(line))
            if value is not None:
                ax.axhline(value, color=colors[line["label"]], linewidth=0.9, linestyle=":")
                text = f"{clipped(line['label'])}, published {value:g}"
                ax.annotate(text, (0.02, value), (0, 2), xycoords=("axes fraction", "data"), textcoords="offset points",
                            fontsize=6.5)  # fmt: skip
    return True


def _pages(runs: pd.DataFrame, keys: list[str]) -> tuple[list[Groups], str]:
    """Groups for each figure, with those keys that tell the groups apart, and the model; and what is left out."""
    if not len(runs):
        return [], ""
    labels, fewer_lines = first_of(list(runs["label"].unique()), _MOST_LINES)
    shown = runs[runs["label"].isin(labels)]
    telling = [key for key in keys if key == "model" or runs[key].nunique() > 1]
    groups = [
        ({key: str(group[key].iloc[0]) for key in telling}, group) for _, group in shown.groupby(keys, dropna=False)
    ]
    kept, fewer_panels = first_of(groups, _MOST_PANELS * _MOST_FIGURES)
    pages = [list(kept[first : first + _MOST_PANELS]) for first in range(0, len(kept), _MOST_PANELS)]
    return pages, fewer_panels or fewer_lines


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
