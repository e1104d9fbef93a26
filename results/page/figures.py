"""Figures as parts of the page: each panel an SVG that takes the width it is given and the colours of the page."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

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


@dataclass(frozen=True)
class PageFigure:
    """A figure as the template shows it: its panels are SVG elements, `wide` whether it needs a row of its own."""

    id: str
    title: str
    caption: str
    panels: list[Markup]
    wide: bool


def page_figures(rows: pd.DataFrame, curves: Mapping[str, Curves]) -> list[PageFigure]:
    """Every figure of the runs.

    Args:
        rows: of collect.
        curves: of every run in rows.
    """
    return [
        PageFigure(f"figure-{drawing.name}", drawing.title, drawing.caption, _panels(drawing), _is_wide(drawing))
        for drawing in draw(rows, curves, apart=True)
    ]


def _is_wide(drawing: Drawing) -> bool:
    return len(drawing.figures) > 1 or drawing.figures[0].get_figwidth() > _COLUMN_INCHES


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
