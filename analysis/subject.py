"""What an analysis looks at: one encoder, made ready on the device; and what it gives back."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from analysis.images import Images
from analysis.readout import Readout
from backbones.source import Encoder


@dataclass(frozen=True)
class Subject:
    """An encoder on its device.

    Args:
        label: what figures call it.
        encoder: frozen, in evaluation mode, on the device.
        readout: what gives scores of classes; None for analyses that need none.
        images: those to analyse.
        device: of the encoder.
        dtype: of its weights and of the images it takes.
    """

    label: str
    encoder: Encoder
    readout: Readout | None
    images: Images
    device: torch.device
    dtype: torch.dtype

    def prepared(self, pixels: Tensor) -> Tensor:
        """Pixels (..., 3, H, W) between 0 and 1 -> as the network takes them, on the device."""
        return self.images.normalise(pixels.to(self.device)).to(self.dtype)


@dataclass(frozen=True)
class Line:
    """A line of metrics.jsonl, and of the CSV beside the figure.

    Args:
        at: its place on the axis of the figure.
        values: finite numbers.
    """

    at: float
    values: dict[str, float]


@dataclass(frozen=True)
class Measurement:
    """What an analysis found.

    Args:
        lines: in the order of the figure.
        metrics: the few numbers that tables show.
        facts: what else finished.json says.
    """

    lines: list[Line]
    metrics: dict[str, float]
    facts: dict[str, Any] = field(default_factory=dict)
