"""The tables people read: which lines of the comparison, in which columns, with what below them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from backbones.family import family as family_of
from results import metrics
from results.methods import places
from results.published import load_sources
from results.runs.facts import DATASETS
from results.tables.comparison import preferred_sources
from results.tables.text import (
    LEGEND,
    OVER_IMAGES,
    PUBLISHED_LEGEND,
    change,
    data_names,
    has_bounds,
    interval,
    measured,
    number,
    over_images,
    published,
    records,
    remarks,
    settings,
    signed,
    start,
)
from suite_error import SuiteError
from suite_tasks import Topic, find

FAMILIES = {"resnet": "ResNet", "convnext": "ConvNeXt", "vit": "ViT", "swin": "Swin"}
_LONGEST_NAME = 100
TRAINED = ["method", "pretrain_recipe", "pretrain_epochs", "pretrain_variant", "recipe", "epochs", "variant"]
_KEYS = ["origin", "dataset", "data", "architecture", "framework", "target", *TRAINED, "_source", "_entry"]


@dataclass(frozen=True)
class Sheet:
    """One table.

    Args:
        name: of its files, without ending.
        title: above it.
        shown: cells as people read them, all text, "" for nothing.
        data: the same with numbers at full precision, one fact per column.
        notes: sentences below it.
    """

    name: str
    title: str
    shown: pd.DataFrame
    data: pd.DataFrame
    notes: tuple[str, ...] = ()


def family_sheets(comparison: pd.DataFrame, topic: Topic) -> list[Sheet]:
    """One sheet per family of architectures, with epochs and recipe."""
    lines = comparison[(comparison["task"] == topic.name) & (comparison["model"] != "")]
    ours = lines["origin"] == "measured"
    # Of the literature the methods that are compared here, by the suite's sources or one of its recipes.
    cited = lines["source"].isin(preferred_sources())
    compared = lines["method"].isin(set(lines["method"][ours | cited]))
    kept = ours | (compared & ((lines["match"] != "") | cited))
    families = [family(model) for model in lines["model"]]
    names = [*FAMILIES.values(), *sorted(set(families) - set(FAMILIES.values()))]
    return [
        numbers_sheet(slug(f"{topic.table}-{name.lower()}"), f"{topic.title}: {name}", part)
        for name in dict.fromkeys(names)
        if len(part := lines[kept & (pd.Series(families, index=lines.index) == name)])
    ]


def slug(text: str) -> str:
    """Text as part of a file's name, or the id of an element: letters, digits, points and dashes."""
    return re.sub(r"[^\w.-]+", "_", text, flags=re.ASCII)[:_LONGEST_NAME].lstrip(".")


def family(model: str) -> str:
    """The family of a published or timm name, as "ResNet"; the first word of any other."""
    found = re.match(r"[a-z]+", model.lower())
    word = found[0] if found else model
    if ":" in model:  # somebody's own class, which is not imported for a table
        return word
    try:
        return FAMILIES.get(family_of(model), word)
    except SuiteError:  # a network that this timm does not have, or of somebody's own
        return word


def topic_sheet(comparison: pd.DataFrame, topic: Topic) -> Sheet:
    """One topic; of the literature what the suite's data set and architectures have."""
    lines = comparison[comparison["task"] == topic.name]
    of_one_layer = lines["recipe"].str.startswith("multi-head")
    whole = (lines["protocol"] == ("linear" if topic.probes else "fine-tuned")) & ~of_one_layer
    known = (lines["dataset"] == topic.dataset) & (lines["model"] != "") & whole
    return numbers_sheet(topic.table, topic.title, lines[(lines["origin"] == "measured") | known])


def other_sheets(comparison: pd.DataFrame) -> list[Sheet]:
    """One for each task that was measured and that no paper prints numbers of."""
    known = {topic.name for topic in metrics.topics()}
    tasks = sorted(set(comparison["task"]) - known, key=metrics.task_place)
    return [
        numbers_sheet(slug(task), find(task).title or task.capitalize(), comparison[comparison["task"] == task])
        for task in tasks
    ]


def numbers_sheet(name: str, title: str, lines: pd.DataFrame) -> Sheet:
    """A line for each architecture, initialisation, recipe and origin; some columns for each metric."""
    ordered = _in_order(lines.assign(_data=data_names(lines)))
    shown = [_shown(group) for _, group in ordered.groupby(_KEYS, dropna=False, sort=False)]
    last = ("n", "source")
    table = pd.DataFrame(shown, columns=[*_columns(shown, last), *last]).fillna("").astype(str)
    cited = load_sources().set_index("key").loc[list(dict.fromkeys(key for key in ordered["source"] if key))]
    sources = [f"{key}: {row['title']}, {row['url']}" for key, row in cited.iterrows()]
    data = ordered.drop(columns=[column for column in ordered if str(column).startswith("_")])
    bounds = [OVER_IMAGES] * has_bounds(lines)
    said = (*LEGEND, *bounds, *PUBLISHED_LEGEND, *remarks(lines), *sources)
    return Sheet(name, title, without_empty(table), data, said)


def without_empty(table: pd.DataFrame) -> pd.DataFrame:
    """Without the columns that say nothing."""
    return table[[column for column in table if (table[column] != "").any()]]


def _columns(lines: Sequence[dict[str, Any]], last: tuple[str, ...]) -> list[str]:
    return [name for name in dict.fromkeys(name for line in lines for name in line) if name not in last]


def _in_order(lines: pd.DataFrame) -> pd.DataFrame:
    """What was measured before what was published; each by data set, size of the architecture and method."""
    sizes = lines.groupby("architecture")["parameters_m"].min()
    known = {"ImageNet-100": 1} | dict.fromkeys(DATASETS.values(), 0)  # and before them what nobody else has measured
    keyed = lines.assign(
        _known=[known.get(name, -1) for name in lines["dataset"]],
        _size=[sizes[name] for name in lines["architecture"]],
        _method=lines["method"].map(places(dict.fromkeys(lines["method"]))),
        _source=lines["source"].where(lines["origin"] == "published", ""),
    )
    # Two numbers of one source for one setting stay two lines.
    keyed["_entry"] = keyed.groupby([*_KEYS[:-1], "metric"], dropna=False).cumcount()
    by = ["origin", "_known", "dataset", "_size", "architecture", "_method", "pretrain_epochs", "recipe"]
    return keyed.sort_values(by, kind="stable", ignore_index=True)


def _shown(group: pd.DataFrame) -> dict[str, str]:
    rows = records(group)
    first = rows[0]
    line = {
        "architecture": first["architecture"],
        "params (M)": number(first["parameters_m"], 1),
        "initialisation": start(first),
        "recipe": " ".join(filter(None, (first["recipe"], settings(first["variant"])))),
        metrics.length_of(first["task"]): number(first["epochs"]),
        "framework": first["framework"],
        "data": first["_data"],
        "n": number(first["n"]),
        "source": first["_source"] or "measured here",
    }
    found = {str(row["metric"]): row for row in rows}
    for metric in metrics.without_bounds(list(found)):
        row = found[metric]
        name = metrics.curve_label(metric)
        if row["measured_as"]:
            line[metrics.label(row["measured_as"])] = measured(row)
        line |= {
            f"{name} interval": interval(row["low"], row["high"]),
            **over_images(metric, found),
            f"{name} to scratch": change(row),
            f"{name} published": published(row),
            f"{name} measured - published": signed(row["to_published"]),
        }
    return line
