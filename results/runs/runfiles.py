"""The files of a run folder, read with suspicion: what cannot be read, or cannot be true, makes the run unusable."""

import itertools
import json
import logging
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from engine.config import config_hash

log = logging.getLogger("mim")


class UnusableRun(Exception):
    """A run whose numbers must not reach a table. Its text is the reason."""


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        UnusableRun: there is none.
    """
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise UnusableRun(f"{path.name} cannot be read ({error})") from error
    if not isinstance(values, dict):
        raise UnusableRun(f"{path.name} does not hold an object")
    return values


def read_summary(run_dir: Path, config: dict[str, Any]) -> dict[str, Any]:
    """finished.json of the run with that configuration.

    Raises:
        UnusableRun: the run did not finish, or with another configuration.
    """
    if not (run_dir / "finished.json").is_file():
        if (run_dir / "error.json").is_file():
            lines = str(read_json(run_dir / "error.json").get("message")).splitlines()
            raise UnusableRun(f"not finished: {lines[0] if lines else 'stopped without a message'}")
        raise UnusableRun("not finished")
    summary = read_json(run_dir / "finished.json")
    found, expected = summary.get("config_hash"), config_hash(config)
    if found != expected:
        raise UnusableRun(
            f"finished.json belongs to another configuration (hash {str(found)[:12]}, of config.json {expected[:12]})"
        )
    return summary


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
    return value  # type: ignore[no-any-return]  # checked above


def checked_metrics(run_dir: Path, task: str, summary: dict[str, Any]) -> dict[str, float]:
    """finished.json's metrics, each of which must be a possible number that metrics.jsonl holds too.

    Raises:
        UnusableRun: one is not, or an evaluation in metrics.jsonl is not possible.
    """
    metrics = summary.get("metrics")
    if not isinstance(metrics, dict) or not metrics:
        raise UnusableRun("finished.json holds no metrics")
    # top1_best_last10 is a value of top1_best_last10, top1_best or top1.
    sources = {name: list(itertools.accumulate(name.split("_"), "{}_{}".format)) for name in metrics}
    logged: dict[str, set[float]] = {key: set() for keys in sources.values() for key in keys}
    for number, row in enumerate(read_metrics(run_dir), start=1):
        if row.get("split") == "val":
            for name in row.keys() - {"step", "epoch", "split"}:
                _check_number(f"metrics.jsonl line {number}", task, name, row[name])
        for key, value in row.items():
            if key in logged and isinstance(value, int | float):
                logged[key].add(value)
    for name, value in metrics.items():
        _check_number("finished.json", task, name, value)
        if not any(value in logged[key] for key in sources[name]):
            raise UnusableRun(f"finished.json: {name} {value} was never measured: metrics.jsonl does not hold it")
    return {name: float(value) for name, value in metrics.items()}


def read_metrics(run_dir: Path) -> Iterator[dict[str, Any]]:
    """The object of every line of metrics.jsonl; a last line without its end is dropped with a warning.

    Raises:
        UnusableRun: the file cannot be read, or a line is something else.
    """
    path = run_dir / "metrics.jsonl"
    try:
        *lines, rest = path.read_bytes().split(b"\n")
    except OSError as error:
        raise UnusableRun(f"metrics.jsonl cannot be read ({error})") from error
    if rest:
        log.warning("%s: the last line was cut off by a kill and is dropped", path)
    for number, line in enumerate(lines, start=1):
        row = _parsed(line)
        if not isinstance(row, dict):
            raise UnusableRun(f"metrics.jsonl line {number} is not a JSON object")
        yield row


def _parsed(line: bytes) -> Any:
    """The value, None if it is no JSON."""
    try:
        return orjson.loads(line)  # a paper's thousand runs have millions of lines: json takes five times as long
    except ValueError:
        pass
    try:
        return json.loads(line)  # it knows NaN, which is better called a bad number than no JSON
    except ValueError:
        return None


def is_number(value: Any) -> bool:
    """Whether it is a number that can be reckoned with: no truth value, not NaN, not infinite."""
    if isinstance(value, int):
        return not isinstance(value, bool) and abs(value) < sys.float_info.max  # integers of JSON have no bounds
    return isinstance(value, float) and math.isfinite(value)


def _check_number(where: str, task: str, name: str, value: Any) -> None:
    if not is_number(value):
        raise UnusableRun(f"{where}: {name} is {value}, not a finite number")
    if name.startswith("num_"):
        return
    # What else is evaluated after pre-training is a percentage: accuracy, average precision, intersection over union.
    if task != "pretrain" and "loss" not in name and not 0 <= value <= 100:
        raise UnusableRun(f"{where}: {name} is {value}, outside 0 to 100 percent")
