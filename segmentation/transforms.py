"""Reading an image for MMSegmentation's pipelines, strictly."""

from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform
from mmseg.registry import TRANSFORMS

from engine.data.images import read_image


@TRANSFORMS.register_module()
class ReadWholeImage(BaseTransform):  # type: ignore[misc]
    """MMSegmentation's LoadImageFromFile, except that a damaged file is an error that names it.

    OpenCV, which that transform decodes with, fills the missing part of a truncated JPEG with grey and goes on. Adds
    `img` (height, width, 3), uint8, BGR as everywhere in MMSegmentation, `img_shape` and `ori_shape`.
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Read `results["img_path"]`.

        Raises:
            DataError: the file is missing or is not a whole image.
        """
        image = np.ascontiguousarray(read_image(results["img_path"])[..., ::-1])
        return {**results, "img": image, "img_shape": image.shape[:2], "ori_shape": image.shape[:2]}
