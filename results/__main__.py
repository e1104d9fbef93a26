"""`python -m results collect | tables`: measurements and benchmark tables from run folders."""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from engine.cli import guard
from results.collect import collect
from results.tables import benchmark_table, print_table, write_csv, write_table


@dataclasses.dataclass(frozen=True, kw_only=True)
class Collect:
    """Write every measurement of every finished run as one CSV, and name the runs left out."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run folders, or folders of run folders."""
    output: Path | None = None
    """The CSV, one line per run and metric; by default rows.csv in the first of the folders."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tables:
    """Print the benchmark table and write it as Markdown and CSV: mean and spread over seeds, difference to scratch."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run folders, or folders of run folders."""
    output: Path | None = None
    """Where to write, without ending: OUTPUT.md and OUTPUT.csv; by default `table` in the first of the folders."""


def run(options: Collect | Tables) -> None:
    """Do what was asked.

    Raises:
        DataError: a folder does not exist.
        ConfigError: two runs are the same seed of the same experiment with different results.
    """
    rows, rejected = collect(options.runs)
    if isinstance(options, Tables):
        table = benchmark_table(rows)
        print_table(table, rejected)
        written = write_table(table, options.output or options.runs[0] / "table", rejected)
        print("written: " + ", ".join(map(str, written)))
        return
    output = options.output or options.runs[0] / "rows.csv"
    output.parent.mkdir(parents=True, exist_ok=True)
    write_csv(rows, output)
    print(f"{len(rows)} measurements of {rows['run'].nunique()} runs written to {output}")
    for left_out in rejected:
        print(f"left out: {left_out}")


def main(argv: Sequence[str] | None = None) -> int:
    """Parse and run; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    with guard(debug):
        commands = (
            Annotated[Collect, tyro.conf.subcommand("collect")] | Annotated[Tables, tyro.conf.subcommand("tables")]
        )
        options = tyro.cli(
            commands,
            args=[argument for argument in arguments if argument != "--debug"],
            prog="python -m results",
            config=(tyro.conf.OmitSubcommandPrefixes,),
        )
        run(options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
