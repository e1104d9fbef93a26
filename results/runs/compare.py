"""Two runs side by side: which settings differ, what they measured, and how they got there."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from engine.config import differences
from engine.errors import DataError
from results.runs.runfiles import UnusableRun, is_number, read_bytes, read_optional

Content = TypeVar("Content")
STEPS = " ▁▂▃▄▅▆▇█"
WIDTH = 24  # characters of a drawn curve
_LARGEST = 1e300  # value of one, of which the mean of several can be told
_ENVIRONMENT = ("git_commit", "device", "world_size", "num_threads", "python", "versions")


def compare_runs(one: Path, other: Path, console: Console) -> None:
    """Print what differs between two run folders, finished or not.

    Raises:
        DataError: a folder does not exist or holds no readable run.
    """
    first, second = _read(one), _read(other)
    console.print(f"1: {one} ({_state(one)})\n2: {other} ({_state(other)})", markup=False, highlight=False)
    settings = differences(_head(first), _head(second))
    _print(console, "configuration", ["setting", "1", "2"], [[k, _text(a), _text(b)] for k, (a, b) in settings.items()])
    where = differences(*({k: _json(run, "environment.json").get(k) for k in _ENVIRONMENT} for run in (one, other)))
    _print(console, "environment", ["", "1", "2"], [[k, _text(a), _text(b)] for k, (a, b) in where.items()])
    _print(console, "measurements", ["metric", "1", "2", "2 - 1"], measurements(one, other))
    _print(console, "curves", ["curve", "1", "2", "at step", "1 there", "2 there", "2 - 1"], curves(one, other))


def measurements(one: Path, other: Path) -> list[list[str]]:
    """[name, value of one, value of other, difference] for every number in the two finished.json."""
    found = [_numbers(_json(run, "finished.json")) for run in (one, other)]
    return [
        [name, *(_number(values.get(name)) for values in found), _difference(found[0].get(name), found[1].get(name))]
        for name in dict.fromkeys([*found[0], *found[1]])
    ]


def curves(one: Path, other: Path) -> list[list[str]]:
    """For every curve of either run: its name, both drawn on one scale, and both at the last step that both have."""
    tables = [_curves(run) for run in (one, other)]
    lines = []
    for name in dict.fromkeys([*tables[0], *tables[1]]):
        pair = [table.get(name, pd.Series(dtype=float)) for table in tables]
        both = pair[0].index.intersection(pair[1].index)
        at = [series.loc[both[-1]] if len(both) else None for series in pair]
        low, high = min(s.min() for s in pair if len(s)), max(s.max() for s in pair if len(s))
        drawn = [draw(list(series), low, high) for series in pair]
        step = f"{both[-1]:.0f}" if len(both) else ""
        lines.append([name, *drawn, step, *map(_number, at), _difference(at[0], at[1])])
    return lines


def draw(values: list[float], low: float, high: float, width: int = WIDTH) -> str:
    """A curve as a line of characters, each the mean of its stretch, between `low` and `high`."""
    width = min(width, len(values))
    cells = [values[len(values) * i // width : len(values) * (i + 1) // width] for i in range(width)]
    span = (high - low) or 1.0
    return "".join(STEPS[1 + round((sum(c) / len(c) - low) / span * (len(STEPS) - 2))] for c in cells)


def _curves(run: Path) -> dict[str, "pd.Series[float]"]:
    """{"val top1": values by step}; steps without a finite value, or with an astronomical one, are left out."""
    points: dict[str, dict[int, float]] = {}
    for row in _lines(run):
        for name, value in row.items():
            if name not in ("step", "epoch", "split", "num_images") and is_number(value) and abs(value) < _LARGEST:
                points.setdefault(f"{row.get('split')} {name}", {})[row["step"]] = float(value)
    return {name: pd.Series(values, dtype=float) for name, values in points.items()}


def _lines(run: Path) -> Iterator[dict[str, Any]]:
    """The objects in metrics.jsonl; the run may still be writing it, so the last line may be half there."""
    path = run / "metrics.jsonl"
    content = _read_with(read_bytes, path) if path.exists() else b""
    for number, line in enumerate(content.split(b"\n")[:-1], start=1):
        try:
            row = dict(json.loads(line))
        except (ValueError, TypeError, RecursionError) as error:
            raise DataError(f"{path} line {number}: no JSON object ({error})") from error
        if not is_number(row.get("step")):
            raise DataError(f"{path} line {number}: step is {row.get('step')!r}, not a number")
        yield row


def _read(run: Path) -> dict[str, Any]:
    if not (run / "config.json").is_file():
        raise DataError(f"{run}: no run folder (no config.json in it)")
    stored = _json(run, "config.json")
    if not isinstance(stored.get("config"), dict):
        raise DataError(f"{run / 'config.json'}: config is {stored.get('config')!r:.80}, not an object")
    return stored


def _json(run: Path, name: str) -> dict[str, Any]:
    return _read_with(read_optional, run / name)


def _read_with(read: Callable[[Path], Content], path: Path) -> Content:
    try:
        return read(path)
    except UnusableRun as error:
        raise DataError(f"{path}: {str(error).removeprefix(path.name).strip()}") from error


def _head(stored: dict[str, Any]) -> dict[str, Any]:
    return {"package": stored.get("package"), "recipe": stored.get("recipe"), **stored["config"]}


def _state(run: Path) -> str:
    if (run / "finished.json").is_file():
        return "finished"
    return f"stopped: {_json(run, 'error.json').get('message')}" if (run / "error.json").is_file() else "not finished"


def _numbers(summary: dict[str, Any]) -> dict[str, float]:
    own = ("seconds", "images_per_second", "peak_memory_bytes", "unreadable")
    metrics = summary.get("metrics")
    values = {**(metrics if isinstance(metrics, dict) else {}), **{name: summary.get(name) for name in own}}
    return {name: value for name, value in values.items() if is_number(value)}


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _difference(one: float | None, other: float | None) -> str:
    return "" if one is None or other is None else f"{other - one:+.4g}"


def _text(value: Any) -> str:
    return "" if value is None else value if isinstance(value, str) else json.dumps(value)


def _print(console: Console, title: str, header: list[str], lines: list[list[str]]) -> None:
    if not lines:
        console.print(f"{title}: the same", highlight=False)
        return
    table = Table(*header, title=title, title_justify="left")
    for line in lines:
        table.add_row(*map(escape, line))
    console.print(table)
