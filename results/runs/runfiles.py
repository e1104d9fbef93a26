"""The files of a run folder, read with suspicion: what cannot be read, or cannot be true, makes the run unusable."""

import hashlib
import json
import math
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeGuard

import orjson

from engine.config import config_hash

_MOST_BYTES = 64 * 2**20  # of a file that is one JSON value
_DEEPEST = 50  # objects and lists within each other


class UnusableRun(Exception):
    """A run whose numbers must not reach a table. Its text is the reason."""


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        UnusableRun: there is none, or one that nothing here can work with.
    """
    values = read_value(path)
    if not isinstance(values, dict):
        raise UnusableRun(f"{path.name} does not hold an object")
    return values


def read_value(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        UnusableRun: nothing, or something that nothing here can work with.
    """
    content = read_bytes(path, most=_MOST_BYTES)
    try:
        values = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UnusableRun(f"{path.name} cannot be read ({_short(error)})") from error
    _check_depth(path.name, values)
    try:
        json.dumps(values, ensure_ascii=False).encode()
    except ValueError as error:  # half a surrogate pair, an integer of thousands of digits
        raise UnusableRun(f"{path.name} holds what cannot be written again ({_short(error)})") from error
    return values


def read_optional(path: Path) -> dict[str, Any]:
    """The same of a file that a run need not have: {} without it."""
    return read_json(path) if path.is_symlink() or path.exists() else {}


def read_bytes(path: Path, most: int | None = None) -> bytes:
    """The content of a file, which has to be one: reading a pipe or a device would never end.

    Raises:
        UnusableRun: it cannot be read, is no file, or is larger than `most` bytes.
    """
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise UnusableRun(f"{path.name} cannot be read (it is no file)")
        if most is not None and found.st_size > most:
            raise UnusableRun(f"{path.name} has {found.st_size} bytes, more than the {most} that are read")
        return path.read_bytes()
    except OSError as error:
        raise UnusableRun(f"{path.name} cannot be read ({_short(error)})") from error


def is_file(path: Path) -> bool:
    """Whether there is a file, whatever the path's text: one that no file can have is no file."""
    try:
        return path.is_file()
    except (OSError, ValueError, RuntimeError):
        return False


def read_summary(run_dir: Path, config: dict[str, Any]) -> dict[str, Any]:
    """finished.json of the run with that configuration.

    Raises:
        UnusableRun: the run did not finish, or with another configuration.
    """
    path = run_dir / "finished.json"
    if not (path.exists() or path.is_symlink()):
        message = read_optional(run_dir / "error.json").get("message", "")
        lines = str(message).splitlines()
        raise UnusableRun(f"not finished: {lines[0]}" if lines else "not finished")
    summary = read_json(path)
    _check_seal(run_dir, summary)
    found, expected = summary.get("config_hash"), config_hash(config)
    if found != expected:
        raise UnusableRun(
            f"finished.json belongs to another configuration (hash {str(found)[:12]}, of config.json {expected[:12]})"
        )
    return summary


def _check_seal(run_dir: Path, summary: dict[str, Any]) -> None:
    """What runs write now: a hash over all else in finished.json, and those of the files that it rests on."""
    files = summary.get("files", {})
    if not isinstance(files, dict):
        raise UnusableRun("finished.json: files is no object")
    content = {name: value for name, value in summary.items() if name != "sha256"}
    if "sha256" in summary or files:
        found = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        if summary.get("sha256") != found:
            raise UnusableRun("finished.json was changed after the run: its sha256 is another one")
    for name, expected in files.items():
        if not name.endswith(".json") or Path(name).name != name:
            continue  # weights may be elsewhere by now: no number rests on them
        if hashlib.sha256(read_bytes(run_dir / name)).hexdigest() != expected:
            raise UnusableRun(f"{name} was changed after the run: finished.json knows another sha256")


def optional_number(summary: dict[str, Any], name: str, *, where: str = "finished.json") -> float | None:
    """A time, rate, size or count in a file, which older runs lack: finite and not below zero.

    Raises:
        UnusableRun: it is something else.
    """
    value = summary.get(name)
    if value is None:
        return None
    if not is_number(value) or value < 0:
        raise UnusableRun(f"{where}: {name} is {value!r}, not a finite number from 0 on")
    return value


def read_metrics(run_dir: Path) -> Iterator[dict[str, Any]]:
    """The object of every line of metrics.jsonl.

    Raises:
        UnusableRun: the file cannot be read, or a line is something else, or ends before its end.
    """
    *lines, rest = read_bytes(run_dir / "metrics.jsonl").split(b"\n")
    for number, line in enumerate(lines, start=1):
        row = _parsed(line)
        if not isinstance(row, dict):
            raise UnusableRun(f"metrics.jsonl line {number} is not a JSON object")
        yield row
    if rest:
        raise UnusableRun(f"metrics.jsonl ends inside line {len(lines) + 1}: what was measured there is lost")


def _parsed(line: bytes) -> Any:
    """The value, None if it is no JSON."""
    try:
        return orjson.loads(line)  # a paper's thousand runs have millions of lines: json takes five times as long
    except ValueError:
        pass
    try:
        return json.loads(line)  # it knows NaN, which is better called a bad number than no JSON
    except (ValueError, RecursionError):
        return None


def is_number(value: Any) -> TypeGuard[float]:
    """Whether it is a number that can be reckoned with: no truth value, not NaN, not infinite."""
    if isinstance(value, int):
        return not isinstance(value, bool) and abs(value) < sys.float_info.max  # integers of JSON have no bounds
    return isinstance(value, float) and math.isfinite(value)


def is_count(value: Any) -> TypeGuard[int]:
    """Whether it is a whole number from 0 on that a table can hold."""
    return type(value) is int and 0 <= value < 2**53


def _check_depth(name: str, value: Any) -> None:
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(_DEEPEST):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return
    raise UnusableRun(f"{name} is nested more than {_DEEPEST} deep")


def _short(error: BaseException) -> str:
    """What an error says without the path, which stands before it anyway."""
    return str(error.strerror if isinstance(error, OSError) and error.strerror else error)[:200]
