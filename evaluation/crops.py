"""Random crops of training images: MAE's one try, or torchvision's ten; each a function of (seed, epoch, image)."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from engine.data.images import ImageIndex, read_sample
from engine.data.order import SampleKey, generator

_SCALE, _RATIO = (0.08, 1.0), (3 / 4, 4 / 3)
_TRIES = 10


@dataclass(eq=False)
class RandomCrops(Dataset[dict[str, Any]]):
    """`dataset[SampleKey]` -> {"image": uint8 (3, S, S), "label": int}: a random resized crop, and a flip of half."""

    index: ImageIndex
    image_size: int
    interpolation: str
    crop: Literal["mae", "torchvision"]
    seed: int

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, key: SampleKey) -> dict[str, Any]:
        """Raises DataError if the file cannot be read."""
        assert self.index.labels is not None
        array, position = read_sample(self.index, key, policy="stop", seed=self.seed)
        source = generator(self.seed, key)
        left, top, width, height = crop_box(source, array.shape[1], array.shape[0], one_try=self.crop == "mae")
        mode = Image.Resampling.BICUBIC if self.interpolation == "bicubic" else Image.Resampling.BILINEAR
        part = Image.fromarray(array).crop((left, top, left + width, top + height))
        view = np.array(part.resize((self.image_size, self.image_size), mode))
        if source.random() < 0.5:
            view = view[:, ::-1]
        image: Tensor = torch.from_numpy(np.ascontiguousarray(view.transpose(2, 0, 1)))
        return {"image": image, "label": int(self.index.labels[position])}


def crop_box(source: np.random.Generator, width: int, height: int, *, one_try: bool) -> tuple[int, int, int, int]:
    """Left, top, width and height of the part to keep, of an image of this size.

    Area uniform in 0.08 to 1 of the image's, logarithm of width / height uniform in 3/4 to 4/3. One try: what is larger
    than the image is cut to it (MAE's probe). Else ten tries, then the largest centred part of an allowed shape
    (torchvision).
    """
    for _ in range(1 if one_try else _TRIES):
        area = width * height * source.uniform(*_SCALE)
        ratio = math.exp(source.uniform(math.log(_RATIO[0]), math.log(_RATIO[1])))
        wide, high = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if one_try:
            wide, high = max(min(wide, width), 1), max(min(high, height), 1)
        if 0 < wide <= width and 0 < high <= height:
            return int(source.integers(width - wide + 1)), int(source.integers(height - high + 1)), wide, high
    wide = max(min(width, round(height * _RATIO[1])), 1)
    high = max(min(height, round(width / _RATIO[0])), 1)
    return (width - wide) // 2, (height - high) // 2, wide, high
