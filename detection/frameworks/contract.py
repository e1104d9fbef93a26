"""The contract between a run and the library whose detectors it trains."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn
from torch.utils.data import Dataset

from backbones import Backbone
from detection.coco import CocoSplit
from detection.config import DETECTRON2_INSTALL, DetectionConfig, FrameworkName
from engine.data.images import ImageArray
from engine.errors import ConfigError

Batch = list[dict[str, Any]]
Result = dict[str, Any]
"""A detection in COCO's result format: image_id, category_id, bbox [x, y, width, height] in pixels of the file, score,
and with masks, segmentation as compressed run lengths."""


class Predictor(Protocol):
    """Runs a detector in evaluation mode over batches of samples without targets."""

    def __call__(self, model: nn.Module, batch: Batch) -> list[Result]:
        """The detections in these images; `label` instead of category_id."""

    def own_numbers(self) -> dict[str, float]:
        """What the library's own evaluator says about everything predicted so far, under our names; {} without one.

        Called on every rank; the numbers are the main rank's.
        """


@dataclass(frozen=True)
class Framework:
    """What a library offers.

    Args:
        name: "detectron2" or "torchvision".
        version: of the library.
        build: (configuration, backbone, number of classes) -> the detector, ready to train.
        samples: (split, configuration, training?, run folder) -> `dataset[SampleKey]` -> one element of a batch.
        sample_of_array: (decoded image (h, w, 3), configuration) -> one element of a batch without targets.
        losses: (detector in training mode, batch) -> named scalars whose sum is minimised.
        predictor: (configuration, annotated split or None) -> a Predictor.
    """

    name: FrameworkName
    version: str
    build: Callable[[DetectionConfig, Backbone, int], nn.Module]
    samples: Callable[[CocoSplit, DetectionConfig, bool, Path | None], Dataset[dict[str, Any]]]
    sample_of_array: Callable[[ImageArray, DetectionConfig], dict[str, Any]]
    losses: Callable[[nn.Module, Batch], dict[str, Tensor]]
    predictor: Callable[[DetectionConfig, CocoSplit | None], Predictor]


def load_framework(name: FrameworkName) -> Framework:
    """Import the library and return what it offers; DetectionConfig.problems says beforehand if it is missing.

    Raises:
        ConfigError: Detectron2 is there but cannot be imported: built for another torch, or something it needs is not.
    """
    if name == "torchvision":
        from detection.frameworks.torchvision import FRAMEWORK as TORCHVISION

        return TORCHVISION
    try:
        from detection.frameworks.detectron2 import FRAMEWORK as DETECTRON2
    except ImportError as error:
        raise ConfigError(
            f"Detectron2 cannot be imported: {error}. Install it again as its own page says, after torch, with this "
            f"project's extra [detection]: {DETECTRON2_INSTALL}"
        ) from error
    return DETECTRON2
