"""Figures of what explains an encoder: one for the command that measured it, for the figures and for the page."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from results.figures.activation import activation_maps
from results.figures.data import first_of, with_labels
from results.figures.style import GRID, PAPER, Drawing, Look, clipped, legend_below, looks, panels
from results.runs.curves import Curves
from results.runs.runfiles import is_file, read_json
from results.tables.text import records, settings

ANALYSIS = "analysis"
"""The task of these runs."""
_MOST_PANELS = 9
_LONGEST_NAME = 30  # of an encoder along an axis
_DEEP_TO_SHALLOW = "plasma_r"


def draw_analysis(
    recipe: str, lines: pd.DataFrame, folders: Mapping[str, Path], *, apart: bool = False
) -> Iterator[Drawing]:
    """The figures of one analysis of several encoders.

    Args:
        recipe: its name; one that is not known here has none.
        lines: `encoder`, `method_place` (chooses the look), `at` (place on the axis), and the values of each line; of
            CKA also `other`, the encoder that this one is compared with.
        folders: run folder of each encoder, for what metrics.jsonl does not hold.
        apart: every panel as a figure of its own.
    """
    if recipe == "interactions":
        yield _interactions(lines, apart)
    elif recipe == "fourier":
        yield _depths(lines, apart)
        yield from _spectra(folders, apart)
    elif recipe == "robustness":
        yield _robustness(lines, apart)
    elif recipe == "landscape":
        yield _plane(lines, apart) if "y" in lines else _line_of_losses(lines, apart)
    elif recipe == "cka":
        yield _cka(lines, apart)
    elif recipe == "cam":
        yield from activation_maps(folders, apart=apart)


def analyses(rows: pd.DataFrame, curves: Mapping[str, Curves], *, apart: bool = False) -> Iterator[Drawing]:
    """The figures of every analysis among the runs: for each analysis, model, settings and data set its own.

    Args:
        rows: of collect.
        curves: of every run in rows.
        apart: every panel as a figure of its own.
    """
    runs = rows[rows["task"] == ANALYSIS].drop_duplicates("run").sort_values("seed", kind="stable")
    runs = runs.assign(other=[_compared_with(Path(str(run))) for run in runs["run"]])
    for (recipe, model, variant, _), group in runs.groupby(["recipe", "model", "variant", "data"], sort=True):
        labelled = records(with_labels(group).drop_duplicates(["label", "other"]))
        parts = []
        for row in labelled:
            part = pd.DataFrame(curves[str(row["run"])].get("val", {})).iloc[:-1]  # the last line holds the summary
            told = {"encoder": row["label"], "other": row["other"], "method_place": row["method_place"]}
            parts.append(part.assign(**told, at=part["epoch"]))
        folders = {str(row["label"]): Path(str(row["run"])) for row in labelled}
        frame = pd.concat(parts, ignore_index=True).dropna(axis="columns", how="all")
        for drawing in draw_analysis(str(recipe), frame, folders, apart=apart):
            where = ", ".join(filter(None, [str(model), settings(str(variant))]))
            yield replace(drawing, name=f"{ANALYSIS}-{drawing.name}-{model}", title=f"{drawing.title}: {where}")


def _compared_with(run: Path) -> str:
    return other_name(str(read_json(run / "config.json")["config"].get("other", "")))


def other_name(reference: str) -> str:
    """What a figure calls an encoder of which it knows only how it was referred to: its folder or file."""
    return Path(reference).name


def _looks(lines: pd.DataFrame) -> dict[str, Look]:
    return looks(lines.assign(label=lines["encoder"]))


def _colorbars(figures: Sequence[Figure], drawn: Any, **options: Any) -> None:
    """One scale of colours beside the panels of each figure."""
    for figure in figures:
        figure.colorbar(drawn, ax=list(figure.axes), **options)


def _lines(ax: Axes, lines: pd.DataFrame, column: str) -> None:
    """A curve for each encoder, with a band of one standard error where it has one."""
    seen = _looks(lines)
    for label, part in lines[lines[column].notna()].groupby("encoder", sort=False):
        look = seen[str(label)]
        ax.plot(part["at"], part[column], label=clipped(str(label)), **look.line())
        error = f"{column}_error"
        if error in part and part[error].notna().any():
            low, high = part[column] - part[error], part[column] + part[error]
            ax.fill_between(part["at"], low, high, color=look.color, alpha=0.15, linewidth=0)


def _interactions(lines: pd.DataFrame, apart: bool) -> Drawing:
    figures, (ax,) = panels([""], apart=apart)
    _lines(ax, lines, "J")
    ticks = np.linspace(0, 1, 6)
    ax.set_xticks(ticks, [f"{tick:.1f}n" for tick in ticks])
    ax.set_xlabel("Order: other cells present, of n")
    ax.set_ylabel("Interaction strength J")
    ax.set_ylim(bottom=0)
    legend_below(figures)
    caption = (
        "Mean over images and pairs of cells of the absolute interaction at each order, over its mean over the orders "
        "shown. Bands are one standard error over images."
    )
    return Drawing("interactions", "Interaction strength by order", caption, figures)


def _depths(lines: pd.DataFrame, apart: bool) -> Drawing:
    figures, axes = panels(["Highest frequency", "Feature variance"], apart=apart)
    for ax, column in zip(axes, ("high_frequency", "variance"), strict=True):
        for place in _stage_starts(lines):
            ax.axvline(place, color=GRID, linewidth=1.2, zorder=0)
        _lines(ax, lines, column)
        ax.set_xlabel("Normalised depth")
        ax.grid(visible=False, axis="x")
    axes[0].set_ylabel("Δ log amplitude")
    axes[1].set_ylabel("Variance over positions")
    axes[1].set_yscale("log")
    for axis in (axes[1].yaxis.set_major_formatter, axes[1].yaxis.set_minor_formatter):
        axis(lambda value, _: f"{value:g}")  # the usual ones write in TeX
    axes[1].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=7))
    axes[1].yaxis.set_minor_locator(NullLocator())
    legend_below(figures)
    frequencies = ", ".join(f"{value:.3g}" for value in sorted(set(lines["frequency_pi"].dropna()), reverse=True))
    caption = (
        f"Log amplitude at the highest frequency on the diagonal ({frequencies} pi) minus that of zero frequency, and "
        "variance over positions, after every residual branch. Vertical lines: the maps get smaller."
    )
    return Drawing("fourier", "Frequency and variance of features by depth", caption, figures)


def _stage_starts(lines: pd.DataFrame) -> list[float]:
    """Where the side of the maps changes, if in all encoders at the same places."""
    found = []
    for _, part in lines.groupby("encoder", sort=False):
        at, side = part["at"].to_numpy(), part["side"].to_numpy()
        found.append([float(at[k - 1] + at[k]) / 2 for k in range(1, len(at)) if side[k] != side[k - 1]])
    return found[0] if found and all(places == found[0] for places in found) else []


def _spectra(folders: Mapping[str, Path], apart: bool) -> Iterator[Drawing]:
    """Every depth's spectrum, a panel for each encoder, deep ones dark."""
    there = [(label, folder) for label, folder in folders.items() if is_file(folder / "spectra.csv")]
    kept, left_out = first_of(there, _MOST_PANELS)
    if not kept:
        return
    figures, axes = panels([label for label, _ in kept], apart=apart)
    colors = colormaps[_DEEP_TO_SHALLOW]
    for ax, (_, folder) in zip(axes, kept, strict=True):
        table = pd.read_csv(folder / "spectra.csv")
        deepest = max(int(table["depth"].max()), 1)
        for depth, (_, part) in enumerate(table.groupby("depth")):
            ax.plot(part["frequency_pi"], part["log_amplitude"], color=colors(depth / deepest), linewidth=1.2)
        ax.set_xlim(0, 1)
        ax.set_xticks([0, 0.5, 1], ["0", "0.5π", "π"])
        ax.set_xlabel("Frequency")
        ax.set_ylabel("Δ log amplitude")
    low, high = min(ax.get_ylim()[0] for ax in axes), max(ax.get_ylim()[1] for ax in axes)
    for ax in axes:
        ax.set_ylim(low, high)
    scale = ScalarMappable(Normalize(0, 1), _DEEP_TO_SHALLOW)
    _colorbars(figures, scale, label="Normalised depth", ticks=[0, 0.5, 1])
    caption = "Log amplitude along the diagonal minus that of zero frequency, a line for each depth." + left_out
    yield Drawing("fourier-spectra", "Spectrum of features at every depth", caption, figures)


