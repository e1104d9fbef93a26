"""The summary: architecture by initialisation, measured beside published, and the difference."""

from typing import Any

import pandas as pd

from results.tables.rows import METHOD_ORDER
from results.tables.sheets import LEGEND, Sheet, without_empty
from results.tables.text import data_names, measured, method, number, published, records, signed

README, DATASET = "a2mim-readme-summary", "ImageNet-1K"  # A2MIM's README and what its summary is about
_EXPERIMENT = ["dataset", "data", "model", "recipe", "variant"]
PLACE = f"Published numbers are those of the summary table in A2MIM's README where it has one ({DATASET})."
Cells = dict[str, dict[str, Any]]
"""{method: line of the comparison}."""


def summary_sheet(comparison: pd.DataFrame) -> Sheet:
    """Top-1 accuracy after fine-tuning: a line for each architecture, data set and recipe.

    Every architecture in the summary of A2MIM's README has a line; what was measured on its data set by its recipe
    stands in the same line, everything else below. Of several pre-trainings by one method the one with a published
    counterpart is shown, else the longest; the table of the family has all.
    """
    lines = comparison[(comparison["task"] == "classification") & comparison["method"].isin(METHOD_ORDER)]
    lines = lines.assign(_data=data_names(lines))
    readme: dict[str, Cells] = {}
    for line in records(lines[(lines["source"] == README) & (lines["origin"] == "published")]):
        readme.setdefault(line["model"], {})[line["method"]] = line
    order = {model: place for place, model in enumerate(readme)}
    found: list[tuple[Any, Cells, Cells]] = []
    for (dataset, _, model, recipe, variant), part in lines[lines["origin"] == "measured"].groupby(_EXPERIMENT):
        ours = {str(name): _chosen(runs) for name, runs in part.groupby("method")}
        theirs = readme.get(str(model), {}) if dataset == DATASET else {}
        if recipe not in {line["follows"] for line in theirs.values()}:
            theirs = {name: line for name, line in ours.items() if not pd.isna(line["published"])}
        found.append(
            ((dataset != DATASET, order.get(str(model), len(order)), dataset, model, recipe, variant), ours, theirs)
        )
    joined = {key[3] for key, _, theirs in found if theirs is readme.get(key[3])}
    found += [((False, order[m], DATASET, m, "", ""), {}, cells) for m, cells in readme.items() if m not in joined]
    found.sort(key=lambda entry: entry[0])
    shown = pd.DataFrame([_line(ours, theirs) for _, ours, theirs in found]).fillna("").astype(str)
    used = [line for _, ours, theirs in found for line in (*ours.values(), *_only_published(ours, theirs))]
    data = pd.DataFrame(used, columns=comparison.columns)
    return Sheet("summary", "Summary: top-1 accuracy, %", without_empty(shown), data, (*LEGEND, PLACE))


def _chosen(runs: pd.DataFrame) -> dict[str, Any]:
    by = runs.assign(_known=runs["published"].notna()).sort_values(["_known", "pretrain_epochs"], kind="stable")
    return records(by.drop(columns="_known"))[-1]


def _only_published(ours: Cells, theirs: Cells) -> list[dict[str, Any]]:
    return [line for name, line in theirs.items() if line is not ours.get(name)]


def _line(ours: Cells, theirs: Cells) -> dict[str, str]:
    first = next(iter((ours or theirs).values()))
    sizes = [line["parameters_m"] for line in (*ours.values(), *theirs.values()) if not pd.isna(line["parameters_m"])]
    line = {
        "architecture": first["architecture"],
        "params (M)": number(sizes[0], 1) if sizes else "",
        "data": first["_data"],
        "recipe": " ".join(filter(None, (first["recipe"], first["variant"]))) if ours else "",
    }
    for name in METHOD_ORDER:
        mine, other, label = ours.get(name), theirs.get(name), method(name)
        runs = f", n = {mine['n']:.0f}" if mine else ""
        line[label] = f"{measured(mine)}{runs}" if mine else ""
        line[f"{label} published"] = published(other) if other else ""
        line[f"{label} difference"] = signed(mine["to_published"]) if mine else ""
    return line
