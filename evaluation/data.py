"""The images that protocols measure on: which files, and how one comes to the encoder.

B batch, H W pixels.
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import transforms

from backbones import Encoder
from classification.data import find_images
from classification.labels import stratified_subset
from engine.data.grey import luma
from engine.data.images import ImageIndex, index_images, read_sample, readable_part
from engine.data.order import SampleKey
from engine.data.rounds import in_order, read
from evaluation.config import DataConfig, EvaluationConfig


@dataclass(frozen=True)
class Labelled:
    """A training and a validation set of the same classes."""

    train: ImageIndex
    val: ImageIndex

    @property
    def indices(self) -> dict[str, ImageIndex]:
        """What a run insists on."""
        return {"train": self.train, "val": self.val}


def open_labelled(config: EvaluationConfig) -> Labelled:
    """The images under data.root, those that classification trains and validates on with the same options and seed.
    With data.unreadable "skip" the training images that cannot be decoded are left out.

    Raises:
        DataError: a folder is missing or empty, the two have different classes, or a file has zero bytes.
    """
    train, val = find_images(config.data)
    part = stratified_subset(train, config.data.train_fraction, config.seed)
    return Labelled(readable_part(part) if config.data.unreadable == "skip" else part, val)


def labelled(folder: Path, options: DataConfig) -> ImageIndex:
    """The images in the class folders of a folder. A bad one always stops: other images would be another number.

    Raises:
        DataError: it is missing or empty.
    """
    return index_images(folder, labelled=True, options=options, unreadable="stop")


@dataclass(eq=False)
class CentreCrops(Dataset[Tensor]):
    """`dataset[SampleKey]` -> uint8 (3, S, S): the short side resized to round(S / crop_pct), the centre cropped."""

    index: ImageIndex
    image_size: int
    crop_pct: float
    interpolation: str
    squash: bool = False
    """Instead of all that: resize to (S, S), whatever the shape."""

    def __post_init__(self) -> None:
        """The transform, which has no state."""
        mode, size = transforms.InterpolationMode(self.interpolation), self.image_size
        resized = (size, size) if self.squash else round(size / self.crop_pct)
        steps = [transforms.Resize(resized, interpolation=mode), transforms.CenterCrop(size), transforms.PILToTensor()]
        self._transform = transforms.Compose(steps)

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, key: SampleKey) -> Tensor:
        """Raises DataError if the file cannot be read."""
        array, _ = read_sample(self.index, key, policy="stop", seed=0)
        view: Tensor = self._transform(Image.fromarray(array))
        return view


def centre_crops(index: ImageIndex, config: EvaluationConfig) -> CentreCrops:
    """The views of an image set that a configuration asks for; its image_size is known by now."""
    assert config.image_size is not None
    return CentreCrops(index, config.image_size, config.crop_pct, config.interpolation)


def squashed(index: ImageIndex, config: EvaluationConfig) -> CentreCrops:
    """Whole images as squares, without regard for their shape."""
    return dataclasses.replace(centre_crops(index, config), squash=True)


def batches_in_order(
    images: Dataset[Tensor], num_images: int, first: int, *, batch_size: int, num_workers: int
) -> Iterator[tuple[int, Tensor]]:
    """(position of its first image, uint8 images (B, 3, S, S)) of each batch, from the one that begins at `first`."""
    batches = in_order(num_images, batch_size)[first // batch_size :]
    found = read(images, batches, num_workers=num_workers, pin_memory=torch.cuda.is_available())
    for positions, batch in zip(batches, found, strict=True):
        yield positions[0], batch


def normalise(images_bchw: Tensor, encoder: Encoder) -> Tensor:
    """uint8 RGB (B, 3, H, W) to what the encoder was trained on: (p / 255 - mean) / std, of the luma where it is made
    for grey images."""
    pixels = luma(images_bchw.float(), len(encoder.mean))
    mean, std = (torch.tensor(v, device=pixels.device).view(1, -1, 1, 1) for v in (encoder.mean, encoder.std))
    return pixels.div_(255).sub_(mean).div_(std)
