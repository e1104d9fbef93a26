"""What the page says of all runs together: facts, the table of numbers, the table of runs, the runs left out."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from results import metrics
from results.figures.data import with_labels
from results.figures.style import PALETTE
from results.page.runs import Measured, Section, called, link, without_folders
from results.page.tables import PageTable, page_table
from results.published import load_sources
from results.runs.collect import Rejected
from results.runs.facts import DATASETS
from results.tables.rows import EXPERIMENT, START
from results.tables.sheets import Sheet
from results.tables.text import data_names, settings, start

_NUMBERS = {
    "task": "task", "model": "model", "recipe": "recipe", "variant": "settings", "data": "data",
    "framework": "framework", "method": "method", "metric": "metric", "mean": "mean", "std": "± std", "n": "n",
    "low": "mean from", "high": "mean to", "difference": "difference", "difference_low": "difference from",
    "difference_high": "difference to", "hours": "hours", "pretrain_hours": "pre-training hours",
    "images_per_second": "images/s",
}  # fmt: skip
_NUM_TEXTS = 8  # of _NUMBERS, before the numbers
_MOST_NUMBERS = 3000  # lines


def facts(rows: pd.DataFrame, rejected: Sequence[Rejected]) -> list[tuple[str, str]]:
    """What the page is about, in names and values.

    Args:
        rows, rejected: of collect.
    """

    def values(column: str, length: int | None = None) -> str:
        texts = [str(value)[:length] for value in rows[column].dropna().unique() if str(value)]
        return ", ".join(texts[:12]) + (f" and {len(texts) - 12} more" if len(texts) > 12 else "")

    tasks = sorted(rows["task"].unique(), key=metrics.task_place)
    published = rows["dataset"].isin(DATASETS.values())
    rows = rows.assign(_data=rows["dataset"].where(published, rows["data_name"]))
    rows = rows.sort_values("method_place", kind="stable")
    found = {
        "finished runs": str(rows["run"].nunique()),
        "left out": str(len(rejected)),
        "models": values("model"),
        "tasks": ", ".join(tasks),
        "methods": values("method_title"),
        "data": values("_data"),
        "devices": values("device"),
        "suite's commits": values("commit", 10),
    }
    return [(name, value) for name, value in found.items() if value]


def without_details(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of collect, of very many experiments only the metrics that are talked about: a page has its limits."""
    keys = [*EXPERIMENT, *START, "metric"]
    if len(rows[keys].drop_duplicates()) <= _MOST_NUMBERS:
        return rows
    talked_about = [name for task in rows["task"].unique() for name in metrics.talked_about(task)]
    return rows[rows["task"].isin(metrics.PRETRAINING) | rows["metric"].isin(talked_about)]


def numbers_table(table: pd.DataFrame, *, complete: bool) -> PageTable:
    """Every line of benchmark_table, to search and sort.

    Args:
        table: of benchmark_table.
        complete: whether it holds all metrics.
    """
    note = "Mean, sample standard deviation and 95 % interval over seeds, and difference to scratch with its interval."
    note += "" if complete else " Of so many runs only the main metrics are here; `collect` writes all."
    shown = with_labels(table).sort_index()
    shown = shown.assign(
        data=data_names(shown),
        variant=shown["variant"].map(settings),
        method=shown["label"],
        metric=shown["metric"].map(metrics.label),
    )[list(_NUMBERS)].rename(columns=_NUMBERS)
    shown = shown[[name for name in shown if shown[name].astype(str).str.strip().any()]]
    decimals = {name: 1 if name == "images/s" else 2 for name in list(_NUMBERS.values())[_NUM_TEXTS:] if name != "n"}
    filters = ("task", "model", "recipe", "method", "metric")
    return page_table(
        shown, "Every metric" if complete else "Main metrics", filters=filters, decimals=decimals, notes=[note]
    )


def runs_table(runs: Sequence[Measured], sections: Sequence[Section]) -> PageTable:
    """A line for each run, which leads to its section."""
    lines = [
        {
            "run": section.name,
            "task": run.row["task"],
            "model": run.row["model"],
            "recipe": run.row["recipe"],
            "method": start(run.row),
            "seed": run.row["seed"],
            "metric": metrics.label(run.main),
            "value": run.run.metrics[run.main],
            "hours": run.row["seconds"] / 3600,
            "images/s": run.row["images_per_second"],
            "memory, GB": run.row["peak_memory_bytes"] / 1e9 if run.row["peak_memory_bytes"] else None,
            "configuration": str(run.row["config_hash"])[:8],
            "commit": str(run.row["commit"])[:8],
            "device": run.row["device"],
        }
        for run, section in zip(runs, sections, strict=True)
    ]
    columns = ["run", "task", "model", "recipe", "method", "seed", "metric", "value", "hours", "images/s", "memory, GB",
               "configuration", "commit", "device"]  # fmt: skip
    return page_table(
        pd.DataFrame(lines, columns=columns),
        "Finished runs",
        filters=("task", "model", "recipe", "method", "seed"),
        decimals={"value": 2, "hours": 3, "images/s": 1, "memory, GB": 2},
        links={"run": [f"#{section.id}" for section in sections]},
    )


def described(run: Measured, section: Section, rows: pd.DataFrame) -> dict[str, Any]:
    """What the script has to know of a run to draw its curves among others.

    Args:
        run, section: of it.
        rows: of collect, all of them.
    """
    row = run.row
    several = rows["data"][rows["task"] == row["task"]].nunique() > 1
    told = (*(settings(row[key]) for key in ("model", "recipe", "variant")), f"on {row['data_name']}" * several)
    where = ", ".join(filter(None, told))
    return {
        "name": section.name,
        "experiment": f"{row['task']}: {where}",
        "label": f"{start(row)}, seed {row['seed']}",
        "color": int(row["method_place"]) % len(PALETTE),
        "main": run.main,
    }


def sheet_table(sheet: Sheet) -> PageTable:
    """A table of measured and published numbers, its sources as links."""
    sources = load_sources()
    addresses = dict(zip(sources["key"], sources["url"], strict=True))
    addresses |= dict(zip(sources["title"], sources["url"], strict=True))
    links = {"source": [addresses.get(text, "") for text in sheet.shown["source"]]} if "source" in sheet.shown else {}
    return page_table(sheet.shown, sheet.title, filters=(), links=links, notes=sheet.notes)


def left_out_table(rejected: Sequence[Rejected], folders: Sequence[Path], page: Path) -> PageTable:
    """The runs of which the page says nothing else, and why, with links as seen from the page."""
    frame = pd.DataFrame(
        [(called(run.run_dir, folders), without_folders(run.reason, folders)) for run in rejected],
        columns=["run", "reason"],
    )
    return page_table(frame, "Runs left out", links={"run": [link(run.run_dir, page) for run in rejected]})
