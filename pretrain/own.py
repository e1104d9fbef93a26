"""Pre-training fitted to a data set of one's own: how long, at what size, in which batches, and why."""

import math
from dataclasses import replace

from backbones import PUBLISHED
from engine.data.survey import Asked, Survey, choose_batch_size, choose_image_size, choose_rate, choose_workers
from engine.errors import DataError
from pretrain.config import PretrainConfig
from pretrain.methods import find_method

TOO_FEW = 200
FEW = 2000
MANY = 200_000
STEPS = (3000, 50_000)
"""Fewest and most steps."""
_EPOCHS = 100


def fit(base: PretrainConfig, seen: Survey, val_share: float, asked: Asked) -> tuple[PretrainConfig, list[str]]:
    """A configuration for a data set, and one line for each choice with its reason.

    Args:
        base: by the published rules of the network's family.
        seen: the data set.
        val_share: of it that is held out.
        asked: what is not to be chosen.

    Raises:
        DataError: there are too few images.
    """
    if seen.num_images < TOO_FEW:
        raise DataError(
            f"{seen.num_images} images: too few to pre-train (fewer than {TOO_FEW}); start from released weights "
            "instead: python -m classification own --init released:NAME ... (python -m backbones released lists them)"
        )
    size, cell, why_size = _sizes(base, seen, asked)
    batch, why_batch = choose_batch_size(seen.num_images, 16, least=32, most=256, asked=asked)
    per_epoch = max(seen.num_images // batch, 1)
    steps = asked.steps or min(max(STEPS[0], _EPOCHS * per_epoch), STEPS[1])
    epochs = math.ceil(steps / per_epoch)
    peak, why_rate = choose_rate(batch)
    config = replace(
        base,
        epochs=epochs,
        batch_size=batch,
        image_size=size,
        drop_path=0.0,
        checkpoint_every=max(per_epoch, 200),
        log_every=min(max(per_epoch // 2, 5), 50),
        visualize_every_epochs=max(epochs // 10, 1),
        data=replace(base.data, num_workers=choose_workers(), val_share=val_share),
        mask=replace(base.mask, cell_size=cell),
        options=base.options.for_demo(),
        optimizer=replace(base.optimizer, base_learning_rate=peak, base_batch=batch),
        schedule=replace(base.schedule, kind="cosine", warmup_epochs=epochs / 20, warmup_start=0.0, milestones=()),
    )
    length = f"{epochs * per_epoch:,} steps, {epochs} epoch{'s' * (epochs > 1)}"
    return config, [
        f"image size {size}, mask cells of {cell} pixels: {why_size}",
        f"batch {batch}: {why_batch}",
        f"{length}: {_why_so_long(asked, per_epoch, seen.num_images)}",
        f"peak learning rate {peak:g}: {why_rate}",
        *_remarks(seen.num_images, val_share),
    ]


def _sizes(base: PretrainConfig, seen: Survey, asked: Asked) -> tuple[int, int, str]:
    """Side of the image, side of a mask cell, and why."""
    size, why = choose_image_size(seen, asked)
    unit = find_method(base.method).smallest_cell(base)
    cell = unit * max(round((32 if size >= 192 else 16) / unit), 1)
    fits = max(size // cell, 4) * cell
    if base.model not in PUBLISHED:
        from backbones.suggest import takes  # here: it needs torch

        if not takes(base.model, fits):
            return base.image_size, base.mask.cell_size, f"the one size that {base.model} takes"
    return fits, cell, why if fits == size else f"a multiple of the mask cell nearest to {size}"


def _why_so_long(asked: Asked, per_epoch: int, num_images: int) -> str:
    if asked.steps:
        return "as asked"
    if per_epoch * _EPOCHS <= STEPS[0]:
        return f"masked image modelling learns little in fewer than {STEPS[0]:,} steps, however few the images"
    if per_epoch * _EPOCHS <= STEPS[1]:
        return f"every image {_EPOCHS} times"
    return f"no more than {STEPS[1]:,} steps; of {num_images:,} images the published 300 epochs (recipe any) learn more"


def _remarks(num_images: int, val_share: float) -> list[str]:
    found = []
    if num_images < FEW:
        found.append(f"{num_images:,} images are few to pre-train on: compare with released weights, too")
    if val_share:
        found.append(
            f"{val_share:.0%} of each folder are left out, for `python -m classification own` validates on them "
            "(--data.val-share 0 trains on all)"
        )
    return found
