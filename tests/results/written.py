"""The files of results, written from folders of runs in one call."""

from pathlib import Path

from results.figures.draw import write_figures
from results.page.report import write_report
from results.runs.collect import read_runs


def figures_of(runs: Path, folder: Path) -> list[Path]:
    """The figures of the runs, in the folder."""
    found = read_runs([runs])
    return write_figures(found.rows, found.curves, folder)


def page_of(runs: Path, path: Path) -> Path:
    """The page of the runs, at the path."""
    write_report(read_runs([runs]), [runs], path)
    return path
