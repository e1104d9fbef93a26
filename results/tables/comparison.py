"""Measured and published numbers in one tidy frame, each in columns of its own, compared where they are comparable."""

import functools
import math
from typing import Any

import pandas as pd

from results import metrics
from results.methods import CONTROL
from results.published import load_sources
from results.tables.rows import EXPERIMENT, START, benchmark_table
from results.tables.text import records
from suite_tasks import Topic

TOPIC = ["task", "origin", "dataset", "data", "data_name", "model", "architecture", "parameters_m", "framework"]
TRAINING = ["protocol", "method", "method_title", "target", "pretrain_dataset", "pretrain_recipe", "pretrain_epochs",
            "pretrain_variant", "recipe", "epochs", "variant"]  # fmt: skip
MEASURED = ["mean", "std", "n", "low", "high", "difference", "difference_low", "difference_high", "pairs"]
PUBLISHED = ["published", "printed", "source", "follows", "match", "contradiction", "to_published"]
FROZEN = "frozen encoder"
"""Protocol of what trains on an encoder that does not, apart from a linear probe; no published number is of it."""
_OTHERS = 5  # rank of a source that is not preferred
COLUMNS = [*TOPIC, *TRAINING, "metric", "measured_as", *MEASURED, *PUBLISHED, "note", "remark"]


def compare_with_published(rows: pd.DataFrame, published: pd.DataFrame) -> pd.DataFrame:
    """Every measured mean and every published number, one per line.

    Args:
        rows: of collect.
        published: of load_published.

    Returns:
        COLUMNS. `origin` is "measured" or "published". A measured line has MEASURED, those of benchmark_table, and
        where a published number has the same data set, architecture, method, recipe and epochs, and the weights came
        from the method's published pre-training of as many epochs on ImageNet-1K, that number in PUBLISHED, and
        `to_published`, mean minus published. A published line has only PUBLISHED. Everything else is NaN or "".
        `metric` is the published name of what the run calls `measured_as`.
        `task` is the topic (suite_tasks), as "probes" for runs with a frozen encoder.
    """
    names = dict(zip(published["model"], published["architecture"], strict=True))
    index = _index(published)
    lines = [_measured_line(line, names, index) for line in _headlines(benchmark_table(rows))]
    lines += [_published_line(row) for row in records(published)]
    return pd.DataFrame(lines, columns=COLUMNS)


def _headlines(table: pd.DataFrame) -> list[dict[str, Any]]:
    found = []
    for _, group in table.groupby([*EXPERIMENT, *START], dropna=False, sort=False):
        lines = {str(line["metric"]): line for line in records(group)}
        first = group.iloc[0]
        task = str(first["task"])
        topic = metrics.topic_of(task, probe=bool(first["probe"]))
        compared = topic.metrics if topic else {name: (name,) for name in metrics.shown_of(task, list(lines))}
        for metric, sources in compared.items():
            there = next((name for name in sources if name in lines), None)
            if there is not None:
                what = {"task": topic.name if topic else task, "metric": metric, "measured_as": there}
                found.append({**lines[there], **what, "protocol": _protocol(lines[there], topic)})
    return found


def _measured_line(
    line: dict[str, Any], names: dict[str, str], index: dict[Any, list[dict[str, Any]]]
) -> dict[str, Any]:
    reference = _reference(line, index)
    parameters = line["parameters"]
    return {
        **{name: line[name] for name in COLUMNS if name in line},
        "origin": "measured",
        "architecture": names.get(line["model"]) or line["model"],
        "parameters_m": math.nan if pd.isna(parameters) else parameters / 1e6,
        "target": "",
        "published": math.nan,
        **dict.fromkeys(("printed", "source", "follows", "match", "contradiction", "note"), ""),
        **reference,
        "to_published": line["mean"] - reference["published"] if reference else math.nan,
    }


def _protocol(line: dict[str, Any], topic: Topic | None) -> str:
    if line["probe"]:
        return "linear" if topic else FROZEN
    return topic.control if topic and line["method"] == CONTROL else "fine-tuned"


def _published_line(row: dict[str, Any]) -> dict[str, Any]:
    return {
        **{name: row[name] for name in COLUMNS if name in row},
        **dict.fromkeys(
            ("data", "data_name", "framework", "pretrain_dataset", "pretrain_recipe", "pretrain_variant"), ""
        ),
        **dict.fromkeys(("method_title", "measured_as", "remark"), ""),
        "origin": "published",
        "parameters_m": row["params_m"],
        "recipe": row["printed_recipe"],
        "follows": row["recipe"],
        "published": row["value"],
        "to_published": math.nan,
    }


def _index(published: pd.DataFrame) -> dict[Any, list[dict[str, Any]]]:
    """The published numbers that a measurement may be compared with, by everything but the lengths of training."""
    found: dict[Any, list[dict[str, Any]]] = {}
    for row in records(published[published["recipe"] != ""]):
        found.setdefault(_key(row), []).append(row)
    return found


def _key(line: dict[str, Any]) -> tuple[str, ...]:
    return tuple(str(line[name]) for name in ("task", "dataset", "model", "recipe", "method", "metric"))


def _reference(line: dict[str, Any], index: dict[Any, list[dict[str, Any]]]) -> dict[str, Any]:
    if line["protocol"] == FROZEN:  # the published numbers are of encoders that train on
        return {}
    fitting = [row for row in index.get(_key(line), []) if _same_training(row, line)]
    if not fitting:
        return {}
    ranks = preferred_sources()
    best = min(fitting, key=lambda row: (ranks.get(row["source"], _OTHERS), row["match"] != "stated"))
    kept = {name: best[name] for name in ("printed", "source", "match", "contradiction", "note", "target")}
    return {**kept, "published": best["value"]}


def _same_training(row: dict[str, Any], line: dict[str, Any]) -> bool:
    if row["epochs"] != line["epochs"] or line["method"] == CONTROL:
        return bool(row["epochs"] == line["epochs"])
    recipe = f"{line['method']}-{line['model']}-{row['pretrain_epochs']:.0f}e"
    found = (line["pretrain_recipe"], line["pretrain_epochs"], line["pretrain_dataset"])
    return found == (recipe, row["pretrain_epochs"], "ImageNet-1K")


@functools.cache
def preferred_sources() -> dict[str, int]:
    """{key: rank} of the sources that are cited first where a number stands in several places, 1 first of all."""
    table = load_sources()
    return {str(k): int(rank) for k, rank in zip(table["key"], table["preferred"], strict=True) if rank}
