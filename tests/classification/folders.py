"""Tiny ImageNet-style folders whose classes a small network can tell apart, and a configuration that trains on them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from classification.config import (
    AugmentConfig,
    ClassificationConfig,
    DataConfig,
    EmaConfig,
    LossConfig,
    OptimizerConfig,
    ScheduleConfig,
)


def make_folder(
    root: Path, *, num_train: int = 8, num_val: int = 4, classes: tuple[str, ...] = ("blue", "green", "red")
):
    """`num_*` noisy images of each class's colour, 32 pixels wide."""
    for split, count in (("train", num_train), ("val", num_val)):
        for label, name in enumerate(classes):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                source = np.random.default_rng((label, i, split == "val"))
                pixels = source.integers(0, 100, (32, 32, 3))
                pixels[:, :, 2 - label] += 120
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i:03d}.jpg", quality=95)
    return root


def tiny_config(root: Path, **changes) -> ClassificationConfig:
    """Three epochs of timm's smallest ResNet with everything on that may be random: mixing, erasing, EMA."""
    config = ClassificationConfig(
        model="test_resnet",
        init="none",
        epochs=3,
        batch_size=6,
        image_size=32,
        precision="float32",
        checkpoint_every=5,
        log_every=2,
        data=DataConfig(root=str(root), num_workers=0, evaluation_batch_size=4),
        augment=AugmentConfig(
            auto_augment="rand-m7-mstd0.5-inc1", random_erasing=0.25, mixup=0.1, cutmix=1.0, test_size=32, repeats=2
        ),
        loss=LossConfig(kind="bce"),
        optimizer=OptimizerConfig(name="lamb", base_learning_rate=5e-3, base_batch=6, weight_decay=0.02),
        schedule=ScheduleConfig(warmup_epochs=1),
        ema=EmaConfig(decay=0.9, warmup_epochs=1),
    )
    return replace(config, **changes)
