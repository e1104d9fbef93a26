"""Detectron2's samples, losses and evaluator, on the detectors of detectron2_models.py.

Only these two files import Detectron2. Its trainer and checkpointer are not used: engine/loop.py runs the training.
"""

import contextlib
import io
import json
import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import detectron2
import numpy as np
import torch
from detectron2.data import MetadataCatalog, detection_utils
from detectron2.data import transforms as augmentations
from detectron2.evaluation import COCOEvaluator
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.structures import BoxMode
from detectron2.utils.events import EventStorage
from pycocotools import mask as run_lengths
from torch import Tensor, nn

from detection.coco import CocoSplit
from detection.config import DetectionConfig
from detection.frameworks.contract import Batch, Framework, Result
from detection.frameworks.detectron2_models import build
from detection.numbering import Numbered, numbered
from detection.samples import SplitImages
from engine.data.images import ImageArray
from engine.data.seeded import seeded
from engine.run.environment import version

_OWN_NAMES = {"bbox": "box", "segm": "mask"}


class MappedImages(SplitImages):
    """What Detectron2's DatasetMapper makes of the images, read by us."""

    def __init__(self, split: CocoSplit, config: DetectionConfig, training: bool, run_dir: Path | None) -> None:
        super().__init__(split, config, training, run_dir)
        self.augmentations = _augmentations(config, training)
        self.mask_format = "bitmask" if split.has_run_lengths else "polygon"

    def sample(self, array: ImageArray, record: dict[str, Any], source: np.random.Generator) -> dict[str, Any]:
        """Augment one use of an image; Detectron2's augmentations draw from numpy's global generator."""
        with seeded(source, numpy_first=True):
            sample, transforms = _augmented(array, self.augmentations)
        sample["image_id"] = record["image_id"]
        if self.training:
            shape = tuple(sample["image"].shape[1:])
            entries = [
                detection_utils.transform_instance_annotations(_annotation(annotation), transforms, shape)
                for annotation in record["annotations"]
            ]
            instances = detection_utils.annotations_to_instances(entries, shape, mask_format=self.mask_format)
            sample["instances"] = detection_utils.filter_empty_instances(instances)
        return sample


def _augmentations(config: DetectionConfig, training: bool) -> augmentations.AugmentationList:
    data = config.data
    sides = data.short_sides if training else (config.image_size,)
    resize = augmentations.ResizeShortestEdge(sides, data.max_side, sample_style="choice")
    flip = [augmentations.RandomFlip(prob=data.flip, horizontal=True)] if training and data.flip else []
    return augmentations.AugmentationList([resize, *flip])


def _augmented(array: ImageArray, chosen: augmentations.AugmentationList) -> tuple[dict[str, Any], Any]:
    """(a sample without targets: the image (3, H, W) and the size of its file, the transforms that were drawn)."""
    given = augmentations.AugInput(array)
    transforms = chosen(given)
    image = torch.from_numpy(np.ascontiguousarray(given.image.transpose(2, 0, 1)))
    return {"image": image, "height": array.shape[0], "width": array.shape[1]}, transforms


def _annotation(annotation: dict[str, Any]) -> dict[str, Any]:
    entry = {
        "bbox": annotation["bbox"],
        "bbox_mode": BoxMode.XYWH_ABS,
        "category_id": annotation["label"],
        "iscrowd": 0,
    }
    outline = annotation.get("segmentation")
    if isinstance(outline, dict) and isinstance(outline["counts"], list):
        outline = run_lengths.frPyObjects(outline, *outline["size"])
    return entry if outline is None else {**entry, "segmentation": outline}


def sample_of_array(array: ImageArray, config: DetectionConfig) -> dict[str, Any]:
    """A sample without targets from any decoded image (h, w, 3); its image_id is 0."""
    return {**_augmented(array, _augmentations(config, training=False))[0], "image_id": 0}


def losses(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """Detectron2's losses of a batch of training samples."""
    # Its models report to an EventStorage while they train; ours are in the metrics. Its focal loss is scripted, and
    # torch would compile it anew after a few calls, with other roundings: a resumed run would not repeat them.
    with EventStorage(), torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
        values: dict[str, Tensor] = model(batch)
    return values


class Detectron2Predictor:
    """Detections of Detectron2's detectors, which its COCOEvaluator sees too where a split is given."""

    def __init__(self, config: DetectionConfig, split: CocoSplit | None) -> None:
        self._evaluator: COCOEvaluator | None = None
        self._numbers: Mapping[int, int] = {}
        if split is not None:
            truth = numbered(split.ground_truth())
            self._numbers = truth.images
            self._evaluator = _evaluator(config, split, truth)

    def __call__(self, model: nn.Module, batch: Batch) -> list[Result]:
        """The detections of a batch; see framework.Predictor."""
        outputs = model(batch)
        if self._evaluator is not None:
            known = [{**sample, "image_id": self._numbers[sample["image_id"]]} for sample in batch]
            self._evaluator.process(known, outputs)
        results: list[Result] = []
        for sample, output in zip(batch, outputs, strict=True):
            for found in instances_to_coco_json(output["instances"].to("cpu"), sample["image_id"]):
                results.append({"label": found.pop("category_id"), **found})
        return results

    def own_numbers(self) -> dict[str, float]:
        """COCOEvaluator's numbers (pycocotools underneath) by our names; those that are undefined left out."""
        if self._evaluator is None:
            return {}
        with contextlib.redirect_stdout(io.StringIO()):
            numbers = self._evaluator.evaluate(img_ids=sorted(self._numbers.values()))
        return {
            f"{_OWN_NAMES[kind]}_{name}": value
            for kind, values in numbers.items()
            for name, value in values.items()
            if math.isfinite(value)
        }


def _evaluator(config: DetectionConfig, split: CocoSplit, truth: Numbered) -> COCOEvaluator:
    name = f"{split.annotation_path.absolute()}-{split.digest}"
    labels = {truth.categories[category]: label for label, category in enumerate(split.category_ids)}
    tasks = ("bbox", "segm") if config.has_masks else ("bbox",)
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(truth.document, file)
        file.flush()
        MetadataCatalog.pop(name, None)
        MetadataCatalog.get(name).set(json_file=file.name, thing_dataset_id_to_contiguous_id=labels)
        with contextlib.redirect_stdout(io.StringIO()):
            evaluator = COCOEvaluator(name, tasks, use_fast_impl=False)
    evaluator.reset()
    return evaluator


FRAMEWORK = Framework(
    name="detectron2",
    version=version("detectron2") or str(detectron2.__version__),
    build=build,
    samples=MappedImages,
    sample_of_array=sample_of_array,
    losses=losses,
    predictor=Detectron2Predictor,
)
