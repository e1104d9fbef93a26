"""`python -m results collect | tables | figures | report | all | compare`: what run folders measured, for people."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import pandas as pd
import tyro
from rich.console import Console

from engine.cli import guard
from engine.errors import ConfigError
from results.runs.collect import Rejected
from results.runs.collect import collect as collect_runs
from results.runs.compare import compare_runs
from results.tables.rows import benchmark_table, print_table, write_csv

if TYPE_CHECKING:
    from results.figures.data import Curves

Runs = Annotated[tuple[Path, ...], tyro.conf.Positional]
OneRun = Annotated[Path, tyro.conf.Positional]
Output = Annotated[Path | None, tyro.conf.arg(aliases=["-o"])]


def collect(runs: Runs, *, output: Output = None) -> None:
    """Write every measurement of every finished run as one CSV, and name the runs left out.

    Args:
        runs: Run folders, or folders of run folders.
        output: The CSV, one line per run and metric; by default results.csv in the first of the folders.
    """
    rows, rejected = collect_runs(_some(runs))
    path = output or runs[0] / "results.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_csv(rows, path)
    print(f"{len(rows)} measurements of {rows['run'].nunique()} runs written to {path}")
    for left_out in rejected:
        print(f"left out: {left_out}")


def tables(runs: Runs, *, output: Output = None) -> None:
    """Print the benchmark table and write all tables, measured beside published, as Markdown, CSV, LaTeX and HTML.

    Args:
        runs: Run folders, or folders of run folders.
        output: Folder of the files; by default `tables` in the first of the folders.
    """
    rows, rejected = collect_runs(_some(runs))
    _write_tables(rows, rejected, output or runs[0] / "tables")


def figures(runs: Runs, *, output: Output = None) -> None:
    """Draw curves, costs, differences and reconstructions as SVG and PNG.

    Args:
        runs: Run folders, or folders of run folders.
        output: Folder of the files; by default `figures` in the first of the folders.
    """
    from results.figures.draw import curves_of

    rows, _ = collect_runs(_some(runs))
    _write_figures(rows, curves_of(rows), output or runs[0] / "figures")


def report(runs: Runs, *, output: Output = None) -> None:
    """Write one page of everything, which needs no network.

    Args:
        runs: Run folders, or folders of run folders.
        output: The page; by default report.html in the first of the folders.
    """
    from results.figures.draw import curves_of

    rows, rejected = collect_runs(_some(runs))
    _write_page(rows, rejected, curves_of(rows), runs, output or runs[0] / "report.html")


def everything(runs: Runs) -> None:
    """Write tables, figures and page, into the first of the folders: what `make tables` does.

    Args:
        runs: Run folders, or folders of run folders.
    """
    from results.figures.draw import curves_of

    rows, rejected = collect_runs(_some(runs))
    _write_tables(rows, rejected, runs[0] / "tables")
    curves = curves_of(rows)  # read once for both: with a thousand runs it is what takes long
    _write_figures(rows, curves, runs[0] / "figures")
    _write_page(rows, rejected, curves, runs, runs[0] / "report.html")


def compare(one: OneRun, other: OneRun) -> None:
    """Print what differs between two runs: settings, environment, measurements, curves.

    Args:
        one: A run folder.
        other: Another one, finished or not.
    """
    # A file or a pipe has no width of its own; 80 columns would break the lines for nothing.
    compare_runs(one, other, Console() if sys.stdout.isatty() else Console(width=160))


def _write_tables(rows: pd.DataFrame, rejected: list[Rejected], folder: Path) -> None:
    from results.tables.files import write_tables  # here: not every command needs what takes a second to import

    print_table(benchmark_table(rows), rejected)
    paths = write_tables(rows, rejected, folder)
    print(f"{len(paths)} files written to {folder}; tables.md there has all tables to read")


def _write_figures(rows: pd.DataFrame, curves: "Mapping[str, Curves]", folder: Path) -> None:
    from results.figures.draw import write_figures

    print(f"{len(write_figures(rows, curves, folder))} files written to {folder}")


def _write_page(
    rows: pd.DataFrame, rejected: list[Rejected], curves: "Mapping[str, Curves]", folders: Sequence[Path], path: Path
) -> None:
    from results.page.report import write_report

    write_report(rows, rejected, curves, folders, path)
    print(f"page written to {path}")


def _some(runs: tuple[Path, ...]) -> tuple[Path, ...]:
    if not runs:
        raise ConfigError("no runs named: give run folders, or folders of run folders")
    return runs


def main(argv: Sequence[str] | None = None) -> int:
    """Parse and run; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    commands = {"collect": collect, "tables": tables, "figures": figures, "report": report, "all": everything}
    with guard("--debug" in arguments):
        tyro.extras.subcommand_cli_from_dict(
            {**commands, "compare": compare},
            args=[argument for argument in arguments if argument != "--debug"],
            prog="python -m results",
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
