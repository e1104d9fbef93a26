"""Detectron2's samples, losses and evaluator, on the detectors of detectron2_models.py.

Only these two files import Detectron2. Its trainer and checkpointer are not used: engine/loop.py runs the training.
"""

import contextlib
import importlib.metadata
import io
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import detectron2
import numpy as np
from detectron2.data import DatasetMapper, MetadataCatalog
from detectron2.data import transforms as augmentations
from detectron2.data.detection_utils import SizeMismatchError
from detectron2.evaluation import COCOEvaluator
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.structures import BoxMode
from detectron2.utils.events import EventStorage
from PIL import Image
from pycocotools import mask as run_lengths
from torch import Tensor, nn
from torch.utils.data import Dataset

from detection.coco import CocoSplit, size_disagreement
from detection.config import DetectionConfig
from detection.frameworks.contract import Batch, Framework, Result
from detection.frameworks.detectron2_models import build
from engine.data.images import read_image, read_sample
from engine.data.sampler import SampleKey, generator
from engine.errors import DataError

_OWN_NAMES = {"bbox": "box", "segm": "mask"}


@contextmanager
def _numpy_seeded(source: np.random.Generator) -> Iterator[None]:
    """Set numpy's global generator, which Detectron2's augmentations draw from, and put it back afterwards."""
    before = np.random.get_state()
    np.random.seed(int(source.integers(2**32)))
    try:
        yield
    finally:
        np.random.set_state(before)


class MappedImages(Dataset[dict[str, Any]]):
    """A map-style data set: `dataset[SampleKey]` -> what Detectron2's DatasetMapper makes of the image.

    Args:
        split: images and annotations.
        config: sizes and flip.
        training: whether to augment and to give targets.
        run_dir: where skipped files are listed.
    """

    def __init__(self, split: CocoSplit, config: DetectionConfig, training: bool, run_dir: Path | None) -> None:
        self.split, self.seed, self.run_dir = split, config.seed, run_dir
        self.unreadable = config.data.unreadable if training else "stop"
        self.mapper = _mapper(config, training, mask_format="bitmask" if split.has_run_lengths else "polygon")

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, key: SampleKey) -> dict[str, Any]:
        """Read and augment one use of an image.

        Raises:
            DataError: the file cannot be used, or has another size than the annotations say.
        """
        try:
            return self._map(key, key.index)
        except SizeMismatchError as error:
            height, width = read_image(self.split.index.path(key.index)).shape[:2]
            raise DataError(size_disagreement(self.split.records[key.index], width, height)) from error
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            policy = self.unreadable
            _, position = read_sample(self.split.index, key, policy=policy, seed=self.seed, run_dir=self.run_dir)
            if position == key.index:
                raise DataError(f"{self.split.index.path(position)}: Detectron2 cannot use it: {error}") from error
            return self._map(key, position)

    def _map(self, key: SampleKey, position: int) -> dict[str, Any]:
        record = self.split.records[position]
        entry = {name: record[name] for name in ("image_id", "height", "width")}
        entry["file_name"] = self.split.index.path(position)
        entry["annotations"] = [_annotation(annotation) for annotation in record["annotations"]]
        with _numpy_seeded(generator(self.seed, key)):
            mapped: dict[str, Any] = self.mapper(entry)
        return mapped


def _mapper(config: DetectionConfig, training: bool, mask_format: str = "polygon") -> DatasetMapper:
    data = config.data
    sides = data.short_sides if training else (config.image_size,)
    resize = augmentations.ResizeShortestEdge(sides, data.max_side, sample_style="choice")
    flip = augmentations.RandomFlip(prob=data.flip, horizontal=True)
    return DatasetMapper(
        is_train=training,
        augmentations=[resize, flip] if training and data.flip else [resize],
        image_format="RGB",
        use_instance_mask=config.has_masks,
        instance_mask_format=mask_format,
    )


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


def sample_of_file(path: Path, config: DetectionConfig) -> dict[str, Any]:
    """A sample without targets from any image file; its image_id is 0."""
    height, width = read_image(path).shape[:2]
    mapped: dict[str, Any] = _mapper(config, training=False)(
        {"file_name": str(path), "image_id": 0, "height": height, "width": width}
    )
    return mapped


def losses(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """Detectron2's losses of a batch of training samples."""
    with EventStorage():  # its models report to one while they train; ours are in the metrics
        values: dict[str, Tensor] = model(batch)
    return values


class Detectron2Predictor:
    """Detections of Detectron2's detectors, which its COCOEvaluator sees too where a split is given."""

    def __init__(self, config: DetectionConfig, split: CocoSplit | None) -> None:
        self._evaluator: COCOEvaluator | None = None
        self._image_ids: list[int] = []
        if split is not None:
            self._image_ids = sorted(record["image_id"] for record in split.records)
            self._evaluator = _evaluator(config, split)

    def __call__(self, model: nn.Module, batch: Batch) -> list[Result]:
        """The detections of a batch; see framework.Predictor."""
        outputs = model(batch)
        if self._evaluator is not None:
            self._evaluator.process(batch, outputs)
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
            numbers = self._evaluator.evaluate(img_ids=self._image_ids)
        return {
            f"{_OWN_NAMES[kind]}_{name}": value
            for kind, values in numbers.items()
            for name, value in values.items()
            if math.isfinite(value)
        }


def _evaluator(config: DetectionConfig, split: CocoSplit) -> COCOEvaluator:
    name = f"{split.annotation_path.absolute()}-{split.digest}"
    labels = {number: label for label, number in enumerate(split.category_ids)}
    MetadataCatalog.get(name).set(json_file=str(split.annotation_path), thing_dataset_id_to_contiguous_id=labels)
    tasks = ("bbox", "segm") if config.has_masks else ("bbox",)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator = COCOEvaluator(name, tasks, use_fast_impl=False)
    evaluator.reset()
    return evaluator


def _version() -> str:
    """Detectron2's version, and the commit it was installed from where pip knows it."""
    origin = json.loads(importlib.metadata.distribution("detectron2").read_text("direct_url.json") or "{}")
    commit = origin.get("vcs_info", {}).get("commit_id", "")
    return f"{detectron2.__version__}+{commit[:8]}" if commit else str(detectron2.__version__)


FRAMEWORK = Framework(
    name="detectron2",
    version=_version(),
    build=build,
    samples=MappedImages,
    sample_of_file=sample_of_file,
    losses=losses,
    predictor=Detectron2Predictor,
)
