"""A figure as a PNG file, whatever stands in its texts."""

import warnings
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text


def save_png(figure: Figure, file: Any) -> None:
    """Write a figure, the same bytes for the same figure. Names of files and classes stand as they are: a dollar is no
    formula, and a letter that the font lacks is a box, not a warning.

    Args:
        figure: without logarithmic axes, whose numbers are formulas.
        file: a path or an open binary file.
    """
    for text in figure.findobj(Text):
        text.set_parse_math(False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        FigureCanvasAgg(figure).print_png(file, metadata={"Software": None})  # type: ignore[no-untyped-call]
