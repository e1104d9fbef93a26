"""Pre-training samples: one image to a random crop and a mask, both still small integers.

Normalising, mean fill and mask expansion happen once per batch on the device (pretrain/model.py).
Everything random comes from generator(seed, key), so a sample does not depend on worker, rank or history.

Shapes: H W pixels of a file, S image_size, g cells along a side of the crop (S / cell_size).
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset, default_collate

from engine.data.images import ImageArray, ImageIndex, Unreadable, index_images, read_sample
from engine.data.order import SampleKey, generator
from engine.data.split import image_root, split_folder
from pretrain.config import DataConfig
from pretrain.masking import cell_mask

Box = tuple[int, int, int, int]
"""A part of an image: top, left, height, width, in pixels."""

_NUM_TRIES = 10  # torchvision's RandomResizedCrop gives up after as many and takes the centre


@dataclass(frozen=True, kw_only=True, eq=False)
class PretrainDataset(Dataset[dict[str, Tensor]]):
    """Random resized crop, flip and cell mask of each image; ask it by SampleKey.

    Args:
        index: the images.
        image_size: side of the crop after resizing, in pixels.
        scale: smallest and largest area of the crop relative to the image (A2MIM CNNs: 0.8-1, others 0.67-1).
        ratio: smallest and largest width / height of the crop before resizing.
        flip: probability of a horizontal flip.
        cell_size: side of a mask cell, in pixels of the crop.
        mask_ratio: share of the cells to hide.
        seed: of every draw.
        unreadable: what to do at a bad file, see engine/data/images.py.
        run_dir: where skipped files are listed.
    """

    index: ImageIndex
    image_size: int = 224
    scale: tuple[float, float] = DataConfig.crop_scale
    ratio: tuple[float, float] = DataConfig.crop_ratio
    flip: float = DataConfig.flip
    cell_size: int = 32
    mask_ratio: float = 0.6
    seed: int = 0
    unreadable: Unreadable = "stop"
    run_dir: Path | None = None

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, key: SampleKey) -> dict[str, Tensor]:
        """Returns {"image": uint8 (3, S, S) RGB, "mask": uint8 (g, g), 1 where hidden}.

        Raises:
            DataError: the image cannot be read, see `read_sample`.
        """
        array, _ = read_sample(self.index, key, policy=self.unreadable, seed=self.seed, run_dir=self.run_dir)
        rng = generator(self.seed, key)
        box = random_box(rng, array.shape[:2], self.scale, self.ratio)
        image = resized(array, box, (self.image_size, self.image_size))
        if rng.random() < self.flip:
            image = image.flip(2)
        mask = cell_mask(rng, self.image_size, self.cell_size, self.mask_ratio)
        return {"image": image, "mask": torch.from_numpy(mask)}


def collate(samples: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """A batch {"image": uint8 (B, 3, S, S) in channels_last memory format, "mask": uint8 (B, g, g)}.

    Images are joined as they lie in memory; torch's default would turn each into planes, one byte at a time.
    """
    joined: dict[str, Tensor] = default_collate(
        [{**sample, "image": sample["image"].permute(1, 2, 0)} for sample in samples]
    )
    return {**joined, "image": joined["image"].permute(0, 3, 1, 2)}


def training_images(data: DataConfig) -> ImageIndex:
    """The images to train on: those of `train/` if root has such a folder, else of root itself; without those that
    data.val_share holds out where no folder is for validation.

    Raises:
        DataError: the folder is missing or holds no images.
    """
    index = index_images(image_root(data.root), labelled=False, options=data)
    has_folder = split_folder(Path(data.root), "val") is not None
    return index if has_folder or not data.val_share else index.apart(data.val_share)[0]


def random_box(
    rng: np.random.Generator, size: tuple[int, ...], scale: tuple[float, float], ratio: tuple[float, float]
) -> Box:
    """Draw the part to keep, by the law of torchvision's RandomResizedCrop.

    Area uniform in `scale`, logarithm of width / height uniform in `ratio`, place uniform; after ten draws that do not
    fit, the largest centred part whose shape is within `ratio`.

    Args:
        rng: source of the draws.
        size: (height, width) of the image.
        scale: smallest and largest area relative to the image.
        ratio: smallest and largest width / height.
    """
    height, width = size
    log_low, log_high = math.log(ratio[0]), math.log(ratio[1])
    for _ in range(_NUM_TRIES):
        area = height * width * (scale[0] + (scale[1] - scale[0]) * rng.random())
        shape = math.exp(log_low + (log_high - log_low) * rng.random())
        box_width, box_height = round(math.sqrt(area * shape)), round(math.sqrt(area / shape))
        if 0 < box_width <= width and 0 < box_height <= height:
            top = int(rng.random() * (height - box_height + 1))
            left = int(rng.random() * (width - box_width + 1))
            return top, left, box_height, box_width
    box_width = max(min(width, round(height * ratio[1])), 1)
    box_height = max(min(height, round(width / ratio[0])), 1)
    return (height - box_height) // 2, (width - box_width) // 2, box_height, box_width


def resized(array: ImageArray, box: Box, size: tuple[int, int]) -> Tensor:
    """A part of an image, (H, W, 3) uint8, resized to (C, *size) uint8; size is (height, width).

    Bilinear with antialiasing, within one grey level of Pillow's resize of the same box. The result keeps the
    values of a pixel side by side in memory.
    """
    top, left, height, width = box
    # Rows without gaps in the order they were decoded are what torch's vector code takes as they are; any other layout
    # is copied twice, which costs as much as the resize.
    part_1hwc = np.ascontiguousarray(array[top : top + height, left : left + width])[None]
    part_1chw = torch.from_numpy(part_1hwc.transpose(0, 3, 1, 2))
    return F.interpolate(part_1chw, size=size, mode="bilinear", antialias=True)[0]


def centred(array: ImageArray, image_size: int, crop_pct: float = 1.0) -> Tensor:
    """The view for evaluation and for panels, with nothing random: torchvision's Resize and CenterCrop.

    Args:
        array: RGB uint8 (H, W, 3).
        image_size: side of the view in pixels.
        crop_pct: image_size relative to the short side after resizing, in (0, 1].

    Returns:
        uint8 (3, S, S).
    """
    height, width = array.shape[:2]
    short = math.floor(image_size / crop_pct)
    size = (short, int(short * width / height)) if height <= width else (int(short * height / width), short)
    view = resized(array, (0, 0, height, width), size)
    top, left = round((size[0] - image_size) / 2), round((size[1] - image_size) / 2)
    return view[:, top : top + image_size, left : left + image_size].contiguous()
