"""Shares of the labels side by side: a line for each network and start, a column for each share."""

import pandas as pd

from results import metrics
from results.methods import CONTROL
from results.runs.facts import FRACTION
from results.tables.sheets import Sheet
from results.tables.text import LEGEND, change, records, remarks, settings, start
from suite_tasks import find

_FRACTION = f"data.{FRACTION}="
FROZEN = (
    "knn, logistic and the like measure the frozen encoder, of which nothing is trained; from scratch is then the "
    "network without training. Numbers in brackets: difference to scratch with its interval."
)


def label_table(table: pd.DataFrame) -> pd.DataFrame:
    """What every start reached with every share of the labels, by its task's main metric.

    Args:
        table: of benchmark_table.

    Returns:
        Text. A line for each task, network, recipe (told where a network has several), other setting, data set (told
        where there are several) and start, and a
        column for each share, the smallest first: from scratch the mean, after pre-training also its difference to
        scratch with its interval; `n` the runs of each number.
    """
    found: dict[tuple[str, str, str], dict[str, str]] = {}
    counts: dict[tuple[str, str, str], set[int]] = {}
    shares: dict[str, float] = {}
    several = table["data"].nunique() > 1
    recipes = table[["model", "task", "recipe"]].drop_duplicates()["model"].value_counts()
    for task, part in table.groupby("task", sort=False):
        metric = metrics.headline(str(task), list(dict.fromkeys(part["metric"])))
        for line in records(part[part["metric"] == metric]):
            share, other = split_variant(str(line["variant"]))
            model = str(line["model"])
            recipe = str(line["recipe"]) if recipes[model] > 1 else ""
            data = f"on {line['data_name']}" if several else ""
            told = (model, *filter(None, (recipe, settings(other), data, "frozen" if line["probe"] is True else "")))
            key = (str(task), ", ".join(told), start(line))
            column = f"{100 * share:g} %"
            shares[column] = share
            difference = "" if line["method"] == CONTROL else f" ({change(line)})" * bool(change(line))
            found.setdefault(key, {})[column] = f"{line['mean']:.1f}{difference}"
            counts.setdefault(key, set()).add(int(line["n"]))
    columns = sorted(shares, key=lambda name: shares[name])
    networks = list(dict.fromkeys(network for _, network, _ in found))
    lines = [
        {"network": network, "start": name, **cells, "n": _span(counts[task, network, name])}
        for (task, network, name), cells in sorted(found.items(), key=lambda item: networks.index(item[0][1]))
    ]
    return pd.DataFrame(lines, columns=["network", "start", *columns, "n"]).fillna("")


def label_sheet(table: pd.DataFrame) -> Sheet | None:
    """The table of shares as one of the tables, where there are shares or frozen encoders; of the tasks that have them,
    and of those judged by the same metric.

    Args:
        table: of benchmark_table.
    """
    judged = {
        str(task): metrics.curve_label(metrics.headline(str(task), list(dict.fromkeys(part["metric"]))))
        for task, part in table.groupby("task", sort=False)
        if find(str(task)).percent
    }
    shared = set(table[table["variant"].str.contains(_FRACTION, regex=False)]["task"])
    by = {metric for task, metric in judged.items() if task in shared or metrics.measures(task)}
    kept = table[table["task"].isin([task for task, metric in judged.items() if metric in by])]
    if not len(kept):
        return None
    notes = (*LEGEND, *[FROZEN] * any(map(metrics.measures, kept["task"])), *remarks(kept))
    return Sheet("labels", f"By share of the labels: {_judged(kept)}, %", label_table(kept), kept, notes)


def _judged(table: pd.DataFrame) -> str:
    """What the tasks are judged by, each with its protocol: "top-1 (classification: best of last 10 epochs)"."""
    found: dict[str, list[str]] = {}
    for task, part in table.groupby("task", sort=False):
        name, _, protocol = metrics.label(metrics.headline(str(task), list(dict.fromkeys(part["metric"])))).partition(
            " ("
        )
        found.setdefault(name, []).extend([f"{task}: {protocol.rstrip(')')}"] * bool(protocol))
    return " and ".join(name + f" ({'; '.join(told)})" * bool(told) for name, told in sorted(found.items()))


def split_variant(variant: str) -> tuple[float, str]:
    """(share of the labels, the other settings) of collect's `variant`."""
    parts = [part for part in variant.split(" ") if part]
    share = next((part.removeprefix(_FRACTION) for part in parts if part.startswith(_FRACTION)), "1")
    try:
        return float(share), " ".join(part for part in parts if not part.startswith(_FRACTION))
    except ValueError:
        return 1.0, variant


def _span(counts: set[int]) -> str:
    return f"{min(counts)}" if len(counts) == 1 else f"{min(counts)} to {max(counts)}"
