"""Tiny ADE20K folders that a small network can learn, and a configuration that trains on them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from segmentation.config import (
    AugmentConfig,
    DataConfig,
    EvaluationConfig,
    HeadConfig,
    OptimizerConfig,
    ScheduleConfig,
    SegmentationConfig,
)

LABELS = {"red": 1, "green": 75, "blue": 150}  # stored labels; the class is one less


def write_pair(root: Path, split: str, number: int, size: tuple[int, int] = (64, 48)) -> None:
    """An image (width, height) of two noisy coloured halves and its label map, with an unlabelled border."""
    source = np.random.default_rng((number, split == "validation"))
    width, height = size
    first, second = source.permutation(3)[:2]
    pixels = source.integers(0, 90, (height, width, 3))
    labels = np.zeros((height, width), dtype=np.uint8)
    cut = int(source.integers(width // 4, 3 * width // 4))
    for part, channel in ((slice(None, cut), first), (slice(cut, None), second)):
        pixels[:, part, channel] += 150
        labels[:, part] = list(LABELS.values())[channel]
    labels[:2] = 0
    name = f"ADE_{split}_{number:08d}"
    Image.fromarray(pixels.astype(np.uint8)).save(root / "images" / split / f"{name}.jpg", quality=95)
    Image.fromarray(labels).save(root / "annotations" / split / f"{name}.png")


def make_ade(root: Path, *, num_train: int = 16, num_val: int = 5, divisor: int = 1) -> Path:
    """`num_*` pairs of two alternating sizes, which `divisor` makes smaller."""
    for split, count in (("training", num_train), ("validation", num_val)):
        for kind in ("images", "annotations"):
            (root / kind / split).mkdir(parents=True)
        for number in range(count):
            write_pair(
                root, split, number, (64 // divisor, 48 // divisor) if number % 2 else (56 // divisor, 72 // divisor)
            )
    return root


def tiny_config(root: Path, **changes) -> SegmentationConfig:
    """Twelve iterations of timm's smallest ResNet under UPerNet with everything on that is random."""
    config = SegmentationConfig(
        model="test_resnet",
        init="none",
        iterations=12,
        batch_size=4,
        image_size=48,
        checkpoint_every=4,
        log_every=1,
        evaluate_every=6,
        drop_path=0.1,
        data=DataConfig(root=str(root), num_workers=0, evaluation_batch_size=2),
        augment=AugmentConfig(),
        head=HeadConfig(channels=16, aux_channels=8),
        optimizer=OptimizerConfig(name="adamw", base_learning_rate=3e-3, base_batch=4, no_decay="one_dimensional"),
        schedule=ScheduleConfig(power=1.0, warmup_iterations=2, min_rate=0.0),
        evaluation=EvaluationConfig(num_panels=1),
    )
    return replace(config, **changes)
