"""The figure of what a result costs: accuracy against hours of computing."""

from collections.abc import Iterator

import pandas as pd
from matplotlib.axes import Axes

from results.figures_data import main_metric, metric_label, records, with_labels
from results.figures_style import FAINT, Drawing, legend_below, looks, panels

_SEVERAL_TIMES = 8.0  # a range of costs that only a logarithmic axis shows


def accuracy_against_cost(rows: pd.DataFrame) -> Iterator[Drawing]:
    """A figure for each task, a panel for each recipe, setting and data set: main metric against hours of computing.

    Args:
        rows: of collect.
    """
    for task, part in rows[rows["task"] != "pretrain"].groupby("task", sort=True):
        metric = main_metric(part)
        points = _points(part[part["metric"] == metric])
        seen = looks(list(zip(points["method"], points["label"], strict=True)))
        groups = list(points.groupby(["recipe", "variant", "data"], sort=True))
        figure, axes = panels([", ".join(filter(None, map(str, keys[:2]))) for keys, _ in groups])
        for ax, (_, group) in zip(axes, groups, strict=True):
            for model, line in group.groupby("model", sort=True):
                ax.plot(line["hours"], line["mean"], color=FAINT, linewidth=0.8, zorder=1)
                last = records(line.sort_values("hours"))[-1]
                ax.annotate(str(model), (last["hours"], last["mean"]), (6, 4), textcoords="offset points", fontsize=8)
            for label, line in group.groupby("label", sort=False):
                ax.errorbar(
                    line["hours"], line["mean"], line["std"], label=label, linestyle="", capsize=3, elinewidth=1,
                    **seen[str(label)].points(),
                )  # fmt: skip
            _cost_axis(ax, group["hours"])
            ax.set_ylabel(metric_label(str(task), metric))
        legend_below(figure, axes)
        caption = (
            "Hours times devices of a run and of the pre-training it started from, mean over seeds; bars are the "
            "sample standard deviation where there are several. Grey lines join the points of a model. Hours compare "
            "runs on the same kind of device only."
        )
        yield Drawing(f"cost-{task}", f"{str(task).capitalize()}: accuracy against cost", caption, figure)


def _points(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean, standard deviation and mean device-hours for each start of the weights in each experiment."""
    hours = (rows["seconds"] + rows["pretrain_seconds"]) * rows["devices"].fillna(1) / 3600
    keys = ["recipe", "variant", "data", "model", "method", "label"]
    return (
        with_labels(rows.assign(hours=hours))
        .groupby(keys, sort=False)
        .agg(mean=("value", "mean"), std=("value", "std"), hours=("hours", "mean"))
        .reset_index()
    )


def _cost_axis(ax: Axes, hours: "pd.Series[float]") -> None:
    ax.set_xlabel("device-hours, pre-training included")
    if hours.min() > 0 and hours.max() > _SEVERAL_TIMES * hours.min():
        ax.set_xscale("log")
    ax.margins(x=0.15, y=0.15)
