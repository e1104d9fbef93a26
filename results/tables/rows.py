"""From collected rows to the benchmark table: mean and spread over seeds, and what pre-training changed."""

import dataclasses
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from engine.run.storage import write_atomic
from results.runs.collect import Rejected
from results.statistics import difference_of, mean_of

METHOD_ORDER = ("scratch", "simmim", "a2mim")  # others follow by name
EXPERIMENT = ["task", "model", "recipe", "variant", "data"]
START = ["method", "pretrain_recipe", "pretrain_epochs", "pretrain_variant"]
WHAT = ["dataset", "parameters", "epochs", "framework", "probe", "pretrain_dataset"]
VALUES = [
    "mean", "std", "n", "low", "high", "difference", "difference_low", "difference_high", "pairs", "hours",
    "pretrain_hours", "images_per_second", "unreadable",
]  # fmt: skip
# Shown to people; the CSV holds every metric. A task without any of its own here is shown with all.
HEADLINES = {
    "classification": ("top1_best_last10", "top1_last", "top5_last"),
    "detection": ("box_AP", "box_AP50", "mask_AP", "mask_AP50"),
    "segmentation": ("mIoU", "mIoU_best", "mIoU_ms"),
}
LEGEND = "Mean ± sample standard deviation over n runs (difference to scratch); hours and images/s are means per run."


def benchmark_table(rows: pd.DataFrame) -> pd.DataFrame:
    """One line per experiment, start of the weights and metric, over all seeds.

    Args:
        rows: of collect. Pre-training runs are left out: their losses compare nothing.

    Returns:
        The columns of EXPERIMENT and START, metric, those of WHAT, which collect explains, and: `mean`; `std`, the
        sample standard deviation (n - 1), NaN for n = 1; `n`, how many runs; `low` and `high`, the 95 % interval of
        the mean, NaN for n < 3; `difference`, the mean minus that of "scratch" in the same experiment, NaN for scratch
        itself or without it, and its interval; `pairs`, how many seeds it is the mean difference of where both have
        the same seeds, else 0; `hours`, `pretrain_hours` and `images_per_second`, means; `unreadable`, the most images
        that a run skipped. Sorted by experiment, then METHOD_ORDER.
    """
    measured = rows[rows["task"] != "pretrain"]
    keys = [*EXPERIMENT, "metric", *START]
    groups = [(key, group) for key, group in measured.groupby(keys, dropna=False, sort=False)]
    controls = {_experiment(key): _by_seed(group) for key, group in groups if _method(key) == "scratch"}
    lines = []
    for key, group in groups:
        control = None if _method(key) == "scratch" else controls.get(_experiment(key))
        what = dict(zip(WHAT, group[WHAT].iloc[0], strict=True))
        lines.append({**dict(zip(keys, key, strict=True)), **what, **_values(group, control)})
    table = pd.DataFrame(lines, columns=[*EXPERIMENT, *START, "metric", *WHAT, *VALUES])
    metrics = list(dict.fromkeys(measured["metric"]))
    sortable = table.assign(
        _method=[METHOD_ORDER.index(m) if m in METHOD_ORDER else len(METHOD_ORDER) for m in table["method"]],
        _metric=[metrics.index(metric) for metric in table["metric"]],
    )
    by = [*EXPERIMENT, "_method", *START, "_metric"]
    return sortable.sort_values(by, kind="stable", ignore_index=True)[table.columns]


def _experiment(key: tuple[Any, ...]) -> tuple[Any, ...]:
    return key[: len(EXPERIMENT) + 1]  # and the metric


def _method(key: tuple[Any, ...]) -> str:
    return str(key[len(EXPERIMENT) + 1])


def _by_seed(group: pd.DataFrame) -> dict[Any, float]:
    """{seed: value}. Runs that share a seed, after several pre-trainings, go by their names and pair with nothing."""
    return dict(zip(group["seed"] if group["seed"].is_unique else group["run"], group["value"], strict=True))


