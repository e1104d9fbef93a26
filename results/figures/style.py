"""How figures look, and how they become files: told apart without colour, the same bytes whenever they are drawn."""

import io
import itertools
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

PAPER = "#ffffff"
INK, GRID = "#000000", "#dddddd"
PNG_DPI = 150
COLUMNS = 3  # panels side by side
PANEL_INCHES = (3.3, 2.7)
APART_INCHES = (4.4, 3.5)
_LONGEST = 60  # characters
_ID = re.compile(r'((?:\bid="|href="#|url\(#)[a-z]+?)([0-9a-f]{10})(?=["\)])')

# Text stays text, so that it can be read aloud, searched and copied; hashsalt: the same places give the same ids.
_SETTINGS: Any = {
    "text.parse_math": False,  # a name may hold a dollar
    "svg.fonttype": "none",
    "svg.hashsalt": "mim-benchmark",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.0,
    "axes.titlesize": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "lines.markersize": 5.5,
}


@dataclass(frozen=True)
class Look:
    """How one line is drawn. Any of colour, marker and dashes alone is enough to know it by."""

    color: str
    marker: str
    dashes: Any

    def line(self) -> dict[str, Any]:
        """Arguments of `Axes.plot`."""
        return {"color": self.color, "linestyle": self.dashes, **self.points()}

    def points(self) -> dict[str, Any]:
        """Arguments for markers alone: filled, with a black rim that light colours need on paper."""
        return {"color": self.color, "marker": self.marker, "markeredgecolor": INK, "markeredgewidth": 0.7}


@dataclass(frozen=True)
class Drawing:
    """A figure with what a reader needs beside it. `name` is that of its files, without ending.

    Args:
        figures: one with all panels, or one for each where they were asked for apart.
    """

    name: str
    title: str
    caption: str
    figures: tuple[Figure, ...]


# Okabe and Ito's colours, which colour-blind eyes tell apart; the first three also differ in lightness.
_LOOKS = (
    Look("#000000", "o", "-"),
    Look("#E69F00", "s", (0, (5, 2))),
    Look("#0072B2", "^", (0, (6, 2, 1.5, 2))),
    Look("#009E73", "D", (0, (1.5, 1.5))),
    Look("#CC79A7", "v", (0, (8, 2))),
    Look("#D55E00", "P", (0, (3, 1.5, 1, 1.5, 1, 1.5))),
    Look("#56B4E9", "X", (0, (2, 3))),
    Look("#F0E442", "*", (0, (10, 2, 2, 2))),
)


PALETTE = tuple(look.color for look in _LOOKS)
"""Colours of the methods by their places; the control's is INK."""


def looks(lines: pd.DataFrame) -> dict[str, Look]:
    """How each line of a figure is drawn: a method alike in all figures of a collection, whatever else there is.

    Args:
        lines: with `label` of every line and `method_place` of collect, which chooses the look of a method's first
            label; further ones of the same method, such as other lengths, have its colour, and markers and dashes that
            no method here has.

    Returns:
        A look for each label; beyond the number of looks they repeat.
    """
    pairs = list(dict.fromkeys(zip(lines["method_place"], lines["label"], strict=True)))
    taken = {int(place) for place, _ in pairs}
    free = itertools.cycle([look for place, look in enumerate(_LOOKS) if place not in taken] or _LOOKS)
    found: dict[str, Look] = {}
    seen: set[int] = set()
    for place, label in pairs:
        own = _LOOKS[place % len(_LOOKS)]
        found[str(label)] = own if place not in seen else replace(next(free), color=own.color)
        seen.add(place)
    return found


def clipped(text: str, longest: int = _LONGEST) -> str:
    """Text as long as a figure has room for."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


@contextmanager
def style() -> Iterator[None]:
    """The settings that figures are drawn and saved with. They do not outlast the block."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_SETTINGS)
        yield


def panels(
    titles: Sequence[str], *, apart: bool = False, columns: int = COLUMNS
) -> tuple[tuple[Figure, ...], list[Axes]]:
    """Titled panels.

    Args:
        titles: one for each panel.
        apart: as a figure each, which a page can lay out as it has room; else side by side in one figure.
        columns: most in a row.
    """
    if apart:
        figures = [Figure(figsize=APART_INCHES, layout="constrained") for _ in titles]
        axes = [figure.subplots() for figure in figures]
    else:
        columns = min(len(titles), columns)
        rows = -(-len(titles) // columns)
        width, height = PANEL_INCHES if columns > 1 else (5.0, 1.2 * PANEL_INCHES[1])
        figures = [Figure(figsize=(width * columns, height * rows + 0.4), layout="constrained")]
        axes = list(figures[0].subplots(rows, columns, squeeze=False).flat)
        for empty in axes[len(titles) :]:
            empty.remove()
        axes = axes[: len(titles)]
    for panel, title in zip(axes, titles, strict=True):
        panel.set_title(clipped(title), wrap=True)
    return tuple(figures), axes


def legend_below(figures: Sequence[Figure]) -> None:
    """One legend for all panels of a figure, each label once, in the order first drawn."""
    for figure in figures:
        axes = figure.axes
        handles = {label: handle for ax in axes for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
        most = 3 if len(axes) == 1 else 2 * min(len(axes), COLUMNS)
        names = [clipped(label) for label in handles]
        for columns in range(min(len(handles), most), 0, -1):
            legend = figure.legend(
                handles.values(), names, loc="outside lower center", ncols=columns, handlelength=3, columnspacing=1
            )
            if columns == 1 or legend.get_window_extent().width <= figure.bbox.width:
                break
            legend.remove()


def seeds_caption(most: int, several: str) -> str:
    """What a caption says of the seeds: `several` where there are, at most `most` of one kind."""
    return several if most > 1 else "One seed of each: nothing here shows how much another seed would change."


def lay_out(figure: Figure) -> None:
    """Give every part its place, once for all formats."""
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
        figure.set_layout_engine("none")


def svg(figure: Figure, title: str) -> str:
    """The figure as an SVG document without a date, its ids numbered in the order of the document.

    matplotlib's ids are hashes of places before they are rounded; the layout's solver does not give their last bit
    alike in two processes.
    """
    text = _saved(figure, "svg", metadata={"Date": None, "Creator": None, "Title": title}).decode()
    seen: dict[str, str] = {}
    return _ID.sub(lambda found: found[1] + seen.setdefault(found[2], str(len(seen))), text)


def png(figure: Figure) -> bytes:
    """The figure as a PNG file without a date, PNG_DPI dots per inch."""
    return _saved(figure, "png", dpi=PNG_DPI, metadata={"Software": None})


def _saved(figure: Figure, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    with style():
        figure.savefig(file, format=kind, facecolor=PAPER, **options)
    return file.getvalue()
