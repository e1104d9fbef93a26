"""Augmentation: PIL pipelines for the readers, and what is done to a whole batch on the device.

B batch, K classes, H W pixels. Readers send uint8; normalising, random erasing, mixup and CutMix happen on the device.
"""

from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from timm.data.mixup import Mixup
from timm.data.random_erasing import RandomErasing
from timm.data.transforms_factory import create_transform
from torch import Tensor
from torchvision import transforms

from backbones import IMAGENET_MEAN, IMAGENET_STD
from classification.config import AugmentConfig
from engine.data.grey import luma

Statistics = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation of each channel, of values between 0 and 1."""


def training_transform(augment: AugmentConfig, image_size: int, bands: int = 3) -> transforms.Compose:
    """timm's ImageNet training pipeline, PIL image to uint8 tensor (3, image_size, image_size).

    Of pictures with other channels a uint8 tensor (bands, H, W) becomes one of that size, cropped and mirrored. It
    draws from the global generators of python, numpy and torch; the dataset sets them for every sample.
    """
    if bands != 3:
        crop = transforms.RandomResizedCrop(
            image_size, scale=augment.crop_scale, ratio=augment.crop_ratio, interpolation=_mode(augment)
        )
        return transforms.Compose([crop, transforms.RandomHorizontalFlip(augment.flip)])
    transform: transforms.Compose = create_transform(
        image_size,
        is_training=True,
        scale=augment.crop_scale,
        ratio=augment.crop_ratio,
        hflip=augment.flip,
        color_jitter=augment.color_jitter,
        auto_augment=augment.auto_augment or None,
        interpolation=augment.interpolation,
        normalize=False,
    )
    return transform


def resized_side(augment: AugmentConfig) -> int:
    """The short side in evaluation before the crop: test_size / crop_pct, rounded (236 for 224 / 0.95, 219 for 192)."""
    return round(augment.test_size / augment.crop_pct)


def _mode(augment: AugmentConfig) -> transforms.InterpolationMode:
    return transforms.InterpolationMode("bilinear" if augment.interpolation == "random" else augment.interpolation)


def evaluation_transform(augment: AugmentConfig, bands: int = 3) -> transforms.Compose:
    """Resize the short side, crop the centre: PIL image to uint8 tensor (3, test_size, test_size), or a uint8 tensor
    (bands, H, W) to one of that size.

    Not timm's, which rounds 224 / 0.95 down to 235 where the published recipes resize to 236.
    """
    centre = [
        transforms.Resize(resized_side(augment), interpolation=_mode(augment)),
        transforms.CenterCrop(augment.test_size),
    ]
    return transforms.Compose([*centre, transforms.PILToTensor()] if bands == 3 else centre)


def as_picture(array: npt.NDArray[np.uint8]) -> Image.Image | Tensor:
    """What the transforms take of decoded pixels (H, W, C): a PIL image of RGB, else a tensor (C, H, W)."""
    return Image.fromarray(array) if array.shape[2] == 3 else torch.from_numpy(array).permute(2, 0, 1)


@lru_cache
def _mean_and_deviation(statistics: Statistics, device: torch.device) -> tuple[Tensor, Tensor]:
    """For pixel values 0 to 255, each (1, C, 1, 1)."""
    pair = torch.tensor(statistics, device=device) * 255
    return pair[0].view(1, -1, 1, 1), pair[1].view(1, -1, 1, 1)


def normalise(images_bchw: Tensor, statistics: Statistics = (IMAGENET_MEAN, IMAGENET_STD)) -> Tensor:
    """uint8 (B, C, H, W) to float32 with (mean, std) `statistics`, one value a channel; of one, luma (B, 1, H, W)."""
    mean, deviation = _mean_and_deviation(statistics, images_bchw.device)
    return (luma(images_bchw.float(), mean.shape[1]) - mean) / deviation


class BatchAugment:
    """Turns a uint8 batch into what the network and the loss are given in training.

    Random numbers come from the global generators, which the training loop sets for every step and rank.

    Args:
        augment: probabilities and alphas.
        num_classes: K.
        statistics: mean and std of each channel.
    """

    def __init__(
        self, augment: AugmentConfig, num_classes: int, statistics: Statistics = (IMAGENET_MEAN, IMAGENET_STD)
    ) -> None:
        self.statistics = statistics
        self.num_classes = num_classes
        self.smoothing = augment.label_smoothing
        self.erase_probability = augment.random_erasing
        self.mixup = None
        if augment.mixup or augment.cutmix:
            self.mixup = Mixup(  # type: ignore[no-untyped-call]
                augment.mixup, augment.cutmix, label_smoothing=self.smoothing, num_classes=num_classes
            )

    def __call__(self, images_bchw: Tensor, labels_b: Tensor) -> tuple[Tensor, Tensor]:
        """Normalise, erase, mix.

        Args:
            images_bchw: uint8 (B, 3, H, W); B is even if images are mixed.
            labels_b: int64 (B,), 0 to K - 1.

        Returns:
            float32 images (B, 3, H, W) and label distributions (B, K), each row summing to 1.
        """
        images = normalise(images_bchw, self.statistics)
        if self.erase_probability:
            erase = RandomErasing(self.erase_probability, mode="pixel", device=images.device)  # type: ignore[no-untyped-call]
            images = erase(images)
        if self.mixup is None:
            return images, smoothed_one_hot(labels_b, self.num_classes, self.smoothing)
        mixed, targets = self.mixup(images, labels_b)
        return mixed, targets


def smoothed_one_hot(labels_b: Tensor, num_classes: int, smoothing: float) -> Tensor:
    """Label distributions (B, K): `smoothing` spread over all classes, the rest on the label (Szegedy et al. 2016)."""
    return F.one_hot(labels_b, num_classes).float() * (1 - smoothing) + smoothing / num_classes
