"""The figure of what a result costs: accuracy against hours of computing."""

from collections.abc import Iterator, Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from results import metrics
from results.figures.data import first_of, main_metric, on_data, with_labels
from results.figures.style import Drawing, Look, clipped, legend_below, looks, panels, seeds_caption
from results.tables.text import records, settings

_MOST_PANELS = 12
_LONGEST = 24  # characters of a model's name beside its point
_UNITS = (("hours", 1.0), ("minutes", 60.0), ("seconds", 3600.0))
_SEVERAL_TIMES = 8.0  # a range of costs that only a logarithmic axis shows


def accuracy_against_cost(rows: pd.DataFrame, *, apart: bool = False) -> Iterator[Drawing]:
    """A figure for each task, a panel for each recipe, setting and data set: main metric against hours of computing.

    Args:
        rows: of collect.
        apart: every panel as a figure of its own.
    """
    for task, part in rows[~rows["task"].isin(metrics.PRETRAINING)].groupby("task", sort=True):
        metric = main_metric(part)
        points = _points(part[part["metric"] == metric])
        unit, per_hour = next(unit for unit in _UNITS if points["hours"].max() * unit[1] >= 1 or unit is _UNITS[-1])
        points["cost"] = points["hours"] * per_hour
        seen = looks(points)
        groups, left_out = first_of(list(points.groupby(["recipe", "variant", "data"], sort=True)), _MOST_PANELS)
        titles = [(settings(keys[0]), on_data(group, points), settings(keys[1])) for keys, group in groups]
        figures, axes = panels([", ".join(filter(None, told)) for told in titles], apart=apart)
        for ax, (_, group) in zip(axes, groups, strict=True):
            _panel(ax, group, seen)
            ax.set_xlabel(f"device-{unit}, pre-training included")
            ax.set_ylabel(metrics.axis_label(str(task), metrics.label(metric)))
        legend_below(figures)
        caption = "Time times devices of a run and of the pre-training it started from. " + seeds_caption(
            points["n"].max(), "Means over seeds; bars are the sample standard deviation where there are several."
        )
        caption += " Times compare runs on the same kind of device only."
        yield Drawing(f"cost-{task}", f"{str(task).capitalize()}: accuracy against cost", caption + left_out, figures)


def _panel(ax: Axes, group: pd.DataFrame, seen: Mapping[str, Look]) -> None:
    if group["model"].nunique() > 1:
        for model, line in group.groupby("model", sort=True):
            last = records(line.sort_values("cost"))[-1]
            ax.annotate(
                clipped(str(model), _LONGEST),
                (last["cost"], last["mean"]),
                (6, 4),
                textcoords="offset points",
                fontsize=8,
            )
    for label, line in group.groupby("label", sort=False):
        ax.errorbar(
            line["cost"], line["mean"], line["std"] if line["std"].notna().any() else None, label=label, linestyle="",
            capsize=3, elinewidth=1, **seen[str(label)].points(),
        )  # fmt: skip
    _cost_axis(ax, group["cost"])


def _points(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean, standard deviation and mean device-hours for each start of the weights in each experiment."""
    hours = (rows["seconds"] + rows["pretrain_seconds"]) * rows["devices"].fillna(1) / 3600
    keys = ["recipe", "variant", "data", "data_name", "model", "method_place", "label"]
    return (
        with_labels(rows.assign(hours=hours))
        .groupby(keys, sort=False)
        .agg(mean=("value", "mean"), std=("value", "std"), n=("value", "size"), hours=("hours", "mean"))
        .reset_index()
    )


def _cost_axis(ax: Axes, hours: "pd.Series[float]") -> None:
    if hours.min() > 0 and hours.max() > _SEVERAL_TIMES * hours.min():
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=9))
        ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")  # the usual one writes in TeX
        ax.xaxis.set_minor_formatter(NullFormatter())
    else:
        ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.margins(x=0.15, y=0.15)