def _values(group: pd.DataFrame, control: dict[Any, float] | None) -> dict[str, Any]:
    ours = _by_seed(group)
    change = None if control is None else difference_of(ours, control)
    return {
        **dataclasses.asdict(mean_of(list(ours.values()))),
        "difference": math.nan if change is None else change.difference,
        "difference_low": math.nan if change is None else change.low,
        "difference_high": math.nan if change is None else change.high,
        "pairs": 0 if change is None else change.pairs,
        "hours": group["seconds"].mean() / 3600,
        "pretrain_hours": group["pretrain_seconds"].mean() / 3600,
        "images_per_second": group["images_per_second"].mean(),
        "unreadable": group["unreadable"].max(),
    }


def readable(table: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """The table as people read it: a title for each experiment, one line per method, one column per headline metric."""
    several = table[["task", "model", "recipe", "variant"]].drop_duplicates()
    by_data = len(table[EXPERIMENT].drop_duplicates()) > len(several)
    found = []
    for values, part in table.groupby(EXPERIMENT, dropna=False, sort=False):
        task, model, recipe, variant, data = values
        title = f"{task}: {model}, {recipe}" + f", {variant}" * bool(variant) + f", data {data}" * by_data
        headlines = part[part["metric"].isin(HEADLINES.get(str(task), ()))]
        shown = headlines if len(headlines) else part
        lines = [_line(group) for _, group in shown.groupby(START, dropna=False, sort=False)]
        found.append((title, pd.DataFrame(lines).fillna("")))
    return found


def _line(group: pd.DataFrame) -> dict[str, str]:
    first = group.iloc[0]
    epochs = "" if pd.isna(first["pretrain_epochs"]) else f" {int(first['pretrain_epochs'])} epochs"
    line = {"method": f"{first['method']}{epochs} {first['pretrain_variant']}".strip()}
    line |= {str(row["metric"]): _cell(row) for _, row in group.iterrows()}
    counts = sorted(set(group["n"]))
    line["n"] = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    line["hours"] = f"{first['hours']:.2f}"
    line["pre-training hours"] = f"{first['pretrain_hours']:.2f}" if first["pretrain_hours"] else ""
    line["images/s"] = "" if pd.isna(first["images_per_second"]) else f"{first['images_per_second']:.0f}"
    if first["unreadable"]:
        line["images skipped"] = f"{first['unreadable']}"
    return line


def _cell(row: pd.Series) -> str:
    spread = "" if pd.isna(row["std"]) else f" ± {row['std']:.2f}"
    change = "" if pd.isna(row["difference"]) else f" ({row['difference']:+.2f})"
    return f"{row['mean']:.2f}{spread}{change}"


def print_table(table: pd.DataFrame, rejected: Sequence[Rejected] = (), console: Console | None = None) -> None:
    """Print the readable form, and below it the runs that are not in it."""
    # A file or a pipe has no width of its own; 80 columns would break the lines for nothing.
    console = console or (Console() if sys.stdout.isatty() else Console(width=160))
    for title, lines in readable(table):
        shown = Table(*(Column(str(name), overflow="fold") for name in lines.columns), title=escape(title))
        for cells in lines.itertuples(index=False):
            shown.add_row(*map(escape, map(str, cells)))
        console.print(shown)
    console.print(LEGEND if len(table) else "No finished run to show.")
    for run in rejected:
        console.print(f"not in the table: {run}", markup=False, highlight=False, soft_wrap=True)


def write_markdown(table: pd.DataFrame, path: Path, rejected: Sequence[Rejected] = ()) -> None:
    """Write the readable form as Markdown, with the runs that are not in it."""
    parts = [
        f"### {title}\n\n{lines.to_markdown(index=False, disable_numparse=True)}" for title, lines in readable(table)
    ]
    parts.append(LEGEND if len(table) else "No finished run to show.")
    if rejected:
        parts.append("Not in the table:\n\n" + "\n".join(f"- {run}" for run in rejected))
    write_atomic(path, "\n\n".join(parts) + "\n")


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write rows or a table as CSV, numbers at full precision."""
    write_atomic(path, table.to_csv(index=False, lineterminator="\n"))


def write_table(table: pd.DataFrame, path: Path, rejected: Sequence[Rejected] = ()) -> list[Path]:
    """Write `path`.md and `path`.csv; returns both paths."""
    markdown, csv = path.with_name(f"{path.name}.md"), path.with_name(f"{path.name}.csv")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_markdown(table, markdown, rejected)
    write_csv(table, csv)
    return [markdown, csv]
