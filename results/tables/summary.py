"""The summary: architecture by initialisation, measured beside published, and the differences."""

import collections
from collections.abc import Iterable
from typing import Any

import pandas as pd

from results import metrics
from results.methods import place
from results.published import load_sources
from results.tables.comparison import preferred_sources
from results.tables.sheets import Sheet, without_empty
from results.tables.text import (
    LEGEND,
    PUBLISHED_LEGEND,
    change,
    data_names,
    measured,
    method,
    number,
    published,
    records,
    remarks,
    settings,
    signed,
)
from suite_tasks import Topic

_EXPERIMENT = ["dataset", "data", "model", "recipe", "variant"]
Cells = dict[str, dict[str, Any]]
"""{method: line of the comparison}."""


def summary_sheet(comparison: pd.DataFrame, topic: Topic) -> Sheet:
    """Top-1 accuracy after fine-tuning: a line for each architecture, data set and recipe, columns for each method.

    Every architecture in the published summary has a line; what was measured on its data set by its recipe
    stands in the same line, everything else below. Of several pre-trainings by one method the one with a published
    counterpart is shown, else the longest; the table of the family has all.
    """
    source = next(key for key, rank in preferred_sources().items() if rank == 1)
    lines = comparison[comparison["task"] == topic.name]
    lines = lines.assign(_data=data_names(lines))
    theirs_of: dict[str, Cells] = {}
    for line in records(lines[(lines["source"] == source) & (lines["origin"] == "published")]):
        theirs_of.setdefault(line["model"], {})[line["method"]] = line
    order = {model: number for number, model in enumerate(theirs_of)}
    found: list[tuple[Any, Cells, Cells]] = []
    for (dataset, _, model, recipe, variant), part in lines[lines["origin"] == "measured"].groupby(_EXPERIMENT):
        ours = {str(name): _chosen(runs) for name, runs in part.groupby("method")}
        theirs = theirs_of.get(str(model), {}) if dataset == topic.dataset else {}
        if recipe not in {line["follows"] for line in theirs.values()}:
            theirs = {name: line for name, line in ours.items() if not pd.isna(line["published"])}
        key = dataset == topic.dataset, order.get(str(model), len(order)), dataset, model, recipe, variant
        found.append((key, ours, theirs))
    joined = {key[3] for key, _, theirs in found if theirs is theirs_of.get(key[3])}
    empty = [(m, cells) for m, cells in theirs_of.items() if m not in joined]
    found += [((True, order[m], topic.dataset, m, "", ""), {}, cells) for m, cells in empty]
    found.sort(key=lambda entry: (not entry[1], entry[0]))  # what was measured here stands first
    labels = _labels([line for _, *cells in found for part in cells for line in part.values()])
    shown = pd.DataFrame([_line(ours, theirs, labels) for _, ours, theirs in found]).fillna("").astype(str)
    used = [line for _, ours, theirs in found for line in (*ours.values(), *_only_published(ours, theirs))]
    data = pd.DataFrame(used, columns=comparison.columns)
    return Sheet("summary", _title(data), without_empty(shown), data, _notes(data, source, topic))


def _title(data: pd.DataFrame) -> str:
    names = [metrics.label(name) for name in data["measured_as"].unique() if name]
    return f"Summary: {' and '.join(names) or 'top-1'}, %"


def _notes(data: pd.DataFrame, source: str, topic: Topic) -> tuple[str, ...]:
    title = load_sources().set_index("key")["title"][source]
    where = f"Published numbers are those of {title} where it has one ({topic.dataset})."
    return (*LEGEND, *PUBLISHED_LEGEND, *remarks(data), where)


def _labels(lines: Iterable[dict[str, Any]]) -> dict[str, str]:
    """{method: what its columns are called}, each another one, in the order of methods."""
    titles = {
        str(line["method"]): method(line) for line in sorted(lines, key=lambda line: line["origin"] == "measured")
    }
    shared = {title for title, count in collections.Counter(titles.values()).items() if count > 1}
    names = sorted(titles, key=place)
    return {name: f"{titles[name]} ({name})" if titles[name] in shared else titles[name] for name in names}


def _chosen(runs: pd.DataFrame) -> dict[str, Any]:
    by = runs.assign(_known=runs["published"].notna()).sort_values(["_known", "pretrain_epochs"], kind="stable")
    return records(by.drop(columns="_known"))[-1]


def _only_published(ours: Cells, theirs: Cells) -> list[dict[str, Any]]:
    return [line for name, line in theirs.items() if line is not ours.get(name)]


def _line(ours: Cells, theirs: Cells, labels: dict[str, str]) -> dict[str, str]:
    first = next(iter((ours or theirs).values()))
    sizes = [line["parameters_m"] for line in (*ours.values(), *theirs.values()) if not pd.isna(line["parameters_m"])]
    line = {
        "architecture": first["architecture"],
        "params (M)": number(sizes[0], 1) if sizes else "",
        "data": first["_data"],
        "recipe": " ".join(filter(None, (first["recipe"], settings(first["variant"])))) if ours else "",
    }
    for name, label in labels.items():
        mine, other = ours.get(name), theirs.get(name)
        line[label] = f"{measured(mine)}, n = {mine['n']:.0f}" if mine else ""
        line[f"{label} to scratch"] = change(mine) if mine else ""
        line[f"{label} published"] = published(other) if other else ""
        line[f"{label} difference"] = signed(mine["to_published"]) if mine else ""
    return line
