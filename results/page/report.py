"""The page: everything the run folders hold in one HTML file that needs nothing else."""

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup

from engine.run.storage import write_atomic
from results.figures.data import first_of
from results.page.figures import page_figures
from results.page.overview import (
    described,
    facts,
    left_out_table,
    numbers_table,
    runs_table,
    sheet_table,
    without_details,
)
from results.page.pictures import by_method, choose, pictures
from results.page.runs import Measured, called, measured_runs, section
from results.page.tables import PageTable, page_table
from results.runs.collect import Collection
from results.runs.curves import Curves, thinned
from results.tables.files import all_sheets
from results.tables.headlines import headlines
from results.tables.rows import EXPERIMENT, benchmark_table, notes, readable
from results.tables.sheets import Sheet

_HERE = Path(__file__).parent
_SCRIPTS = ("uplot/uPlot.iife.min.js", "report.js", "overlay.js")
_STYLES = ("uplot/uPlot.min.css", "report.css")
_MOST_EXPERIMENTS = 40  # in the summary
_LEAST_POINTS, _MOST_POINTS, _ALL_POINTS = 30, 100, 20_000  # of the curves of a run, and of all runs together


def write_report(found: Collection, folders: Sequence[Path], path: Path) -> None:
    """Write the page; the same runs give the same bytes.

    Args:
        found: of read_runs.
        folders: those that it was given; runs are called by their place below them.
        path: the HTML file; its folder is made. Links to run folders are relative to it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, _render(_context(found, folders, path)))


def _render(context: Mapping[str, Any]) -> str:
    script = "\n".join((_HERE / name).read_text() for name in _SCRIPTS)
    # Only this script runs: should a name from a run folder ever come through as HTML, it stays dead.
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    environment.filters["linked"] = _linked
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    template = environment.get_template("report.html.j2")
    css = Markup("\n".join((_HERE / name).read_text() for name in _STYLES))
    return template.render(**context, css=css, script=Markup(script), script_hash=f"sha256-{digest}")


def _context(found: Collection, folders: Sequence[Path], page: Path) -> dict[str, Any]:
    rows, rejected = found.rows, found.rejected
    runs, talked_about = measured_runs(rows, found.runs), without_details(rows)
    table, sheets = benchmark_table(talked_about), all_sheets(talked_about)
    drawn = pictures(choose((_experiment(run), run.run.run_dir) for run in runs))
    sections = [section(number, run, called(run.run.run_dir, folders), page, drawn) for number, run in enumerate(runs)]
    points = min(max(_ALL_POINTS // max(len(runs), 1), _LEAST_POINTS), _MOST_POINTS)
    summary, left_out = first_of(list(table.groupby(EXPERIMENT, sort=False)), _MOST_EXPERIMENTS)
    shown = readable(pd.concat([lines for _, lines in summary])) if summary else []
    return {
        "facts": facts(rows, rejected),
        "headlines": headlines(table),
        "shares": next((_plain_table(sheet) for sheet in sheets if sheet.name == "labels"), None),
        "summary": [page_table(lines, title, sortable=False) for title, lines in shown],
        "notes": [*notes(table), *filter(None, [left_out.strip()])],
        "figures": page_figures(rows, found.curves),
        "comparisons": by_method(rows),
        "sheets": [sheet_table(sheet) for sheet in sheets if sheet.name != "labels"],
        "numbers": numbers_table(table, complete=len(talked_about) == len(rows)),
        "runs": runs_table(runs, sections),
        "sections": sections,
        "curves": [
            {**described(run, section, rows), "splits": _rounded(thinned(run.run.curves, points))}
            for run, section in zip(runs, sections, strict=True)
        ],
        "left_out": left_out_table(rejected, folders, page),
    }


def _plain_table(sheet: Sheet) -> PageTable:
    """The table of shares: what a number is compared with stands below it, so that a page is as wide as it."""
    shown = sheet.shown.map(lambda text: text.replace(" (", "\n("))
    return page_table(shown, sheet.title, sortable=False, notes=sheet.notes)


def _experiment(run: Measured) -> str:
    return " ".join(str(run.row[key]) for key in ("task", "model", "recipe", "variant", "data", "method"))


def _linked(note: str) -> Markup:
    """A sentence with its addresses as links."""
    parts = re.split(r"(https?://[^\s,]+)", note)
    return Markup("").join(
        Markup('<a href="{0}" rel="noreferrer">{0}</a>').format(part) if place % 2 else part
        for place, part in enumerate(parts)
    )


def _rounded(curves: Curves) -> Curves:
    """Four significant digits, which a small curve does not show more of."""
    return {
        split: {name: [None if v is None else float(f"{v:.4g}") for v in values] for name, values in columns.items()}
        for split, columns in curves.items()
    }
