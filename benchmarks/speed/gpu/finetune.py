"""Fine-tuning with RSB A3's ingredients beside timm's own code on the same folder of images, loaders included."""

import dataclasses
import os
import statistics
import time
from pathlib import Path
from typing import Any

import timm
import torch
from timm.data.dataset_factory import create_dataset
from timm.data.loader import create_loader
from timm.data.mixup import FastCollateMixup
from timm.loss.binary_cross_entropy import BinaryCrossEntropy
from timm.optim._optim_factory import create_optimizer_v2

from benchmarks.speed.gpu.part import Part
from benchmarks.speed.gpu.trace import linked_photos, timings
from classification.recipes import rsb_a3
from classification.train import train

NUM_CLASSES = 8
EPOCHS = 6


def run(part: Part) -> None:
    """Ours, then timm's: same network, image size, batch, augmentation, loss, optimizer, precision, layout, workers."""
    num_images, batch_size = (16, 4) if part.small else (4096, 512)
    root = _classes(part.folder, num_images, 4 if part.small else 128)
    name = f"rsb-a3 {part.models[0]}, batch {batch_size}"
    with part.record.attempt("ours"):
        part.record.add(f"{name}, this suite", _ours(part, root, batch_size), "images/s", note="with its loader")
    with part.record.attempt("timm"):
        part.record.add(f"{name}, timm", _timms(part, root, batch_size), "images/s", note="with its loader")


def _classes(folder: Path, num_images: int, num_different: int) -> Path:
    photos = linked_photos(folder / "photos", num_images, num_different)
    for i, path in enumerate(sorted(photos.iterdir())):
        for split in ("train", "val") if i < 2 * NUM_CLASSES else ("train",):
            target = folder / "classes" / split / f"class{i % NUM_CLASSES}"
            target.mkdir(parents=True, exist_ok=True)
            os.link(path, target / path.name)
    return folder / "classes"


def _workers(part: Part) -> int:
    return 1 if part.small else 16


def _ours(part: Part, root: Path, batch_size: int) -> float:
    config = rsb_a3(part.models[0])
    config = dataclasses.replace(
        config,
        epochs=EPOCHS,
        batch_size=batch_size,
        image_size=64 if part.small else config.image_size,
        drop_path=0.0,
        log_every=1 if part.small else 4,
        evaluate_every=EPOCHS,
        data=dataclasses.replace(config.data, root=str(root), num_workers=_workers(part), evaluation_batch_size=8),
        schedule=dataclasses.replace(config.schedule, warmup_epochs=1),
    )
    train(dataclasses.replace(config, init="none"), part.folder / "run")
    return float(statistics.median(row["images_per_second"] for row in timings(part.folder / "run")))


def _timms(part: Part, root: Path, batch_size: int) -> float:
    """timm's train.py, its loop without logging: prefetcher, mixing in the collate function, LAMB, BCE."""
    recipe = rsb_a3(part.models[0])
    size = 64 if part.small else recipe.image_size
    collate: Any = FastCollateMixup
    mix = collate(recipe.augment.mixup, recipe.augment.cutmix, label_smoothing=0.0, num_classes=NUM_CLASSES)
    loader: Any = create_loader(
        create_dataset("", root=str(root), split="train", is_training=True),
        input_size=(3, size, size),
        batch_size=batch_size,
        is_training=True,
        auto_augment=recipe.augment.auto_augment,
        interpolation=recipe.augment.interpolation,
        num_workers=_workers(part),
        collate_fn=mix,
        pin_memory=not part.small,
        use_prefetcher=True,
        use_multi_epochs_loader=True,
        device=part.device,
    )
    name = {"r50": "resnet50"}.get(part.models[0], part.models[0])
    net: Any = timm.create_model(name, num_classes=NUM_CLASSES)
    net = net.to(part.device).to(memory_format=torch.channels_last)
    optimizer = create_optimizer_v2(net, opt="lamb", lr=1e-4, weight_decay=recipe.optimizer.weight_decay)
    criterion: Any = BinaryCrossEntropy(smoothing=0.0)
    rates = []
    for _ in range(EPOCHS):
        started, images = time.perf_counter(), 0
        for image, target in loader:
            with torch.autocast(part.device.type, dtype=torch.bfloat16):
                loss = criterion(net(image.contiguous(memory_format=torch.channels_last)), target)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            images += len(image)
        if not part.small:
            torch.cuda.synchronize()
        rates.append(images / (time.perf_counter() - started))
    return statistics.median(rates[1:])
