"""What a protocol hands back, and the row that it becomes: the same fields for every protocol."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

ROW_FIELDS = (
    "protocol", "version", "encoder", "reference", "encoder_sha256", "model", "method",
    "layer", "layer_name", "token", "final_norm",
    "resolution", "crop_pct", "interpolation",
    "k", "temperature", "similarity",
    "optimizer", "learning_rate", "grid", "selection_set", "epoch",
    "seeds", "train_list_sha256", "num_train", "num_val",
    "precision", "versions", "device", "seconds",
)  # fmt: skip
"""Of every row (spec/protocols section 9); null is what a protocol does not have."""


@dataclass(frozen=True)
class Measured:
    """What a protocol found out about one encoder."""

    metrics: dict[str, float]
    """Percent, but for counts (num_...), losses and ranks; the first is the headline."""
    row: dict[str, Any] = field(default_factory=dict)
    """Those of ROW_FIELDS that are the protocol's own."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Further facts of finished.json: num_train, num_val, num_classes."""
    correct: npt.NDArray[np.bool_] | None = None
    """Of each validation image whether the headline had it right: for intervals, also of differences."""
    version: int = 0
    """Of the protocol; filled in by the run."""


@dataclass(frozen=True)
class Inputs:
    """What a protocol reads."""

    data: Any
    """Of its open_data."""
    cache_dir: Path
    """For features."""


def complete_row(**values: Any) -> dict[str, Any]:
    """Every field of ROW_FIELDS, in that order; raises KeyError for another."""
    unknown = values.keys() - set(ROW_FIELDS)
    if unknown:
        raise KeyError(f"no field of a row: {sorted(unknown)}")
    return {name: values.get(name) for name in ROW_FIELDS}
