"""The figure of label efficiency: accuracy against the share of labelled images trained on."""

import math
from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from results import metrics
from results.figures.data import first_of, main_metric, with_labels
from results.figures.style import Drawing, Look, legend_below, looks, panels, seeds_caption
from results.runs.facts import FRACTION

_FRACTION = f"data.{FRACTION}"
_MOST_PANELS = 12


def label_efficiency(rows: pd.DataFrame, *, apart: bool = False) -> Iterator[Drawing]:
    """The main metric against the share of labelled images trained on; nothing where there is only one share.

    Args:
        rows: of collect.
        apart: every panel as a figure of its own.
    """
    shares = np.array([_fraction(variant) for variant in rows["variant"]], dtype=np.float64)
    measured = rows.assign(fraction=shares)[~np.isnan(shares)]
    for task, part in measured.groupby("task", sort=True):
        metric = main_metric(part)
        labelled = with_labels(part[part["metric"] == metric])
        labelled["setting"] = [_without_fraction(variant) for variant in labelled["variant"]]
        keys = ["model", "recipe", "setting", "data"]
        several = [(k, g) for k, g in labelled.groupby(keys, sort=True) if g["fraction"].nunique() > 1]
        if not several:
            continue
        groups, left_out = first_of(several, _MOST_PANELS)
        titles = [", ".join(filter(None, map(str, key[:3]))) for key, _ in groups]
        figures, axes = panels(titles, apart=apart)
        most = max(_panel(ax, group, looks(labelled)) for ax, (_, group) in zip(axes, groups, strict=True))
        for ax in axes:
            ax.set_xlabel("labelled training images, %")
            ax.set_ylabel(metrics.axis_label(str(task), metrics.label(metric)))
        legend_below(figures)
        caption = seeds_caption(
            most, "Means over seeds; bars are the sample standard deviation where there are several."
        )
        yield Drawing(
            f"labels-{task}", f"{str(task).capitalize()}: accuracy against labels", caption + left_out, figures
        )


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


def _fraction(variant: str) -> float:
    """The share in a variant's text; NaN where all runs have the same, or where it is no number."""
    texts = [part.partition("=")[2] for part in variant.split(" ") if part.startswith(f"{_FRACTION}=")]
    try:
        return float(texts[0]) if texts else math.nan
    except ValueError:
        return math.nan


def _without_fraction(variant: str) -> str:
    return " ".join(part for part in variant.split(" ") if not part.startswith(f"{_FRACTION}="))
