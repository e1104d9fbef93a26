"""`python -m backbones released`: the published files of weights, and how to get one."""

import argparse
from fnmatch import fnmatch
from typing import Any

from backbones.errors import BackboneError
from backbones.weights.released import FOLDER_VARIABLE, MIRROR_VARIABLE, Released, cache_folder, fetch, released

_COLUMNS = ("name", "kind", "model", "epochs", "top1", "protocol", "licence", "what")


def add_command(commands: Any) -> None:
    """Add `released` to the commands of `python -m backbones`."""
    command = commands.add_parser(
        "released",
        help="published files of weights, by name",
        description=f"{__doc__} Every --init takes released:NAME. {FOLDER_VARIABLE} names the folder they are kept in, "
        f"{MIRROR_VARIABLE} one that serves them by their file names.",
    )
    command.add_argument("pattern", nargs="?", default="*", help="names, as in 'a2mim-*'; else all")
    command.add_argument("--weights", action="store_true", help="leave out logs and pictures")
    command.add_argument("--fetch", metavar="NAME", help="download this one and print where it is")
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the list, or fetch a file and print its path; returns the exit code."""
    if options.fetch:
        print(fetch(options.fetch))
        return 0
    found = [
        entry
        for entry in released().values()
        if fnmatch(entry.name, options.pattern) and (entry.is_weights or not options.weights)
    ]
    if not found:
        raise BackboneError(f"no released file is called {options.pattern!r}; without a pattern all are listed.")
    print(_table(found))
    return 0


def _table(entries: list[Released]) -> str:
    rows = [[*_COLUMNS], *([getattr(entry, name) for name in _COLUMNS] for entry in entries)]
    widths = [max(len(row[place]) for row in rows) for place in range(len(_COLUMNS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines += [f"{entry.name}: {entry.note}" for entry in entries if entry.note]
    lines.append(
        f"{len(entries)} files; top1 is printed by the publisher: of a pre-training, after the protocol. Kept in "
        f"{cache_folder()}"
    )
    return "\n".join(lines)
