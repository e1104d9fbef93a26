"""The files of results, written from folders of runs in one call."""

from pathlib import Path

from results.figures.draw import curves_of, write_figures
from results.page.report import write_report
from results.runs.collect import collect


def figures_of(runs: Path, folder: Path) -> list[Path]:
    """The figures of the runs, in the folder."""
    rows, _ = collect([runs])
    return write_figures(rows, curves_of(rows), folder)


def page_of(runs: Path, path: Path) -> Path:
    """The page of the runs, at the path."""
    rows, rejected = collect([runs])
    write_report(rows, rejected, curves_of(rows), [runs], path)
    return path
