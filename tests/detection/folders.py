"""Tiny COCO folders whose objects a small network can find, and configurations that train on them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detection.coco import read_split as read_split_of
from detection.config import (
    DataConfig,
    DetectionConfig,
    HeadsConfig,
    OptimizerConfig,
    ScheduleConfig,
    detectron2_is_installed,
)

CATEGORIES = {2: "red", 5: "blue", 9: "green"}  # ids with gaps, as in COCO
needs_detectron2 = [
    pytest.mark.detectron2,
    pytest.mark.skipif(not detectron2_is_installed(), reason="Detectron2 is not installed"),
]
FRAMEWORKS = ["torchvision", pytest.param("detectron2", marks=needs_detectron2)]


def make_coco(root: Path, *, num_train: int = 12, num_val: int = 6) -> Path:
    """Grey noise with one to three bright rectangles each, 64 x 48 or 48 x 64 pixels; one crowd in each split."""
    for split, count in (("train", num_train), ("val", num_val)):
        (root / f"{split}2017").mkdir(parents=True)
        images, annotations = [], []
        for number in range(1, count + 1):
            source = np.random.default_rng((number, split == "val"))
            width, height = (64, 48) if number % 3 else (48, 64)
            pixels = source.integers(60, 110, (height, width, 3)).astype(np.uint8)
            name = f"{number:012d}.jpg"
            for _ in range(source.integers(1, 4)):
                label = int(source.integers(3))
                x, y = int(source.integers(0, width - 26)), int(source.integers(0, height - 26))
                w, h = (int(value) for value in source.integers(14, 26, 2))
                pixels[y : y + h, x : x + w] = np.eye(3, dtype=np.uint8)[[0, 2, 1][label]] * 200 + 30
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": number,
                        "category_id": list(CATEGORIES)[label],
                        "iscrowd": 0,
                        "area": w * h,
                        "bbox": [x, y, w, h],
                        "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]],
                    }
                )
            Image.fromarray(pixels).save(root / f"{split}2017" / name, quality=95)
            images.append({"id": number, "file_name": name, "height": height, "width": width})
        annotations.append(crowd(len(annotations) + 1, images[0]))
        categories = [{"id": number, "name": name} for number, name in CATEGORIES.items()]
        write(root, split, {"images": images, "annotations": annotations, "categories": categories})
    return root


def crowd(number, image):
    """A crowd over the left quarter of an image, as uncompressed run lengths by columns."""
    height, width = image["height"], image["width"]
    inside = height * (width // 4)
    return {
        "id": number,
        "image_id": image["id"],
        "category_id": 2,
        "iscrowd": 1,
        "area": inside,
        "bbox": [0, 0, width // 4, height],
        "segmentation": {"size": [height, width], "counts": [0, inside, height * width - inside]},
    }


def read_split(root: Path, name: str, *, training: bool, masks: bool, **changes):
    return read_split_of(DataConfig(root=str(root), **changes), name, training=training, masks=masks)


def read(root: Path, split: str) -> dict:
    return json.loads((root / "annotations" / f"instances_{split}2017.json").read_text())


def write(root: Path, split: str, document: dict) -> None:
    (root / "annotations").mkdir(exist_ok=True)
    (root / "annotations" / f"instances_{split}2017.json").write_text(json.dumps(document))


SMALL_HEADS = HeadsConfig(
    pyramid_channels=16,
    rpn_pre_nms=(64, 48),
    rpn_post_nms=(48, 24),
    anchors_per_image=32,
    rois_per_image=24,
    box_features=32,
    mask_convs=1,
    mask_channels=16,
    detections_per_image=12,
)


def tiny_config(root: Path, **changes) -> DetectionConfig:
    """Six steps of timm's smallest ResNet with everything on that may be random: sizes, flips, drop path."""
    config = DetectionConfig(
        model="test_resnet",
        init="none",
        framework="torchvision",
        iterations=6,
        batch_size=4,
        image_size=48,
        precision="float32",
        checkpoint_every=2,
        log_every=1,
        precise_bn=2,
        num_panels=2,
        data=DataConfig(root=str(root), num_workers=0, short_sides=(40, 48), max_side=64, evaluation_batch_size=4),
        heads=SMALL_HEADS,
        optimizer=OptimizerConfig(name="adamw", base_learning_rate=2e-3, base_batch=4, weight_decay=0.05),
        schedule=ScheduleConfig(kind="cosine", milestones=(), warmup_iterations=1),
    )
    return replace(config, **changes)
