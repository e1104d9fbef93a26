"""Lists of image paths in text files: what to leave out, and what `engine.verify` found bad."""

import codecs
import json
from collections.abc import Iterable
from pathlib import Path

from engine.data.files import read_small
from engine.run.storage import storage_errors, write_atomic

_ERRORS = "surrogateescape"  # file names are bytes; keep those that are not UTF-8


def read_list(path: str | Path) -> list[str]:
    """The paths of a list, one a line; empty lines and lines beginning with # are left out.

    Raises:
        DataError: the file cannot be read.
    """
    content = read_small(path, "the list of images").removeprefix(codecs.BOM_UTF8)
    lines = content.decode(errors=_ERRORS).split("\n")
    return [_unquoted(line) for line in map(str.strip, lines) if line and not line.startswith("#")]


def write_list(path: Path, names: Iterable[str]) -> None:
    """Write a list that `read_list` reads; a name with a line break in it, or one that looks like a comment, is quoted.

    Raises:
        CheckpointError: the file cannot be written.
    """
    with storage_errors(path.parent):
        write_atomic(path, "".join(f"{quoted(name)}\n" for name in names).encode(errors=_ERRORS))


def match(root: Path, listed: Iterable[str], known: Iterable[str]) -> set[str]:
    """Which of the images under a folder a list names: see `find_listed`."""
    return set(find_listed(root, listed, known).values())


def find_listed(root: Path, listed: Iterable[str], known: Iterable[str]) -> dict[str, str]:
    """Line of a list -> the image under a folder that it names, of the lines that name one.

    Args:
        root: the folder.
        listed: paths relative to the folder or to one of those above it, or absolute.
        known: the images, relative to the folder.
    """
    there, named = set(known), {}
    absolute = root.absolute()
    prefixes = ["", f"{absolute}/", f"{absolute.resolve()}/"]
    prefixes += ["/".join(absolute.parts[-depth:]) + "/" for depth in range(1, len(absolute.parts))]
    for line in listed:
        path = line.removeprefix("./")
        tails = (path.removeprefix(prefix) for prefix in prefixes if path.startswith(prefix))
        if tail := next((tail for tail in tails if tail in there), ""):
            named[line] = tail
    return named


def quoted(name: str) -> str:
    """A name as a line of a list: in JSON's quotes if it has a line break in it or would be read as something else."""
    odd = name != name.strip() or "\n" in name or "\r" in name or name.startswith(("#", '"'))
    return json.dumps(name) if odd else name


def _unquoted(line: str) -> str:
    if not line.startswith('"'):
        return line
    try:
        return str(json.loads(line))
    except ValueError:
        return line
