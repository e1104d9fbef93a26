"""The robustness protocol: what evaluation/protocols.py asks of a protocol's module."""

import importlib.metadata
import logging
from typing import Any

import numpy as np

from engine.errors import DataError
from engine.run.open import Run
from evaluation.intervals import accuracy_interval, mean_interval
from evaluation.measured import Inputs, Measured
from evaluation.robustness.classifier import LoadedClassifier, load
from evaluation.robustness.config import RobustnessConfig
from evaluation.robustness.measure import Predictor
from evaluation.robustness.sets import Found, measure_sets
from evaluation.robustness.sets import open_sets as open_data

VERSION = 1
__all__ = ["VERSION", "load", "measure", "open_data"]

log = logging.getLogger("mim")


def measure(run: Run, classifier: LoadedClassifier, config: RobustnessConfig, inputs: Inputs) -> Measured:
    """Top-1 of every set and the mCE, with intervals; rules, top-5 and each corruption's error are in finished.json.

    Raises:
        DataError: a set does not go with the classifier, or no number can be said of what is there.
        DivergedError: the classifier's scores are not finite.
    """
    found = measure_sets(Predictor(classifier, config, run.dir), inputs.data)
    metrics: dict[str, float] = {}
    for name, measured in found.items():
        metrics |= _numbers(name, measured, config)
    if not metrics:
        raise DataError(
            "ImageNet-C: an mCE needs all 15 corruptions, and nothing else is there; the errors of those that are: "
            + ", ".join(f"{name} {np.mean(values):.2f} %" for name, values in found["c"].more["errors"].items())
        )
    headline = next(measured for measured in found.values() if measured.value is not None)
    is_accuracy = headline.per_image is not None and headline.per_image.dtype == np.bool_
    preprocessing = {name: classifier.preprocessing[name] for name in ("crop_pct", "interpolation")}
    return Measured(
        metrics,
        row={**preprocessing, "selection_set": "none"},
        facts={
            "num_classes": len(classifier.classes),
            "sets": {name: _facts(measured) for name, measured in found.items()},
            "class_lists": f"timm {importlib.metadata.version('timm')}",
        },
        correct=headline.per_image if is_accuracy else None,
    )


def _numbers(name: str, found: Found, config: RobustnessConfig) -> dict[str, float]:
    """The number of a set with its interval; of ImageNet-C also the mean error, which is not divided by AlexNet's."""
    if found.value is None or found.per_image is None:
        return {}
    how = {"seed": config.seed, "resamplings": config.bootstrap}
    if name != "c":
        low, high = accuracy_interval(found.per_image, **how)
        metric = "top1" if name == "imagenet" else f"top1_{name}"
        return {metric: found.value, f"{metric}_low": low, f"{metric}_high": high}
    low, high = mean_interval(100 * found.per_image, **how)
    return {"mCE": found.value, "mCE_low": low, "mCE_high": high, "mean_corruption_error": found.more["mean_error"]}


def _facts(found: Found) -> dict[str, Any]:
    counted = {} if found.per_image is None else {"num_images": len(found.per_image)}
    return {"value": found.value, "rule": found.rule, **counted, **found.more}
