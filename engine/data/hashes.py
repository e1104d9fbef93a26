"""Lists of sha256 in the format of `sha256sum`, and what differs between a list and a folder."""

import hashlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from engine.data.files import read_small
from engine.errors import DataError
from engine.run.storage import storage_errors, write_atomic

_ERRORS = "surrogateescape"  # file names are bytes; keep those that are not UTF-8
_ESCAPES = {"\\": "\\\\", "\n": "\\n", "\r": "\\r"}


def read_hashes(path: Path) -> dict[str, str]:
    """A list written by `sha256sum` or `write_hashes`, as {relative path: sha256}.

    Raises:
        DataError: the file cannot be read, or a line is not `<64 hex digits>  <path>`.
    """
    lines = read_small(path, "the list of hashes").decode(errors=_ERRORS).split("\n")
    hashes: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        escaped = line.startswith("\\")
        digest, _, name = line.removeprefix("\\").partition(" ")
        name = name.removesuffix("\r")[1:]  # a second blank, or * for a file read as binary
        if not re.fullmatch(f"[0-9a-fA-F]{{{hashlib.sha256().digest_size * 2}}}", digest) or not name:
            raise DataError(f"{path}:{number}: expected '<sha256>  <path>', found {line[:80]!r}")
        hashes[(_unescaped(name) if escaped else name).removeprefix("./")] = digest.lower()
    return hashes


def write_hashes(path: Path, hashes: Mapping[str, str]) -> None:
    """Write {relative path: sha256} in one step, as `sha256sum --check` reads it.

    Raises:
        CheckpointError: the file cannot be written.
    """
    lines = []
    for name, digest in hashes.items():
        escaped = "".join(_ESCAPES.get(letter, letter) for letter in name)
        lines.append(f"{'' if escaped == name else chr(92)}{digest}  {escaped}\n")
    with storage_errors(path.parent):
        write_atomic(path, "".join(lines).encode(errors=_ERRORS))


def differences(stored: Mapping[str, str], found: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """(path, what differs) of every file that is not as a list says."""
    for path in stored.keys() - found.keys():
        yield path, "in the list of hashes, but not in the folder"
    for path, digest in found.items():
        if path not in stored:
            yield path, "not in the list of hashes"
        elif digest != stored[path]:
            yield path, f"sha256 is {digest[:12]}, the list says {stored[path][:12]}: its bytes have changed"


def _unescaped(name: str) -> str:
    return re.sub(r"\\(.)", lambda match: {"n": "\n", "r": "\r"}.get(match[1], match[1]), name)
