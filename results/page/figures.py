"""Figures as parts of the page: each panel an SVG that takes the width it is given and the colours of the page."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

import pandas as pd
from markupsafe import Markup

from results.figures.draw import draw
from results.figures.style import GRID, INK, PALETTE, PAPER, Drawing, svg
from results.runs.curves import Curves

# What a colour of the figures is called in report.css, which has another value for it where the page is dark.
_VARIABLES = {INK: "--ink", PAPER: "--paper", GRID: "--line"} | {
    color: f"--series-{place}" for place, color in enumerate(PALETTE) if place
}

_COLUMN_INCHES = 6.0  # what stands beside another figure at most
_PICTURES = ("reconstructions", "analysis-cam")  # figures whose panels need half the page each


@dataclass(frozen=True)
class PageFigure:
    """A figure as the template shows it.

    Args:
        panels: SVG elements.
        columns: how many stand side by side where the page has the room; 0: in columns, below each other.
        pictured: whether the panels hold pictures, which need room.
        wide: whether it needs rows of its own, else it is as wide as half the page.
    """

    id: str
    title: str
    caption: str
    panels: list[Markup]
    columns: int
    pictured: bool
    wide: bool


def page_figures(rows: pd.DataFrame, curves: Mapping[str, Curves]) -> list[PageFigure]:
    """Every figure of the runs; narrow ones are two and two, and the last of an odd number has a row of its own.

    Args:
        rows: of collect.
        curves: of every run in rows.
    """
    found = [_figure(drawing) for drawing in draw(rows, curves, apart=True)]
    narrow = [figure for figure in found if not figure.wide]
    alone = narrow[-1] if len(narrow) % 2 else None
    return [replace(figure, wide=True) if figure is alone else figure for figure in found]


def _figure(drawing: Drawing) -> PageFigure:
    return PageFigure(
        id=f"figure-{drawing.name}",
        title=drawing.title,
        caption=drawing.caption,
        panels=_panels(drawing),
        columns=_columns(drawing),
        pictured=drawing.name.startswith(_PICTURES),
        wide=_is_wide(drawing),
    )


def _is_wide(drawing: Drawing) -> bool:
    return len(drawing.figures) > 1 or drawing.figures[0].get_figwidth() > _COLUMN_INCHES


def _columns(drawing: Drawing) -> int:
    """Side by side: such that the last row is as full as can be; those of many heights fill columns."""
    number = len(drawing.figures)
    heights = [figure.get_figheight() for figure in drawing.figures]
    if max(heights) > 1.5 * min(heights):
        return 0
    if drawing.name.startswith(_PICTURES):
        return min(number, 2)
    return 2 if number == 4 else min(number, 3)


def _panels(drawing: Drawing) -> list[Markup]:
    return [
        _inline(svg(figure, drawing.title), f"{drawing.name}-{number}-")
        for number, figure in enumerate(drawing.figures, start=1)
    ]


def _inline(text: str, prefix: str) -> Markup:
    """An SVG document as an element: without a prologue, its ids its own, its colours the page's."""
    text = text[text.index("<svg") :]
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{prefix}", text)
    for color, name in _VARIABLES.items():
        # In styles alone: a name may hold what looks like a colour.
        text = re.sub(
            rf'((?:fill|stroke|stop-color): ){color}\b(?=[;"])', rf"\g<1>var({name})", text, flags=re.IGNORECASE
        )
    return Markup(text.replace("<svg ", '<svg role="img" ', 1))
