"""Tables of the page: data frames as text, with what sorting and filtering need."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

_LONG = 48  # characters of a line
_LARGE_PT, _SMALL_PT, _LEAST_PT = 7.5, 5.5, 2.0  # letters on paper
_PORTRAIT_PT, _LANDSCAPE_PT = 510.0, 760.0  # A4 between its margins
_EM_PER_LETTER, _EM_PER_COLUMN = 0.6, 0.8


@dataclass(frozen=True)
class Cell:
    """Text, the number behind it where it is one, and where it leads to."""

    text: str
    value: float | None = None
    link: str = ""


@dataclass(frozen=True)
class Column:
    """Head of a column; numbers stand to the right and are sorted as such, long texts are broken into lines."""

    name: str
    numeric: bool
    long: bool


@dataclass(frozen=True)
class Filter:
    """A choice among the values of a column."""

    name: str
    column: int
    choices: list[str]


@dataclass(frozen=True)
class PageTable:
    """A table as the template shows it."""

    title: str
    columns: list[Column]
    rows: list[list[Cell]]
    searchable: bool
    filters: list[Filter]
    sortable: bool
    notes: tuple[str, ...]

    @property
    def sideways(self) -> bool:
        """Whether paper has to be turned for it."""
        return self._ems(whole=False) * _LARGE_PT > _PORTRAIT_PT

    @property
    def print_pt(self) -> float:
        """Size of the letters on paper, in points: with which each line is one line, if that can be read, else with
        which no column is cut off."""
        room = _LANDSCAPE_PT if self.sideways else _PORTRAIT_PT
        fitting = room / self._ems(whole=True)
        if fitting < _SMALL_PT:
            fitting = max(min(_SMALL_PT, room / self._ems(whole=False)), _LEAST_PT)
        return round(min(fitting, _LARGE_PT), 1)

    def _ems(self, *, whole: bool) -> float:
        """How wide it is in widths of the letter, with whole texts in a line or, at the least, unbroken words and
        numbers."""
        widths = []
        for place, column in enumerate(self.columns):
            cells = [row[place].text for row in self.rows]
            pieces = cells if whole or column.numeric else [word for text in cells for word in text.split()]
            head = [column.name] if whole else column.name.split()
            widths.append(min(max(map(len, [*pieces, *head]), default=0), _LONG))
        return sum(_EM_PER_LETTER * width + _EM_PER_COLUMN for width in widths) or 1.0


def page_table(
    frame: pd.DataFrame,
    title: str,
    *,
    filters: Sequence[str] | None = None,
    decimals: Mapping[str, int] | None = None,
    links: Mapping[str, Sequence[str]] | None = None,
    sortable: bool = True,
    notes: Sequence[str] = (),
) -> PageTable:
    """A data frame as a table of the page. Missing values are empty cells.

    Args:
        frame: its columns are shown in order; the first one names the line.
        title: the caption.
        filters: columns that can be chosen by value; those with a single value are left out. None: nothing to search.
        decimals: digits after the point of a column's numbers; others are shown in full.
        links: for a column, where each of its cells leads to.
        sortable: whether a column's name sorts by it.
        notes: sentences below it.
    """
    parts = [_cells(frame[name], (decimals or {}).get(str(name)), (links or {}).get(str(name))) for name in frame]
    columns = [
        Column(str(name), _numeric(frame[name]), any(len(cell.text) > _LONG for cell in cells))
        for name, cells in zip(frame.columns, parts, strict=True)
    ]
    rows = [list(cells) for cells in zip(*parts, strict=True)]
    places = {column.name: place for place, column in enumerate(columns)}
    choices = {
        name: sorted({row[places[name]].text for row in rows} - {""}) for name in filters or () if name in places
    }
    offered = [Filter(name, places[name], values) for name, values in choices.items() if len(values) > 1]
    return PageTable(title, columns, rows, filters is not None, offered, sortable, tuple(notes))


def _cells(values: "pd.Series[Any]", decimals: int | None, links: Sequence[str] | None) -> list[Cell]:
    targets = links or [""] * len(values)
    return [
        _number(value, decimals, link) if _numeric(values) else Cell("" if _missing(value) else str(value), None, link)
        for value, link in zip(values.tolist(), targets, strict=True)
    ]


def _numeric(values: "pd.Series[Any]") -> bool:
    return bool(pd.api.types.is_numeric_dtype(values)) and not pd.api.types.is_bool_dtype(values)


def _number(value: Any, decimals: int | None, link: str) -> Cell:
    if _missing(value):
        return Cell("", None, link)
    text = f"{value:.{decimals}f}" if decimals is not None else f"{value:g}" if isinstance(value, float) else str(value)
    return Cell(text, float(value), link)


def _missing(value: Any) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and bool(np.isnan(value)))
