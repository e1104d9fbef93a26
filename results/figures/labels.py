"""The figure of label efficiency: accuracy against the share of labelled images trained on."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from results import metrics
from results.figures.data import first_of, main_metric, natural, on_data, with_labels
from results.figures.style import Drawing, Look, legend_below, looks, panels, seeds_caption
from results.runs.facts import FRACTION
from results.tables.labels import split_variant
from results.tables.text import settings
from suite_tasks import find

_FRACTION = f"data.{FRACTION}"
_MOST_PANELS = 12


def label_efficiency(rows: pd.DataFrame, *, apart: bool = False) -> Iterator[Drawing]:
    """The main metric against the share of labelled images trained on; nothing where there is only one share.

    Frozen encoders (k-NN, logistic regression, ...) have panels of their own beside the fine-tuning of the same network
    on the same images, on the same scale.

    Args:
        rows: of collect.
        apart: every panel as a figure of its own.
    """
    shares = np.array([split_variant(variant)[0] for variant in rows["variant"]], dtype=np.float64)
    told = rows["variant"].str.contains(f"{_FRACTION}=", regex=False)
    found = [
        panel for _, part in rows.assign(fraction=shares)[told].groupby("task", sort=True) for panel in _panels_of(part)
    ]
    tuned = [panel for panel in found if not panel.frozen]
    for task in dict.fromkeys(panel.task for panel in tuned):
        networks = {panel.network for panel in tuned if panel.task == task}
        drawn = [panel for panel in found if panel.task == task or (panel.frozen and panel.network in networks)]
        yield _drawing(task, drawn, apart)
    networks = {panel.network for panel in tuned}
    alone = [panel for panel in found if panel.frozen and panel.network not in networks]
    for task in dict.fromkeys(panel.task for panel in alone):
        yield _drawing(task, [panel for panel in alone if panel.task == task], apart)


@dataclass(frozen=True)
class _Panel:
    """The runs of one network on one set of images by one recipe, and the metric they are compared by."""

    task: str
    network: tuple[str, str]
    title: str
    metric: str
    rows: pd.DataFrame

    @property
    def scale(self) -> tuple[str, str, bool]:
        """Panels of which this is the same have one axis."""
        return *self.network, find(self.task).percent

    @property
    def frozen(self) -> bool:
        """Whether the encoder was only measured."""
        return metrics.measures(self.task)


def _panels_of(rows: pd.DataFrame) -> Iterator[_Panel]:
    """Panels with more than one share of the labels in them, of the rows of one task."""
    setting = rows.assign(setting=[split_variant(variant)[1] for variant in rows["variant"]])
    for (model, recipe, other, data), group in setting.groupby(["model", "recipe", "setting", "data"], sort=True):
        metric = main_metric(group)
        lines = with_labels(group[group["metric"] == metric])
        if lines["fraction"].nunique() > 1:
            task = str(rows["task"].iloc[0])
            frozen = "frozen encoder" if metrics.measures(task) else ""
            told = (str(model), on_data(group, rows), str(recipe), settings(other), frozen)
            yield _Panel(task, (str(model), str(data)), ", ".join(filter(None, told)), metric, lines)


def _drawing(task: str, drawn: Sequence[_Panel], apart: bool) -> Drawing:
    drawn = sorted(drawn, key=lambda panel: (natural(panel.network[0]), panel.network[1], panel.frozen))
    kept, left_out = first_of(drawn, _MOST_PANELS)
    figures, axes = panels([panel.title for panel in kept], apart=apart)
    seen = looks(with_labels(pd.concat([panel.rows for panel in kept])))
    most = max(_panel(ax, panel.rows, seen) for ax, panel in zip(axes, kept, strict=True))
    for ax, panel in zip(axes, kept, strict=True):
        ax.set_xlabel("labelled training images, %")
        ax.set_ylabel(metrics.axis_label(panel.task, metrics.label(panel.metric)))
        same = [other for other, one in zip(axes, kept, strict=True) if one.scale == panel.scale]
        ax.set_ylim(min(other.get_ylim()[0] for other in same), max(other.get_ylim()[1] for other in same))
    legend_below(figures)
    caption = seeds_caption(most, "Means over seeds; bars are the sample standard deviation where there are several.")
    if any(panel.frozen for panel in kept):
        caption += (
            " Panels of a frozen encoder: nothing of it is trained; from scratch is the network without training."
        )
    return Drawing(f"labels-{task}", f"{task.capitalize()}: accuracy against labels", caption + left_out, figures)


def _panel(ax: Axes, group: pd.DataFrame, seen: Mapping[str, Look]) -> int:
    """Draws the lines; returns the most seeds that a point is the mean of."""
    most = 1
    for label, line in group.groupby("label", sort=False):
        stats = line.groupby("fraction")["value"].agg(["mean", "std", "size"]).reset_index()
        most = max(most, int(stats["size"].max()))
        ax.errorbar(
            stats["fraction"] * 100, stats["mean"], stats["std"] if stats["std"].notna().any() else None, label=label,
            capsize=3, elinewidth=1, **seen[str(label)].line(),
        )  # fmt: skip
    ax.set_xscale("log")
    ticks = sorted(group["fraction"].unique())
    ax.set_xticks([100 * share for share in ticks], [f"{100 * share:g}" for share in ticks], minor=False)
    ax.set_xticks([], minor=True)
    return most
