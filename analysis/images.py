"""The images of an analysis: which ones, and as the encoder takes them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision import transforms
from torchvision.transforms.functional import pil_to_tensor

from analysis.config import DataConfig
from engine.data.images import ImageIndex, index_images, read_sample
from engine.data.order import SampleKey, generator
from engine.errors import DataError

_CLASSES_STREAM = 0xC1A5  # of generator(): apart from the streams that images draw from


def index_split(data: DataConfig, split: str, *, labelled: bool = True) -> ImageIndex:
    """The images of root/<split>, or of root where it has no such folder.

    Args:
        data: where, and how images are read.
        split: "train" or "val".
        labelled: whether they have to be in class folders; else any folder will do.

    Raises:
        DataError: there are none, or some are in no class folder.
    """
    root = Path(data.root)
    folder = root / split if (root / split).is_dir() else root
    try:
        return index_images(folder, labelled=True, options=data)
    except DataError:
        if labelled:
            raise
        return index_images(folder, labelled=False, options=data)


def choose(index: ImageIndex, count: int, seed: int) -> list[int]:
    """The first image of every class in turn, then the second, ..., none twice; all where there are no more.

    Args:
        index: in the order of paths; without labels all are of one class.
        count: how many; 0 for all.
        seed: draws the order of the classes.

    Returns:
        Positions in the index.
    """
    labels = np.zeros(len(index), dtype=np.int64) if index.labels is None else index.labels
    num_classes = max(len(index.classes), 1)
    order = generator(seed, SampleKey(0, 0), _CLASSES_STREAM).permutation(num_classes)
    rank_of_class = np.argsort(order)[labels]
    seen = np.zeros(num_classes, dtype=np.int64)
    turn = np.empty(len(index), dtype=np.int64)
    for position, label in enumerate(labels):
        turn[position] = seen[label]
        seen[label] += 1
    chosen = np.lexsort((rank_of_class, turn))
    return [int(position) for position in chosen[: count or len(index)]]


@dataclass(frozen=True)
class Images:
    """Some images of a data set, resized, cropped and normalised for an encoder.

    Args:
        index: of the data set.
        positions: which of its images, in this order.
        image_size: side in pixels after the crop.
        crop_pct: share of the resized short side that the crop keeps.
        mean, std: of the pixel values between 0 and 1.
        seed: of what replaces unreadable images.
        run_dir: where those are listed.
    """

    index: ImageIndex
    positions: Sequence[int]
    image_size: int
    crop_pct: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    seed: int = 0
    run_dir: Path | None = None

    def __len__(self) -> int:
        """How many."""
        return len(self.positions)

    def path(self, number: int) -> str:
        """Of the image with this number, relative to the folder of the data set."""
        return self.index.paths[self.positions[number]]

    def read(self, number: int) -> tuple[Tensor, int]:
        """The pixels (3, H, W) between 0 and 1, float32, and the label, 0 where there are none.

        Raises:
            DataError: it cannot be read.
        """
        key = SampleKey(0, self.positions[number])
        policy = self.index.options.unreadable
        array, position = read_sample(self.index, key, policy=policy, seed=self.seed, run_dir=self.run_dir)
        resize = transforms.Compose(
            [transforms.Resize(round(self.image_size / self.crop_pct)), transforms.CenterCrop(self.image_size)]
        )
        pixels: Tensor = pil_to_tensor(resize(Image.fromarray(array)))
        return pixels.float() / 255, 0 if self.index.labels is None else int(self.index.labels[position])

    def normalise(self, pixels: Tensor) -> Tensor:
        """(..., 3, H, W) between 0 and 1 -> mean 0 and standard deviation 1 over the data set."""
        mean, std = (torch.tensor(values, device=pixels.device)[:, None, None] for values in (self.mean, self.std))
        return (pixels - mean) / std

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Pixels (B, 3, H, W) and labels (B,) of all images, `size` at a time."""
        for start in range(0, len(self), size):
            read = [self.read(number) for number in range(start, min(start + size, len(self)))]
            yield torch.stack([pixels for pixels, _ in read]), torch.tensor([label for _, label in read])
