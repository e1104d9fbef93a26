"""`python -m slurm launch | run | status | logs | cancel | retry`."""

import dataclasses
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import tyro

from engine.errors import ConfigError
from slurm import status

USAGE = """usage: python -m slurm COMMAND ...

  launch SWEEP [OPTIONS]     start every run of a sweep that is neither finished nor running; without SWEEP lists them
  run [OPTIONS] PACKAGE ...  start a single run: from PACKAGE on, what would follow `python -m`
  status [SWEEP|RUN ...]     a table of every run; --watch keeps it up to date
  logs RUN                   what a run printed
  cancel SWEEP|RUN ...       cancel jobs; running ones save first
  retry [SWEEP|RUN ...]      start failed runs again, where they stopped

Each takes --help."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Status:
    """Print every run: pending, running with progress and time left, interrupted how often, failed and why."""

    names: tyro.conf.Positional[tuple[str, ...]] = ()
    """Sweeps or runs; all if none is given."""
    runs_dir: Path = Path("runs")
    """Folder of run folders."""
    watch: bool = False
    """Keep the table up to date until nothing is left in the queue."""
    every: float = 10.0
    """Seconds between two looks with --watch."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Logs:
    """Print what a run's first process wrote, in all attempts of its last job."""

    name: tyro.conf.Positional[str]
    """The run."""
    runs_dir: Path = Path("runs")
    """Folder of run folders."""
    rank: int = 0
    """Another process's log."""
    lines: int | None = None
    """Only so many, from the end."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cancel:
    """Cancel jobs. Running ones save first; launch or run starts them again where they stood."""

    names: tyro.conf.Positional[tuple[str, ...]] = ()
    """Sweeps or runs."""
    all: bool = False
    """Everything under --runs-dir."""
    runs_dir: Path = Path("runs")
    """Folder of run folders."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Retry:
    """Start failed runs again, from their newest checkpoint and with what they were given before."""

    names: tyro.conf.Positional[tuple[str, ...]] = ()
    """Sweeps or runs; all if none is given."""
    runs_dir: Path = Path("runs")
    """Folder of run folders."""


def _status(options: Status) -> int:
    return status.status(options.runs_dir, options.names, watch=options.every if options.watch else None)


def _logs(options: Logs) -> int:
    return status.logs(options.runs_dir, options.name, rank=options.rank, lines=options.lines)


def _cancel(options: Cancel) -> int:
    if bool(options.names) == options.all:
        raise ConfigError("cancel needs the names of sweeps or runs, or --all")
    return status.cancel(options.runs_dir, options.names)


def _retry(options: Retry) -> int:
    from slurm.launch import retry  # with torch, which takes seconds to import, as in what follows

    return retry(options.runs_dir, options.names)


def _start(name: str, arguments: list[str]) -> int:
    if name == "launch":
        from slurm.sweep_command import launch

        return launch(arguments)
    from slurm.commands import run

    return run(arguments)


ASKING: dict[str, tuple[Any, Callable[[Any], int]]] = {
    "status": (Status, _status),
    "logs": (Logs, _logs),
    "cancel": (Cancel, _cancel),
    "retry": (Retry, _retry),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Parse and run; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    name, rest = (arguments or [""])[0], arguments[1:]
    try:
        if name in ("", "-h", "--help"):
            print(USAGE, flush=True)
            return 0 if arguments else 2
        if name in ("launch", "run"):
            return _start(name, rest)
        if name not in ASKING:
            raise ConfigError(f"no command {name!r}: launch, run, {', '.join(ASKING)}")
        options, command = ASKING[name]
        flags = (tyro.conf.FlagCreatePairsOff,)
        return command(tyro.cli(options, args=rest, prog=f"python -m slurm {name}", config=flags))
    except BrokenPipeError:  # the reader of a pipe, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        code = getattr(error, "exit_code", None)  # errors meant for users carry one; others keep their traceback
        if code is None:
            raise
        print(f"error: {error}", file=sys.stderr)
        return int(code)


if __name__ == "__main__":
    sys.exit(main())
