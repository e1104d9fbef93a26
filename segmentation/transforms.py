"""Reading images and label maps for MMSegmentation's pipelines, strictly."""

import math
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform
from mmseg.registry import TRANSFORMS

from engine.data.images import UnreadableImageError, read_image
from engine.data.options import MAX_PIXELS, Exif, ImageOptions
from engine.errors import DataError
from segmentation.labels import classes_of, read_label_map


@TRANSFORMS.register_module()
class ReadWholeImage(BaseTransform):  # type: ignore[misc]
    """MMSegmentation's LoadImageFromFile, except that a damaged file is an error that names it.

    Args:
        exif: as ImageOptions.exif.
        max_pixels: as ImageOptions.max_pixels.
        max_ratio: longest side relative to the shortest; beyond it the short one would be resized to nothing.

    OpenCV, which that transform decodes with, fills the missing part of a truncated JPEG with grey and goes on. Adds
    `img` (height, width, 3), uint8, BGR as everywhere in MMSegmentation, `img_shape` and `ori_shape`.
    """

    def __init__(self, exif: Exif = "stop", max_pixels: int = MAX_PIXELS, max_ratio: float = math.inf) -> None:
        self.max_ratio = max_ratio
        self.options = ImageOptions(exif=exif, max_pixels=max_pixels)

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Read `results["img_path"]`.

        Raises:
            DataError: the file is missing, or is not a whole image, or one too thin to be resized.
        """
        path = results["img_path"]
        image = np.ascontiguousarray(read_image(path, self.options)[..., ::-1])
        height, width = image.shape[:2]
        if max(height, width) > self.max_ratio * min(height, width):
            raise UnreadableImageError(
                f"{path}: {width}x{height} pixels are too thin: resized, less than a pixel would be left of the short "
                f"side (a side may be {self.max_ratio:g} times the other)"
            )
        return {**results, "img": image, "img_shape": image.shape[:2], "ori_shape": image.shape[:2]}


@TRANSFORMS.register_module()
class ReadLabels(BaseTransform):  # type: ignore[misc]
    """MMSegmentation's LoadAnnotations for label maps of any classes and depth.

    Adds `gt_seg_map` (height, width), uint8: the class of each pixel, 255 where it does not count.

    Args:
        classes: as DataConfig.classes has them.
        ignore_label: stored labels that do not count.
        label_offset: stored label of the first class.
    """

    def __init__(self, classes: str = "", ignore_label: tuple[int, ...] = (), label_offset: int = 0) -> None:
        self.classes = classes_of(classes, tuple(ignore_label), label_offset)

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Read `results["seg_map_path"]`.

        Raises:
            DataError: the file is missing, is no label map, or holds a label that is no class.
        """
        path = results["seg_map_path"]
        stored = read_label_map(path, coloured=self.classes.coloured)
        try:
            labels = self.classes.to_classes(stored)
        except ValueError as error:
            raise DataError(f"{path}: {error}") from error
        return {**results, "gt_seg_map": labels, "seg_fields": [*results.get("seg_fields", []), "gt_seg_map"]}
