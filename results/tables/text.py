"""Numbers as people read them in a table; "" for what is not there."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

METHOD_NAMES = {"scratch": "from scratch", "simmim": "SimMIM", "a2mim": "A2MIM", "a2mim+": "A2MIM+"}


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


def measured(line: Mapping[str, Any]) -> str:
    """Mean and, of several runs, spread."""
    if pd.isna(line["mean"]):
        return ""
    return f"{line['mean']:.2f}" + ("" if pd.isna(line["std"]) else f" ± {line['std']:.2f}")


def published(line: Mapping[str, Any]) -> str:
    """A published number with its digits and its marks: ? inferred recipe, * contradicted."""
    if pd.isna(line["published"]):
        return ""
    return f"{line['printed']}{'?' * (line['match'] == 'inferred')}{'*' * bool(line['contradiction'])}"


def data_names(lines: pd.DataFrame) -> list[str]:
    """The data set of each line, with the digest of its files where several go by the same name.

    Args:
        lines: with `task`, `dataset` and `data` of collect.
    """
    digests = lines[lines["data"] != ""].groupby(["task", "dataset"])["data"].nunique()
    several = set(digests[digests > 1].index)
    return [
        f"{line['dataset']} ({line['data']})".strip() if (line["task"], line["dataset"]) in several else line["dataset"]
        for line in records(lines[["task", "dataset", "data"]])
    ]


def method(name: str) -> str:
    """How people write a method."""
    return METHOD_NAMES.get(name, name)


def start(line: Mapping[str, Any]) -> str:
    """Where the weights came from: "A2MIM (RGB) 300 epochs"."""
    epochs = "" if pd.isna(line["pretrain_epochs"]) else f"{line['pretrain_epochs']:.0f} epochs"
    target = f"({line['target']})" if line["target"] not in ("", "Label") else ""
    return " ".join(filter(None, (method(line["method"]), target, epochs, line["pretrain_variant"])))
