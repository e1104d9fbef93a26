"""Write the tables: Markdown and HTML to read, LaTeX to cite, CSV to compute with."""

import re
from collections.abc import Sequence
from html import escape
from pathlib import Path

import pandas as pd
from great_tables import GT

from engine.run.storage import write_atomic
from results.metrics import topics
from results.published import load_published
from results.runs.collect import Rejected
from results.tables.comparison import compare_with_published
from results.tables.cost import contradictions_sheet, cost_sheet
from results.tables.headlines import headlines
from results.tables.labels import label_sheet
from results.tables.rows import benchmark_table
from results.tables.sheets import Sheet, family_sheets, other_sheets, topic_sheet
from results.tables.summary import summary_sheet
from results.tables.text import csv_text, markdown_list, markdown_table, plain


def all_sheets(rows: pd.DataFrame) -> list[Sheet]:
    """Every table of what was collected and published.

    Args:
        rows: of collect.

    Raises:
        DataError: a published number has no source.
    """
    literature = load_published()
    comparison = compare_with_published(rows, literature)
    shares = label_sheet(benchmark_table(rows))
    sheets: list[Sheet] = [shares] if shares is not None else []
    for topic in topics():
        if topic.by_family:
            sheets += [summary_sheet(comparison, topic), *family_sheets(comparison, topic)]
        else:
            sheets.append(topic_sheet(comparison, topic))
    return [*sheets, *other_sheets(comparison), cost_sheet(rows), contradictions_sheet(literature)]


def write_tables(rows: pd.DataFrame, rejected: Sequence[Rejected], output: Path) -> list[Path]:
    """Write every table in every format; the same runs give the same bytes.

    Args:
        rows, rejected: of collect.
        output: folder; made if it does not exist.

    Returns:
        The files: `<table>.{md,csv,tex,html}`, all tables in tables.md, and every measurement in results.csv.

    Raises:
        DataError: a published number has no source.
    """
    output.mkdir(parents=True, exist_ok=True)
    sheets = all_sheets(rows)
    files = {"results.csv": csv_text(rows), "tables.md": _document(rows, sheets, rejected)}
    for sheet in sheets:
        files[f"{sheet.name}.md"] = markdown(sheet)
        files[f"{sheet.name}.csv"] = csv_text(sheet.data)
        files[f"{sheet.name}.tex"] = latex(sheet)
        files[f"{sheet.name}.html"] = html(sheet)
    for name, content in files.items():
        write_atomic(output / name, content)
    return [output / name for name in files]


def _document(rows: pd.DataFrame, sheets: Sequence[Sheet], rejected: Sequence[Rejected]) -> str:
    said = markdown_list([str(headline) for headline in headlines(benchmark_table(rows))])
    left_out = markdown_list([str(run) for run in rejected])
    parts = (
        [f"{said}\n"] * bool(said)
        + [markdown(sheet) for sheet in sheets]
        + ([f"## Left out\n\n{left_out}\n"] if rejected else [])
    )
    return "\n".join(parts)


def markdown(sheet: Sheet) -> str:
    """The table with its title and notes."""
    return f"## {plain(sheet.title)}\n\n{markdown_table(sheet.shown)}\n\n{markdown_list(sheet.notes)}\n"


def latex(sheet: Sheet) -> str:
    """A table for the packages booktabs and longtable, which is for the long ones; `sheet.name` is its label."""
    shown = sheet.shown.map(_tex).rename(columns=_tex)
    body = shown.to_latex(
        index=False, escape=False, caption=_tex(sheet.title), label=f"tab:{sheet.name}", longtable=len(shown) > PAGE
    )
    return f"% \\usepackage{{booktabs,longtable}}\n{body}" + "".join(f"% {note}\n" for note in sheet.notes)


PAGE = 40  # lines that fit on one
_TEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$"}


def _tex(text: str) -> str:
    return re.sub(r"[\\~^±&%$#_{}]", lambda match: _TEX.get(match[0], f"\\{match[0]}"), text.replace("\n", " "))


def html(sheet: Sheet) -> str:
    """A page of its own, without anything from the network."""
    numbers = [name for name, cells in sheet.shown.items() if all(re.match(r"[-+\[\d]|$", cell) for cell in cells)]
    words = [name for name in sheet.shown if name not in numbers]
    table = GT(sheet.shown, id=sheet.name).tab_header(title=sheet.title).cols_align("right", numbers)
    table = table.cols_align("left", words)
    for note in sheet.notes:
        table = table.tab_source_note(note)
    head = f'<meta charset="utf-8"><title>{escape(sheet.title)}</title>'
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head>\n<body>\n{table.as_raw_html()}\n</body></html>\n'