_CHANGES = {
    "top1_drop": ("Patches dropped", "Share of patches"),
    "top1_shuffle": ("Patches shuffled", "Pieces in a row"),
    "top1_low_pass": ("Low-pass filtered", "Radius kept, of π"),
    "top1_high_pass": ("High-pass filtered", "Radius removed, of π"),
}


def _robustness(lines: pd.DataFrame, apart: bool) -> Drawing:
    there = {name: texts for name, texts in _CHANGES.items() if name in lines}
    figures, axes = panels([title for title, _ in there.values()], apart=apart, columns=2)
    for ax, (name, (_, axis)) in zip(axes, there.items(), strict=True):
        _lines(ax, lines, name)
        if name == "top1_shuffle":
            ax.set_xticks(sorted(set(lines[lines[name].notna()]["at"])))
            ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        ax.set_xlabel(axis)
        ax.set_ylabel("top-1, %")
        ax.set_ylim(bottom=0)
    legend_below(figures)
    caption = "Accuracy on changed validation images. Bands are one binomial standard error."
    return Drawing("robustness", "Accuracy on images of which something is missing", caption, figures)


def _line_of_losses(lines: pd.DataFrame, apart: bool) -> Drawing:
    figures, (ax,) = panels([""], apart=apart)
    _lines(ax, lines, "loss")
    ax.set_xlabel("Step along a random direction, in norms of the filters")
    ax.set_ylabel("Cross-entropy")
    ax.set_ylim(bottom=0)
    legend_below(figures)
    caption = "Loss around the weights (0) along one random direction, every filter moved by its own norm at 1."
    return Drawing("landscape", "Loss landscape", caption, figures)


