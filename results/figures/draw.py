"""Every figure of a set of run folders: drawn, and written as SVG and PNG."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pandas as pd

from engine.run.storage import write_atomic
from results.figures.analysis import ANALYSIS, analyses
from results.figures.cost import accuracy_against_cost
from results.figures.curves import finetuning_curves, pretraining_curves
from results.figures.difference import differences_to_scratch
from results.figures.labels import label_efficiency
from results.figures.lengths import pretraining_lengths
from results.figures.panels import reconstruction_grids
from results.figures.style import Drawing, lay_out, png, style, svg
from results.runs.curves import Curves
from results.tables.sheets import slug


def write_figures(rows: pd.DataFrame, curves: Mapping[str, Curves], output: Path) -> list[Path]:
    """Draw everything the runs have data for, as OUTPUT/<name>.svg and .png.

    Args:
        rows: of collect.
        curves: of every run in rows.
        output: a folder; it is made.

    Returns:
        The files written. The same runs give the same bytes.
    """
    output.mkdir(parents=True, exist_ok=True)
    written = []
    for drawing in draw(rows, curves):
        (figure,) = drawing.figures
        for ending, content in ((".svg", svg(figure, drawing.title)), (".png", png(figure))):
            written.append(output / f"{drawing.name}{ending}")
            write_atomic(written[-1], content)
    return written


def draw(rows: pd.DataFrame, curves: Mapping[str, Curves], *, apart: bool = False) -> Iterator[Drawing]:
    """The figures, most telling first. Their names can be file names, and differ.

    Args:
        rows: of collect.
        curves: of every run in rows.
        apart: every panel as a figure of its own.
    """
    names: set[str] = set()
    with style():
        for drawing in _all(rows, curves, apart):
            name = slug(drawing.name)
            while name in names:  # two recipes whose names differ in nothing that a file name may hold
                name += "_"
            names.add(name)
            for figure in drawing.figures:
                lay_out(figure)
            yield replace(drawing, name=name)


def _all(rows: pd.DataFrame, curves: Mapping[str, Curves], apart: bool) -> Iterator[Drawing]:
    trained = rows[rows["task"] != ANALYSIS]
    yield from differences_to_scratch(trained, apart=apart)
    yield from label_efficiency(trained, apart=apart)
    yield from pretraining_lengths(trained, apart=apart)
    yield from accuracy_against_cost(trained, apart=apart)
    yield from finetuning_curves(trained, curves, apart=apart)
    yield from pretraining_curves(trained, curves, apart=apart)
    yield from analyses(rows, curves, apart=apart)
    yield from reconstruction_grids(trained, apart=apart)
