"""The images of a run: which files, which part of them, and one sample as the tensors of a batch."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from classification.augment import as_picture, evaluation_transform, training_transform
from classification.config import ClassificationConfig
from classification.labels import labelled_part, record_part
from engine.data.images import ImageIndex, Unreadable, check_same_classes, index_images, read_sample
from engine.data.order import SampleKey, generator
from engine.data.scan import some
from engine.data.seeded import seeded
from engine.data.split import NAMES, image_root, split_folder
from engine.distributed import is_main
from engine.errors import DataError
from engine.groups import DataOptions


@dataclass(eq=False)
class LabelledImages(Dataset[dict[str, Tensor]]):
    """A map-style data set: `dataset[SampleKey]` -> {"image": uint8 (3, H, W), "label": int64 ()}.

    Args:
        index: the files and their labels.
        transform: PIL image, or tensor of other channels, to uint8 tensor; may draw from the global generators.
        seed: with the key, of everything the transform draws.
        whole: what the index is a part of, None where it is all there is.
        epoch_length: samples of an epoch; where there are fewer images they come again, sample s being image s modulo
            their number, with draws of its own. None for each image once.
        unreadable: what to do at a file that is not a whole image.
        run_dir: where skipped files are listed.
    """

    index: ImageIndex
    transform: Callable[[Any], Tensor]
    seed: int
    unreadable: Unreadable = "stop"
    run_dir: Path | None = None
    whole: ImageIndex | None = None
    epoch_length: int | None = None

    @property
    def num_samples(self) -> int:
        """Samples of an epoch."""
        return len(self.index) if self.epoch_length is None else self.epoch_length

    def path(self, index: int) -> str:
        """File of a sample."""
        return self.index.path(index % len(self.index))

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, key: SampleKey) -> dict[str, Tensor]:
        """Read, decode and transform one use of a sample.

        Raises:
            DataError: the file cannot be used.
        """
        assert self.index.labels is not None
        place = key._replace(index=key.index % len(self.index))
        array, position = read_sample(self.index, place, policy=self.unreadable, seed=self.seed, run_dir=self.run_dir)
        with seeded(generator(self.seed, key)):
            image = self.transform(as_picture(array))
        return {"image": image, "label": torch.tensor(self.index.labels[position])}


def find_images(options: DataOptions) -> tuple[ImageIndex, ImageIndex]:
    """All labelled images for training, and those for validation: of folders of their own, or shares of one.

    Raises:
        DataError: a folder is missing or empty, the two have different classes, or a file has zero bytes.
    """
    root = Path(options.root)
    val_folder = split_folder(root, "val")
    if val_folder is None and options.val_share:
        whole = index_images(image_root(root), labelled=True, options=options)
        train, val = whole.apart(options.val_share)
        if not len(val):
            raise DataError(f"{whole.root}: no class has two images, one of them for validation")
        return train, val
    if val_folder is None and root.is_dir():
        raise DataError(
            f"{root}: no folder for validation ({some(NAMES['val'])}): make one, or hold out a share of each class "
            "(--data.val-share 0.2)"
        )
    train = index_images(split_folder(root, "train") or root / "train", labelled=True, options=options)
    val = index_images(val_folder or root / "val", labelled=True, options=options, unreadable="stop")
    check_same_classes(train, val)
    return train, val


def open_data(config: ClassificationConfig, run_dir: Path | None = None) -> tuple[LabelledImages, LabelledImages]:
    """The training and validation sets under data.root.

    Raises:
        DataError: a folder is missing or empty, the two have different classes, or a file has zero bytes.
    """
    options = config.data
    train, val = find_images(options)
    part = labelled_part(train, config)
    if part is not train and run_dir is not None and is_main():
        record_part(part, train, config, run_dir)
    transform = training_transform(config.augment, config.image_size, config.data.bands)
    whole = None if part is train else train
    length = len(train) if options.full_epochs else None
    return (
        LabelledImages(part, transform, config.seed, options.unreadable, run_dir, whole, length),
        # A validation image is never replaced: accuracy over other images would be another number.
        LabelledImages(val, evaluation_transform(config.augment, config.data.bands), config.seed),
    )