def _plane(lines: pd.DataFrame, apart: bool) -> Drawing:
    groups, left_out = first_of(list(lines.groupby("encoder", sort=False)), _MOST_PANELS)
    figures, axes = panels([str(label) for label, _ in groups], apart=apart)
    low, high = lines["loss"].min(), min(lines["loss"].max(), 10 * max(lines["loss"].median(), 0.1))
    levels = np.linspace(low, high, 16)
    for ax, (_, part) in zip(axes, groups, strict=True):
        table = part.pivot(index="y", columns="at", values="loss")
        drawn = ax.contourf(table.columns, table.index, table.to_numpy(), levels, cmap="viridis", extend="max")
        ax.plot([0], [0], "+", color=PAPER)
        ax.set_xlabel("First direction")
        ax.set_ylabel("Second direction")
        ax.grid(visible=False)
    _colorbars(figures, drawn, label="Cross-entropy")
    caption = (
        "Loss around the weights (+) in two random directions, every filter moved by its own norm at 1." + left_out
    )
    return Drawing("landscape", "Loss landscape", caption, figures)


def _cka(lines: pd.DataFrame, apart: bool) -> Drawing:
    groups, left_out = first_of(list(lines.groupby(["encoder", "other"], sort=False)), _MOST_PANELS)
    several = len({other for (_, other), _ in groups}) > 1
    figures, axes = panels(
        [f"{label}, {other}" if several else str(label) for (label, other), _ in groups], apart=apart
    )
    for ax, ((label, other), part) in zip(axes, groups, strict=True):
        columns = [name for name in part if str(name).startswith("cka_") and part[name].notna().any()]
        table = part[columns].to_numpy(dtype=np.float64)
        drawn = ax.imshow(table, origin="lower", vmin=0, vmax=1, cmap="magma", extent=(0, 1, 0, 1), aspect="auto")
        ax.set_xlabel(f"Depth of {clipped(str(other), _LONGEST_NAME)}")
        ax.set_ylabel(f"Depth of {clipped(str(label), _LONGEST_NAME)}")
        ax.grid(visible=False)
    _colorbars(figures, drawn, label="CKA")
    caption = (
        "Linear centred kernel alignment of the units of depth, 1 for the same features up to a rotation. Across: the "
        "encoder that was named first, from its input (0) to its last unit (1); up: the one above the panel." + left_out
    )
    return Drawing("cka", "How alike the layers of two encoders are", caption, figures)
