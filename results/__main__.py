"""`python -m results collect | tables | labels | figures | report | all | compare`: what run folders measured."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from engine.cli import guard
from engine.errors import CheckpointError, ConfigError

if TYPE_CHECKING:  # printing help needs none of it
    from results.runs.collect import Collection

Runs = Annotated[tuple[Path, ...], tyro.conf.Positional]
OneRun = Annotated[Path, tyro.conf.Positional]
Output = Annotated[Path | None, tyro.conf.arg(aliases=["-o"])]


def collect(runs: Runs, *, output: Output = None) -> None:
    """Write every measurement of every finished run as one CSV, and name the runs left out.

    Args:
        runs: Run folders, or folders of run folders.
        output: The CSV, one line per run and metric; by default results.csv in the first of the folders.
    """
    found = _read(runs)
    from engine.run.storage import write_atomic
    from results.tables.text import csv_text

    path = output or runs[0] / "results.csv"
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, csv_text(found.rows))
    print(f"{len(found.rows)} measurements of {len(found.runs)} runs written to {path}")
    for run, remark in found.rows.drop_duplicates("run").loc[found.rows["remark"] != "", ["run", "remark"]].values:
        print(f"marked: {run}: {remark}")
    for left_out in found.rejected:
        print(f"left out: {left_out}")


def tables(runs: Runs, *, output: Output = None) -> None:
    """Print the benchmark table and write all tables, measured beside published, as Markdown, CSV, LaTeX and HTML.

    Args:
        runs: Run folders, or folders of run folders.
        output: Folder of the files; by default `tables` in the first of the folders.
    """
    found = _read(runs)
    _write_tables(found, output or runs[0] / "tables")
    _say(found)


def labels(runs: Runs, *, output: Output = None) -> None:
    """Print, in Markdown, what was reached with each share of the labels, side by side, and what pre-training changed.

    Args:
        runs: Run folders, or folders of run folders.
        output: A file to write it to as well.
    """
    found = _read(runs)
    from engine.run.storage import write_atomic
    from results.tables.labels import label_table
    from results.tables.rows import benchmark_table
    from results.tables.text import markdown_table

    text = markdown_table(label_table(benchmark_table(found.rows)))
    print(text)
    for left_out in found.rejected:
        print(f"not in the table: {left_out}", file=sys.stderr)
    if output is not None:
        with _writing(output):
            output.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(output, f"{text}\n")


def figures(runs: Runs, *, output: Output = None) -> None:
    """Draw curves, costs, differences and reconstructions as SVG and PNG.

    Args:
        runs: Run folders, or folders of run folders.
        output: Folder of the files; by default `figures` in the first of the folders.
    """
    _write_figures(_read(runs), output or runs[0] / "figures")


def report(runs: Runs, *, output: Output = None) -> None:
    """Write one page of everything, which needs no network.

    Args:
        runs: Run folders, or folders of run folders.
        output: The page; by default report.html in the first of the folders.
    """
    _write_page(_read(runs), runs, output or runs[0] / "report.html")


def everything(runs: Runs) -> None:
    """Write tables, figures and page, into the first of the folders: what `make tables` does.

    Args:
        runs: Run folders, or folders of run folders.
    """
    found = _read(runs)
    _write_tables(found, runs[0] / "tables")
    _write_figures(found, runs[0] / "figures")
    _write_page(found, runs, runs[0] / "report.html")
    _say(found)


def compare(one: OneRun, other: OneRun) -> None:
    """Print what differs between two runs: settings, environment, measurements, curves.

    Args:
        one: A run folder.
        other: Another one, finished or not.
    """
    from rich.console import Console

    from results.runs.compare import compare_runs

    # A file or a pipe has no width of its own; 80 columns would break the lines for nothing.
    compare_runs(one, other, Console() if sys.stdout.isatty() else Console(width=160))


def _read(runs: tuple[Path, ...]) -> "Collection":
    if not runs:
        raise ConfigError("no runs named: give run folders, or folders of run folders")
    from results.runs.collect import read_runs

    return read_runs(runs)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """An error of the file system is one about where the output goes."""
    try:
        yield
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot be written ({error.strerror}): use --output to write elsewhere"
        ) from error


def _write_tables(found: "Collection", folder: Path) -> None:
    from results.tables.files import write_tables
    from results.tables.rows import benchmark_table, print_table

    print_table(benchmark_table(found.rows), found.rejected)
    with _writing(folder):
        paths = write_tables(found.rows, found.rejected, folder)
    print(f"{len(paths)} files written to {folder}; tables.md there has all tables to read")


def _say(found: "Collection") -> None:
    from results.tables.rows import benchmark_table, print_headlines

    print_headlines(benchmark_table(found.rows))


def _write_figures(found: "Collection", folder: Path) -> None:
    from results.figures.draw import write_figures

    with _writing(folder):
        paths = write_figures(found.rows, found.curves, folder)
    print(f"{len(paths)} files written to {folder}")


def _write_page(found: "Collection", folders: Sequence[Path], path: Path) -> None:
    from results.page.report import write_report

    with _writing(path):
        write_report(found, folders, path)
    print(f"page written to {path}")


def main(argv: Sequence[str] | None = None) -> int:
    """Parse and run; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    commands = {
        "collect": collect,
        "tables": tables,
        "labels": labels,
        "figures": figures,
        "report": report,
        "all": everything,
    }
    with guard("--debug" in arguments):
        tyro.extras.subcommand_cli_from_dict(
            {**commands, "compare": compare},
            args=[argument for argument in arguments if argument != "--debug"],
            prog="python -m results",
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
