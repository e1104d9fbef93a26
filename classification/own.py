"""Fine-tuning fitted to a data set of one's own: how long, at what size, in which batches, at what rate, and why."""

import math

from backbones import family
from classification.config import (
    AugmentConfig,
    ClassificationConfig,
    DataConfig,
    LossConfig,
    OptimizerConfig,
    ScheduleConfig,
)
from engine.data.survey import Asked, Survey, choose_batch_size, choose_image_size, choose_rate, choose_workers

EPOCHS = (30, 100)
"""Passes over many images, and most over few."""
STEPS = 1000
"""Fewest, within the most epochs."""
_FEW_OF_A_CLASS = 20


def fit(
    model: str, seen: Survey, val_share: float, asked: Asked, *, probe: bool
) -> tuple[ClassificationConfig, list[str]]:
    """A configuration for a data set, and one line for each choice with its reason.

    Args:
        model: name of the network.
        seen: the training images.
        val_share: of each class's images, held out.
        asked: what is not to be chosen.
        probe: whether the encoder is frozen.
    """
    size, why_size = choose_image_size(seen, asked)
    batch, why_batch = choose_batch_size(seen.num_images, 32, least=16, most=256, asked=asked)
    per_epoch = max(seen.num_images // batch, 1)
    epochs = min(max(EPOCHS[0], math.ceil(STEPS / per_epoch)), EPOCHS[1])
    if asked.steps:
        epochs = math.ceil(asked.steps / per_epoch)
    peak, why_rate = choose_rate(batch)
    if probe:
        peak, why_rate = 1e-2, "for a linear layer on standardised features, whatever their encoder"
    config = ClassificationConfig(
        model=model,
        epochs=epochs,
        batch_size=batch,
        image_size=size,
        freeze="encoder" if probe else "none",
        standardise=probe,
        checkpoint_every=max(per_epoch, 200),
        log_every=min(max(per_epoch // 2, 5), 20),
        data=DataConfig(num_workers=choose_workers(), val_share=val_share),
        augment=AugmentConfig(
            crop_scale=(0.5, 1.0), test_size=size, crop_pct=1.0, interpolation="bilinear", label_smoothing=0.0
        ),
        loss=LossConfig(),
        optimizer=_optimizer(model, batch, peak, probe),
        schedule=ScheduleConfig(warmup_epochs=min(max(epochs // 10, 1), epochs - 1), warmup_start=0.0),
    )
    return config, [
        f"image size {size}: {why_size}",
        f"batch {batch}: {why_batch}",
        f"{epochs * per_epoch:,} steps, {epochs} epoch{'s' * (epochs > 1)}: {_why_so_long(asked, epochs)}",
        f"peak learning rate {peak:g}: {why_rate}",
        *_remarks(seen, val_share),
    ]


def _optimizer(model: str, batch: int, peak: float, probe: bool) -> OptimizerConfig:
    if probe:
        return OptimizerConfig(base_learning_rate=peak, base_batch=batch, weight_decay=0.0)
    decay = 0.75 if family(model) == "vit" else 1.0
    return OptimizerConfig(
        base_learning_rate=peak, base_batch=batch, weight_decay=0.05, layer_decay=decay, clip_grad=5.0
    )


def _why_so_long(asked: Asked, epochs: int) -> str:
    if asked.steps:
        return "as asked"
    if epochs == EPOCHS[0]:
        return f"every image {EPOCHS[0]} times"
    return f"{STEPS:,} steps, or {EPOCHS[1]} epochs if that is less"


def _remarks(seen: Survey, val_share: float) -> list[str]:
    fewest = min(seen.folders, key=lambda name: seen.folders[name])
    found = [f"{len(seen.folders)} classes, the smallest, {fewest}, with {seen.folders[fewest]:,} images"]
    if seen.folders[fewest] < _FEW_OF_A_CLASS:
        found.append("so few are learnt from a pre-trained encoder (--init), hardly from scratch")
    if val_share:
        found.append(f"{val_share:.0%} of each class are held out for validation: the data set has no folder for it")
    return found
