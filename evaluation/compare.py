"""Several encoders under one protocol: one table (Markdown and CSV) and one picture (bars with intervals)."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from tabulate import tabulate

from engine.figures import save_png
from engine.run import storage
from evaluation.intervals import difference_interval

CORRECT = "correct.npy"
_RESAMPLINGS = 2000
_COLUMNS = 3  # of panels in the picture


def compare(folders: Sequence[Path], where: Path, protocol: str) -> str:
    """Read finished runs, write their table beside them as .md, .csv and .png, and return what a terminal shows. The
    files are named by the protocol that was carried out, dense-knn beside dense-linear: none takes another's place.

    Raises:
        CheckpointError: the files cannot be written.
    """
    runs = [storage.read_object(folder / "finished.json") for folder in folders]
    headline = next(iter(runs[0]["metrics"]))
    protocol = str(runs[0]["row"].get("protocol") or protocol)
    table = _markdown(folders, runs, headline)
    with storage.storage_errors(where):
        storage.write_atomic(where / f"{protocol}.md", table + "\n")
        storage.write_atomic(where / f"{protocol}.csv", _csv(folders, runs))
        _draw(where / f"{protocol}.png", runs, headline, protocol)
    return f"{table}\n\n{where / protocol}.md, .csv (every field), .png; a run folder each: {folders[0]}" + (
        ", ..." if len(folders) > 1 else ""
    )


def _markdown(folders: Sequence[Path], runs: Sequence[dict[str, Any]], headline: str) -> str:
    metrics = list(dict.fromkeys(name for run in runs for name in run["metrics"]))
    bounds = {f"{name}_{end}" for name in metrics for end in ("low", "high")}
    others = [name for name in metrics if name != headline and name not in bounds]
    rows = []
    for folder, run in zip(folders, runs, strict=True):
        found = run["metrics"]
        row = {"encoder": run["row"]["encoder"], _title(headline, run): _cell(found, headline)}
        if len(runs) > 1:
            row["to the first"] = _difference(folders[0], folder, runs[0], run, headline)
        if run["row"]["layer_name"] and run["row"]["token"]:
            row["features"] = _features(run["row"])
        row |= {name: _cell(found, name) for name in others}
        row["s"] = f"{run['row']['seconds']:.0f}"
        rows.append(row)
    return tabulate(rows, headers="keys", tablefmt="pipe", disable_numparse=True)


def _cell(metrics: dict[str, float], name: str) -> str:
    """A number with its interval, where it has one; "" for a number that this encoder lacks."""
    if name not in metrics:
        return ""
    low, high = (metrics.get(f"{name}_{end}") for end in ("low", "high"))
    return f"{metrics[name]:.2f}" + ("" if low is None or high is None else f" [{low:.1f}, {high:.1f}]")


def _title(headline: str, run: dict[str, Any]) -> str:
    """The metric's name with where it was measured, the same for all encoders of a table."""
    row = run["row"]
    if row["k"] is not None and row["temperature"] is not None:
        return f"{headline} (k {row['k']}, T {row['temperature']:g})"
    return headline


def _features(row: dict[str, Any]) -> str:
    """Of which layer, what of it, and on which side of the final norm."""
    return f"{row['layer_name']}, {row['token']}" + (", after the norm" if row["final_norm"] else "")


def _difference(first: Path, other: Path, of_first: dict[str, Any], of_other: dict[str, Any], headline: str) -> str:
    """How much better than the first, with its interval where both know image by image what was right."""
    if first == other:
        return ""
    difference = of_other["metrics"][headline] - of_first["metrics"][headline]
    right = [_correct(folder) for folder in (first, other)]
    if right[0] is None or right[1] is None or len(right[0]) != len(right[1]):
        return f"{difference:+.2f}"
    low, high = difference_interval(right[0], right[1], seed=0, resamplings=_RESAMPLINGS)
    return f"{difference:+.2f} [{low:+.1f}, {high:+.1f}]"


def _correct(folder: Path) -> Any:
    try:
        return np.load(folder / CORRECT, allow_pickle=False)
    except (OSError, ValueError):
        return None


def _csv(folders: Sequence[Path], runs: Sequence[dict[str, Any]]) -> str:
    """One line for each encoder: all fields of its row, then its metrics."""
    names = list(dict.fromkeys(name for run in runs for name in run["metrics"]))
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow([*runs[0]["row"], *names, "run"])
    for folder, run in zip(folders, runs, strict=True):
        cells = [value if isinstance(value, str) else json.dumps(value) for value in run["row"].values()]
        writer.writerow([*cells, *(run["metrics"].get(name, "") for name in names), folder])
    return out.getvalue()


def _draw(path: Path, runs: Sequence[dict[str, Any]], headline: str, protocol: str) -> None:
    """Bars of the headline and of every other metric that has an interval, each in a panel of its own."""
    metrics = dict.fromkeys(name for run in runs for name in run["metrics"])
    shown = [headline, *(name for name in metrics if name != headline and f"{name}_low" in metrics)]
    columns = min(len(shown), _COLUMNS)
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(2.6 + 3.8 * columns, (1.2 + 0.45 * len(runs)) * rows), layout="constrained")
    for number, name in enumerate(shown):
        axes = figure.add_subplot(rows, columns, number + 1)
        _bars(axes, runs, name)
        axes.set_yticks(
            range(len(runs))[::-1], [run["row"]["encoder"] for run in runs] if number % columns == 0 else []
        )
        bounded = f"{name}_low" in metrics
        axes.set_xlabel(f"{protocol}: {_title(name, runs[0])}" + (", 95 % interval" if bounded else ""))
    content = io.BytesIO()
    save_png(figure, content)
    storage.write_atomic(path, content.getvalue())


def _bars(axes: Any, runs: Sequence[dict[str, Any]], name: str) -> None:
    """One bar for each encoder, the first on top; none for one that lacks the metric."""
    known = [(len(runs) - 1 - number, run["metrics"]) for number, run in enumerate(runs) if name in run["metrics"]]
    places = np.array([place for place, _ in known])
    values, lows, highs = (
        np.array([metrics.get(f"{name}{end}", metrics[name]) for _, metrics in known]) for end in ("", "_low", "_high")
    )
    errors = np.maximum([values - lows, highs - values], 0)
    axes.barh(places, values, height=0.6, color="#4c78a8", xerr=errors, ecolor="#222222", capsize=3)
    for place, value, high in zip(places, values, highs, strict=True):
        axes.text(high, place, f"  {value:.1f}", va="center", fontsize=9)
    axes.set_ylim(-0.6, len(runs) - 0.4)
    axes.set_xlim(left=min(0.0, float(lows.min())), right=float(highs.max()) * 1.2 or 1.0)
    axes.spines[["top", "right"]].set_visible(False)
