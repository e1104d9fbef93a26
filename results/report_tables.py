"""Tables of the page: data frames as text, with what sorting and filtering need."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class Cell:
    """Text, the number behind it where it is one, and where it leads to."""

    text: str
    value: float | None = None
    link: str = ""


@dataclass(frozen=True)
class Column:
    """Head of a column; numbers stand to the right and are sorted as such."""

    name: str
    numeric: bool


@dataclass(frozen=True)
class Filter:
    """A choice among the values of a column."""

    name: str
    column: int
    choices: list[str]


@dataclass(frozen=True)
class PageTable:
    """A table as the template shows it. Without filters there is no search either."""

    title: str
    columns: list[Column]
    rows: list[list[Cell]]
    filters: list[Filter]
    sortable: bool


def page_table(
    frame: pd.DataFrame,
    title: str,
    *,
    filters: Sequence[str] = (),
    decimals: Mapping[str, int] | None = None,
    links: Mapping[str, Sequence[str]] | None = None,
    sortable: bool = True,
) -> PageTable:
    """A data frame as a table of the page. Missing values are empty cells.

    Args:
        frame: its columns are shown in order; the first one names the line.
        title: the caption.
        filters: columns that can be chosen by value; those with a single value are left out.
        decimals: digits after the point of a column's numbers; others are shown in full.
        links: for a column, where each of its cells leads to.
        sortable: whether a column's name sorts by it.
    """
    columns = [Column(str(name), pd.api.types.is_numeric_dtype(frame[name])) for name in frame.columns]
    parts = [_cells(frame[name], (decimals or {}).get(str(name)), (links or {}).get(str(name))) for name in frame]
    rows = [list(cells) for cells in zip(*parts, strict=True)]
    places = {column.name: place for place, column in enumerate(columns)}
    choices = {name: sorted({row[places[name]].text for row in rows} - {""}) for name in filters}
    offered = [Filter(name, places[name], values) for name, values in choices.items() if len(values) > 1]
    return PageTable(title, columns, rows, offered, sortable)


def _cells(values: "pd.Series[Any]", decimals: int | None, links: Sequence[str] | None) -> list[Cell]:
    numeric = pd.api.types.is_numeric_dtype(values)
    targets = links or [""] * len(values)
    return [
        _number(value, decimals, link) if numeric else Cell("" if _missing(value) else str(value), None, link)
        for value, link in zip(values.tolist(), targets, strict=True)
    ]


def _number(value: Any, decimals: int | None, link: str) -> Cell:
    if _missing(value):
        return Cell("", None, link)
    text = f"{value:.{decimals}f}" if decimals is not None else f"{value:g}" if isinstance(value, float) else str(value)
    return Cell(text, float(value), link)


def _missing(value: Any) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and bool(np.isnan(value)))
