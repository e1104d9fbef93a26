"""One image with its boxes and masks, resized and flipped: the samples of the torchvision detectors.

N objects, H W pixels of the resized image.
"""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from pycocotools import mask as run_lengths
from torch import Tensor
from torch.utils.data import Dataset

from detection.coco import CocoSplit, size_problem
from detection.config import DetectionConfig
from engine.data.header import ImageHeader
from engine.data.images import ImageArray, Unreadable, read_sample
from engine.data.order import SampleKey, generator
from engine.errors import DataError

SMALLEST_SIDE_PX = 1e-5
"""Boxes that are narrower after resizing and clipping are no targets (Detectron2's filter)."""

Sample = dict[str, Any]


def resized_shape(image: ImageArray, short_side: int, max_side: int) -> tuple[int, int]:
    """(height, width) with the short side as given, unless the long one would be above max_side, rounded half up."""
    height, width = image.shape[:2]
    scale = min(short_side / min(height, width), max_side / max(height, width))
    return max(int(height * scale + 0.5), 1), max(int(width * scale + 0.5), 1)


class SplitImages(Dataset[Sample], ABC):
    """A map-style data set: `dataset[SampleKey]` -> a sample, which a framework makes of an image that is read here.

    Args:
        split: images and annotations.
        config: sizes, flip, seed, and what to do at a file that is not a whole image.
        training: whether to augment and to give targets.
        run_dir: where skipped files are listed.
    """

    def __init__(self, split: CocoSplit, config: DetectionConfig, training: bool, run_dir: Path | None = None) -> None:
        self.split, self.config, self.training, self.run_dir = split, config, training, run_dir
        self.unreadable: Unreadable = config.data.unreadable if training else "stop"

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, key: SampleKey) -> Sample:
        """Read and augment one use of an image.

        Raises:
            DataError: the file cannot be used, or has another size than the annotations say, which is looked at in
                every reading: it may have changed since its header was compared.
        """
        seed = self.config.seed
        array, position = read_sample(self.split.index, key, policy=self.unreadable, seed=seed, run_dir=self.run_dir)
        record = self.split.records[position]
        if array.shape[:2] != (record["height"], record["width"]):
            raise DataError(size_problem(self.split, position, ImageHeader(array.shape[1], array.shape[0])))
        return self.sample(array, record, generator(seed, key))

    @abstractmethod
    def sample(self, array: ImageArray, record: dict[str, Any], source: np.random.Generator) -> Sample:
        """What a framework's detectors take of a decoded image (h, w, 3) and its record; `source` is for what is
        drawn."""


class DetectionImages(SplitImages):
    """Samples of our own: image, uint8 RGB (3, H, W); image_id; height and width of the file; and in training boxes,
    float32 (N, 4) as x1, y1, x2, y2 in pixels of the resized image, labels, int64 (N,), and with masks, masks, uint8
    (N, H, W). With masks the first label is 1, for class 0 is the background in torchvision's Mask R-CNN.
    """

    def sample(self, array: ImageArray, record: dict[str, Any], source: np.random.Generator) -> Sample:
        """Resize and flip one use of an image."""
        if not self.training:
            return {**sample_of_array(array, self.config), "image_id": record["image_id"]}
        data = self.config.data
        short_side = int(source.choice(data.short_sides))
        flip = bool(source.random() < data.flip)
        height, width = resized_shape(array, short_side, data.max_side)
        image = _resize(array, height, width)
        return {
            **_sample(image[:, ::-1] if flip else image, array, record["image_id"]),
            **self._targets(record, height, width, flip),
        }

    def _targets(self, record: dict[str, Any], height: int, width: int, flip: bool) -> dict[str, Tensor]:
        entries, first_label = record["annotations"], int(self.config.has_masks)
        scale = np.array([width / record["width"], height / record["height"]] * 2, dtype=np.float64)
        boxes = np.array([entry["bbox"] for entry in entries], dtype=np.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        boxes = np.clip(boxes * scale, 0, [width, height] * 2)
        kept = np.flatnonzero((boxes[:, 2:] - boxes[:, :2]).min(axis=1, initial=np.inf) > SMALLEST_SIDE_PX)
        if flip:
            boxes[:, [0, 2]] = width - boxes[:, [2, 0]]
        targets = {
            "boxes": torch.from_numpy(boxes[kept].astype(np.float32)),
            "labels": torch.tensor([entries[i]["label"] + first_label for i in kept], dtype=torch.int64),
        }
        if self.config.has_masks:
            masks = [_mask(entries[i]["segmentation"], record, height, width) for i in kept]
            stacked = np.stack(masks) if masks else np.zeros((0, height, width), dtype=np.uint8)
            targets["masks"] = torch.from_numpy(np.ascontiguousarray(stacked[:, :, ::-1] if flip else stacked))
        return targets


def sample_of_array(array: ImageArray, config: DetectionConfig) -> Sample:
    """A sample without targets from any decoded image (h, w, 3); its image_id is 0."""
    height, width = resized_shape(array, config.image_size, config.data.max_side)
    return _sample(_resize(array, height, width), array, 0)


def decode_mask(segmentation: Any, height: int, width: int) -> np.ndarray:
    """COCO polygons or run lengths as a mask, uint8 (height, width)."""
    if isinstance(segmentation, list):
        coded = run_lengths.merge(run_lengths.frPyObjects(segmentation, height, width))
    elif isinstance(segmentation["counts"], list):
        coded = run_lengths.frPyObjects(segmentation, height, width)
    else:
        coded = segmentation
    mask: np.ndarray = run_lengths.decode(coded)
    return mask


def _mask(segmentation: Any, record: dict[str, Any], height: int, width: int) -> np.ndarray:
    """The mask at the resized size: polygons are scaled before they are drawn, run lengths resized afterwards."""
    if isinstance(segmentation, list):
        scale = (width / record["width"], height / record["height"])
        polygons = [(np.reshape(polygon, (-1, 2)) * scale).reshape(-1).tolist() for polygon in segmentation]
        return decode_mask(polygons, height, width)
    mask = Image.fromarray(decode_mask(segmentation, record["height"], record["width"]))
    return np.asarray(mask.resize((width, height), Image.Resampling.NEAREST))


def _resize(array: ImageArray, height: int, width: int) -> ImageArray:
    if array.shape[:2] == (height, width):
        return array
    resized: ImageArray = np.asarray(Image.fromarray(array).resize((width, height), Image.Resampling.BILINEAR))
    return resized


def _sample(image: ImageArray, original: ImageArray, image_id: int) -> Sample:
    return {
        "image": torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))),
        "image_id": image_id,
        "height": original.shape[0],
        "width": original.shape[1],
    }


def as_list(samples: list[Sample]) -> list[Sample]:
    """A batch is the list of its samples, whose sizes differ."""
    return samples
