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
from results import methods, metrics
from results.runs.collect import Rejected
from results.statistics import difference_of, mean_of
from results.tables.headlines import headlines
from results.tables.text import (
    LEGEND,
    OVER_IMAGES,
    change,
    csv_text,
    has_bounds,
    markdown_list,
    markdown_table,
    measured,
    over_images,
    records,
    remarks,
    settings,
    start,
)

EXPERIMENT = ["task", "model", "recipe", "variant", "data"]
START = ["method", "pretrain_recipe", "pretrain_epochs", "pretrain_variant"]
WHAT = [
    "method_title", "method_place", "dataset", "data_name", "parameters", "epochs", "framework", "probe",
    "pretrain_dataset",
]  # fmt: skip
VALUES = [
    "mean", "std", "n", "low", "high", "difference", "difference_low", "difference_high", "pairs", "hours",
    "pretrain_hours", "images_per_second", "unreadable", "remark",
]  # fmt: skip
TO_SCRATCH = "to scratch"


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
        that a run skipped; `remark`, those of the runs, each once. Sorted by experiment, then method.
    """
    evaluated = rows[~rows["task"].isin(metrics.PRETRAINING)]
    keys = [*EXPERIMENT, "metric", *START]
    groups = [(key, group) for key, group in evaluated.groupby(keys, dropna=False, sort=False)]
    controls = {_experiment(key): _by_seed(group) for key, group in groups if _method(key) == methods.CONTROL}
    lines = []
    for key, group in groups:
        control = None if _method(key) == methods.CONTROL else controls.get(_experiment(key))
        what = dict(zip(WHAT, group[WHAT].iloc[0], strict=True))
        lines.append({**dict(zip(keys, key, strict=True)), **what, **_values(group, control)})
    table = pd.DataFrame(lines, columns=[*EXPERIMENT, *START, "metric", *WHAT, *VALUES])
    places = {metric: place for place, metric in enumerate(dict.fromkeys(evaluated["metric"]))}
    sortable = table.assign(
        _task=metrics.task_places(table["task"]),
        _metric=[places[metric] for metric in table["metric"]],
    )
    by = ["_task", *EXPERIMENT[1:], "method_place", *START, "_metric"]
    return sortable.sort_values(by, kind="stable", ignore_index=True)[table.columns]


def _experiment(key: tuple[Any, ...]) -> tuple[Any, ...]:
    return key[: len(EXPERIMENT) + 1]  # and the metric


def _method(key: tuple[Any, ...]) -> str:
    return str(key[len(EXPERIMENT) + 1])


def _by_seed(group: pd.DataFrame) -> dict[Any, float]:
    """{what a run is called where two groups are paired: value}.

    That is its seed; where runs share theirs, as measurements of several frozen encoders do, the seed of the encoder's
    pre-training (or of the network without training) beside it; where both are shared its name, which pairs with none.
    """
    for names in (["seed"], ["seed", "pretrain_seed"]):
        if group[names].notna().to_numpy().all() and not group.duplicated(names).any():
            keys = [tuple(map(int, key)) for key in group[names].itertuples(index=False)]
            return dict(zip(keys, group["value"], strict=True))
    return dict(zip(group["run"], group["value"], strict=True))


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
        "remark": "; ".join(dict.fromkeys(text for text in group["remark"] if text)),
    }


def readable(table: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """The table as people read it: a title for each experiment, one line per method, one column per headline metric."""
    several = table[["task", "model", "recipe", "variant"]].drop_duplicates()
    by_data = len(table[EXPERIMENT].drop_duplicates()) > len(several)
    found = []
    for values, part in table.groupby(EXPERIMENT, dropna=False, sort=False):
        task, model, recipe, variant, _ = values
        where = f", on {part['data_name'].iloc[0]}" * by_data
        title = f"{task}: {model}, {recipe}" + f", {settings(variant)}" * bool(variant) + where
        names = metrics.shown_of(str(task), list(dict.fromkeys(part["metric"])))
        shown = part[part["metric"].isin(names)].sort_values(
            "metric", key=lambda column: column.map(names.index), kind="stable"
        )
        starts = shown.sort_values("method_place", kind="stable").groupby(START, dropna=False, sort=False)
        main = metrics.headline(str(task), names)
        found.append((title, pd.DataFrame([_line(group, main) for _, group in starts]).fillna("")))
    return found


def _line(group: pd.DataFrame, main: str) -> dict[str, str]:
    first = group.iloc[0]
    line = {"method": start(dict(first))}
    found = {str(row["metric"]): row for row in records(group)}
    for metric in metrics.without_bounds(list(found)):
        row = found[metric]
        if metric == main:
            line |= {metrics.label(metric): measured(row), TO_SCRATCH: change(row)}
        else:
            difference = change(row, ends=False)
            line[metrics.label(metric)] = measured(row) + (f" ({difference})" if difference else "")
        line |= over_images(metric, found)
    counts = sorted(set(group["n"]))
    line["n"] = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    line["hours"] = f"{first['hours']:.2f}"
    line["pre-training hours"] = f"{first['pretrain_hours']:.2f}" if first["pretrain_hours"] else ""
    line["images/s"] = "" if pd.isna(first["images_per_second"]) else f"{first['images_per_second']:.0f}"
    if first["unreadable"]:
        line["images skipped"] = f"{first['unreadable']}"
    return line


def notes(table: pd.DataFrame) -> list[str]:
    """What stands below the readable form."""
    if not len(table):
        return ["No finished run to show."]
    return [*LEGEND, *[OVER_IMAGES] * has_bounds(table), *remarks(table)]


def print_table(table: pd.DataFrame, rejected: Sequence[Rejected] = (), console: Console | None = None) -> None:
    """Print the readable form, and below it the runs that are not in it."""
    # A file or a pipe has no width of its own; 80 columns would break the lines for nothing.
    console = console or (Console() if sys.stdout.isatty() else Console(width=160))
    for title, lines in readable(table):
        shown = Table(*(Column(str(name), overflow="fold") for name in lines.columns), title=escape(title))
        for cells in lines.itertuples(index=False):
            shown.add_row(*map(escape, map(str, cells)))
        console.print(shown)
    for note in notes(table):
        console.print(note, markup=False, highlight=False)
    for run in rejected:
        console.print(f"not in the table: {run}", markup=False, highlight=False, soft_wrap=True)


def print_headlines(table: pd.DataFrame, console: Console | None = None) -> None:
    """Print the sentence for each task: what all the numbers above say."""
    console = console or Console(soft_wrap=True)
    for headline in headlines(table):
        console.print(str(headline), markup=False, highlight=False)


def write_table(table: pd.DataFrame, path: Path, rejected: Sequence[Rejected] = ()) -> list[Path]:
    """Write `path`.md, the readable form with the runs that are not in it, and `path`.csv; returns both paths."""
    written = path.with_name(f"{path.name}.md"), path.with_name(f"{path.name}.csv")
    path.parent.mkdir(parents=True, exist_ok=True)
    said = markdown_list([str(headline) for headline in headlines(table)])
    parts = [said] * bool(said) + [f"### {title}\n\n{markdown_table(lines)}" for title, lines in readable(table)]
    parts.append(markdown_list(notes(table)))
    if rejected:
        parts.append("Not in the table:\n\n" + markdown_list([str(run) for run in rejected]))
    write_atomic(written[0], "\n\n".join(parts) + "\n")
    write_atomic(written[1], csv_text(table))
    return list(written)
