"""Numbers as people read them in a table, "" for what is not there; and the forms that a table is written in."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from results import metrics
from results.methods import title
from results.runs.facts import FRACTION
from results.statistics import significant

NOT_SIGNIFICANT = "~"
LEGEND = (
    "Measured: mean ± sample standard deviation over n runs, in percent (losses and analyses in their own units); no "
    "spread for n = 1, no interval for n < 3. "
    "Intervals are Student's t at 95 %; that of the difference to scratch is paired by seed (of frozen encoders: by "
    "that of their pre-training) where both have the same, else Welch's.",
    f"{NOT_SIGNIFICANT} not significant: the interval of the difference holds zero, or too few seeds give none.",
)
OVER_IMAGES = (
    "Over images: the 95 % interval of a bootstrap over the validation images of one run, mean over the runs; the only "
    "interval where there is one run."
)
MARKED = "! a run of these is a mixture:"
PUBLISHED_LEGEND = (
    "A measured and a published number are subtracted only where data set, architecture, method, recipes and the "
    "lengths of pre-training and fine-tuning are the same; other settings that a run changed are not looked at.",
    "? the recipe of the published number is inferred, not stated. * contradicted: see the table of contradictions.",
)


def records(lines: pd.DataFrame) -> list[dict[str, Any]]:
    """Every line of a table as {column: value}."""
    return [{str(name): value for name, value in line.items()} for line in lines.to_dict("records")]


def number(value: Any, digits: int = 0) -> str:
    """A plain number."""
    return "" if pd.isna(value) else f"{value:.{digits}f}"


def signed(value: Any) -> str:
    """A difference in percentage points."""
    return "" if pd.isna(value) else f"{value:+.2f}"


def interval(low: Any, high: Any) -> str:
    """Both ends of an interval."""
    return "" if pd.isna(low) else f"[{low:.2f}, {high:.2f}]"


def over_images(metric: str, found: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """The column of a metric's interval over images, of {metric: its line}; {} where it has none."""
    ends = metrics.bounds_of(metric, found)
    if ends is None:
        return {}
    low, high = (found[name]["mean"] for name in ends)
    return {f"{metrics.curve_label(metric)} over images": interval(low, high)}


def has_bounds(lines: pd.DataFrame) -> bool:
    """Whether some metric of these has an interval over images."""
    known = set(lines["metric"])
    return any(metrics.bounds_of(str(name), known) for name in known)


def measured(line: Mapping[str, Any]) -> str:
    """Mean and, of several runs, spread; marked where a run changed on its way."""
    if pd.isna(line["mean"]):
        return ""
    mark = " !" if isinstance(line.get("remark"), str) and line["remark"] else ""
    return f"{line['mean']:.2f}" + ("" if pd.isna(line["std"]) else f" ± {line['std']:.2f}") + mark


def change(line: Mapping[str, Any], *, ends: bool = True) -> str:
    """The difference to scratch with its interval (if `ends`) and the mark of what is not significant."""
    if pd.isna(line["difference"]):
        return ""
    low, high = line["difference_low"], line["difference_high"]
    mark = "" if significant(low, high) else NOT_SIGNIFICANT
    between = f" [{low:+.2f}, {high:+.2f}]" if ends and not math.isnan(low) else ""
    return f"{signed(line['difference'])}{between}{mark}"


def remarks(lines: pd.DataFrame) -> list[str]:
    """What has to be known of the runs in some lines, each remark once, without an order of their own."""
    told = [str(text) for text in lines["remark"].dropna().unique() if str(text)] if len(lines) else []
    return [f"{MARKED} {text}" for text in told]


def published(line: Mapping[str, Any]) -> str:
    """A published number with its digits and its marks: ? inferred recipe, * contradicted."""
    if pd.isna(line["published"]):
        return ""
    return f"{line['printed']}{'?' * (line['match'] == 'inferred')}{'*' * bool(line['contradiction'])}"


def data_names(lines: pd.DataFrame) -> list[str]:
    """The data set of each line, with what people call it where several have as many images.

    Args:
        lines: with `task`, `dataset`, `data` and `data_name` of collect.
    """
    digests = lines[lines["data"] != ""].groupby(["task", "dataset"])["data"].nunique()
    several = set(digests[digests > 1].index)
    return [
        f"{line['dataset']} ({line['data_name']})".strip()
        if (line["task"], line["dataset"]) in several and line["data"]
        else line["dataset"]
        for line in records(lines[["task", "dataset", "data", "data_name"]])
    ]


def method(line: Mapping[str, Any]) -> str:
    """How people write the method of a line."""
    told = line.get("method_title")
    return title(str(line["method"]), told if isinstance(told, str) else "")


def settings(variant: Any) -> str:
    """A variant as people read it: the share of the labels and the data of pre-training in words, all else as it is."""
    return " ".join(_share(part) or _data(part) or part for part in str(variant).split(" "))


def _data(part: str) -> str:
    name, _, value = part.partition("=")
    return f"on {json.loads(value)}" if name == "data" else ""


def _share(part: str) -> str:
    name, _, value = part.partition("=")
    try:
        return f"{100 * float(value):g} % of labels" if name == f"data.{FRACTION}" else ""
    except ValueError:
        return ""


def start(line: Mapping[str, Any]) -> str:
    """Where the weights came from: method, target, length and settings of pre-training."""
    epochs = "" if pd.isna(line["pretrain_epochs"]) else f"{line['pretrain_epochs']:.0f} epochs"
    target = line.get("target", "")
    target = f"({target})" if target not in ("", "Label") else ""
    return " ".join(filter(None, (method(line), target, epochs, settings(line["pretrain_variant"]))))


def plain(text: str) -> str:
    """Text that Markdown takes for text, in one line."""
    return " ".join(text.replace("|", "\\|").replace("<", "&lt;").splitlines()) if text else text


def markdown_table(shown: pd.DataFrame) -> str:
    """Cells of text as a table in Markdown."""
    if not len(shown):
        return "Nothing yet."
    cells = shown.map(plain).rename(columns=plain)
    return str(cells.to_markdown(index=False, disable_numparse=True))


def markdown_list(notes: Sequence[str]) -> str:
    """Sentences below a table in Markdown."""
    return "\n".join(f"- {plain(note)}" for note in notes)


def csv_text(table: pd.DataFrame) -> str:
    """A table as CSV, numbers at full precision, no text of which is a formula to a spreadsheet."""
    safe = table.copy()
    for place, name in enumerate(table.columns):
        if not pd.api.types.is_numeric_dtype(table.iloc[:, place]):
            safe[name] = table.iloc[:, place].map(_no_formula)
    return str(safe.rename(columns=_no_formula).to_csv(index=False, lineterminator="\n"))


def _no_formula(value: Any) -> Any:
    """Text as it is, after an apostrophe where a spreadsheet would compute it."""
    if not isinstance(value, str) or value[:1] not in tuple("=+-@\t\r"):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value
