"""The figure of pre-training length: what was gained over training from scratch against the epochs of pre-training."""

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from results import metrics
from results.figures.data import first_of, main_metric, natural, on_data
from results.figures.style import INK, Drawing, Look, legend_below, looks, panels
from results.tables.rows import benchmark_table
from results.tables.text import method, records, settings

_MOST_PANELS = 12
_CAPTION = (
    "mean difference to the same training from scratch, against the epochs of pre-training, in points; bars are "
    "95 % intervals (Student's t), with seeds paired where both sides have the same."
)


def pretraining_lengths(rows: pd.DataFrame, *, apart: bool = False) -> Iterator[Drawing]:
    """Difference of the main metric to scratch against pre-training length, where a method has several lengths.

    Every setting of a network and recipe in which some method has several has a panel, all with one scale.

    Args:
        rows: of collect.
        apart: every panel as a figure of its own.
    """
    for task, part in rows[~rows["task"].isin(metrics.PRETRAINING)].groupby("task", sort=True):
        metric = main_metric(part)
        table = benchmark_table(part[part["metric"] == metric])
        compared = table[table["difference"].notna() & table["pretrain_epochs"].notna()]
        compared = compared.assign(label=[_label(line) for line in records(compared)])
        groups = list(compared.groupby(["model", "recipe", "variant", "data"], sort=False))
        several = [(key, group) for key, group in groups if _lengths_of_a_line(group) > 1]  # a dot is no curve
        if not several:
            continue
        shown, left_out = first_of(sorted(several, key=lambda item: _place(item[0])), _MOST_PANELS)
        titles = [_title(key, on_data(group, compared)) for key, group in shown]
        figures, axes = panels(titles, apart=apart)
        seen = looks(compared)
        for ax, (_, group) in zip(axes, shown, strict=True):
            _panel(ax, group, seen)
            ax.set_ylabel("to scratch, points")
        bottom, top = min(ax.get_ylim()[0] for ax in axes), max(ax.get_ylim()[1] for ax in axes)
        for ax in axes:
            ax.set_ylim(bottom, top)
        legend_below(figures)
        title = f"{str(task).capitalize()}: what pre-training changed, by its length"
        yield Drawing(f"lengths-{task}", title, f"{metrics.label(metric)}: {_CAPTION}{left_out}", figures)


def _title(key: tuple[object, ...], where: str) -> str:
    model, recipe, variant, _ = key
    return ", ".join(filter(None, (str(model), where, str(recipe), settings(variant))))


def _place(key: tuple[object, ...]) -> list[list[str | int]]:
    return [natural(str(part)) for part in key]


def _label(line: Mapping[str, object]) -> str:
    return " ".join(filter(None, (method(line), settings(line["pretrain_variant"]))))


def _lengths_of_a_line(group: pd.DataFrame) -> int:
    return int(group.groupby("label")["pretrain_epochs"].nunique().max())


def _panel(ax: Axes, group: pd.DataFrame, seen: Mapping[str, Look]) -> None:
    ax.axhline(0, color=INK, linewidth=1)
    for label, line in group.groupby("label", sort=False):
        line = line.sort_values("pretrain_epochs")
        difference = line["difference"].to_numpy(np.float64)
        ends = np.stack([difference - line["difference_low"], line["difference_high"] - difference])
        bars = None if np.isnan(ends).all() else ends
        ax.errorbar(
            line["pretrain_epochs"], difference, bars, label=label, capsize=3, elinewidth=1, **seen[str(label)].line()
        )
    ticks = sorted(int(epochs) for epochs in group["pretrain_epochs"].unique())
    if len(ticks) > 1:
        ax.set_xscale("log")
    ax.set_xticks(ticks, [f"{epochs}" for epochs in ticks], minor=False)
    ax.set_xticks([], minor=True)
    ax.set_xlabel("epochs of pre-training")
