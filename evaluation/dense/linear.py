"""A linear head on a frozen encoder through MMSegmentation: the recipes of segmentation/, in the one loop."""

# ruff: noqa: E402 - MMSegmentation has to be imported by import_mmsegmentation first

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from segmentation.framework import import_mmsegmentation

import_mmsegmentation()

from backbones import Encoder, load_encoder
from backbones.frozen import Readout
from engine.config import check
from engine.errors import ConfigError
from engine.run.open import Run
from engine.task import train_parts
from evaluation.dense.config import DenseConfig
from evaluation.dense.labels import mean_iou_interval
from evaluation.measured import Measured
from segmentation.config import DataConfig, SegmentationConfig
from segmentation.evaluation import Scores
from segmentation.mmseg_adapter import build_segmentor
from segmentation.recipes import linear_40k
from segmentation.train import assembly_of


def segmentation_config(config: DenseConfig) -> SegmentationConfig:
    """`python -m segmentation linear-40k` for this encoder, with what the protocol lets its user say."""
    base, asked = linear_40k(config.model), config.linear
    options = {field.name: getattr(config.data, field.name) for field in dataclasses.fields(DataConfig)}
    return dataclasses.replace(
        base,
        init="none",
        iterations=asked.iterations,
        batch_size=asked.batch_size,
        accumulation=asked.accumulation,
        image_size=asked.crop_size,
        seed=config.seed,
        precision=config.precision,
        checkpoint_every=asked.checkpoint_every,
        evaluate_every=asked.evaluate_every,
        log_every=asked.log_every,
        data=DataConfig(**options),
        head=dataclasses.replace(base.head, maps="last" if config.head == "linear" else "four"),
        optimizer=dataclasses.replace(base.optimizer, base_learning_rate=asked.base_learning_rate),
        schedule=dataclasses.replace(base.schedule, warmup_iterations=asked.warmup_iterations),
    )


def measure_linear(run: Run, encoder: Encoder, config: DenseConfig) -> Measured:
    """Train the head and evaluate by windows; a stopped run goes on from its checkpoint.

    Raises:
        ConfigError: MMSegmentation is not installed, or it cannot feed the encoder.
        DataError: the data set has faults.
    """
    if len(encoder.mean) != 3:
        raise ConfigError(f"{encoder.reference} takes images of one channel; MMSegmentation feeds it three")
    settings = segmentation_config(config)
    check(settings)
    segmentor: Any = build_segmentor(settings)
    large = load_encoder(encoder.reference, image_size=config.linear.crop_size)
    segmentor.backbone.encoder.load_state_dict(large.backbone.state_dict())
    for name, values in (("mean", encoder.mean), ("std", encoder.std)):
        buffer: torch.Tensor = getattr(segmentor.data_preprocessor, name)
        buffer.copy_(255 * torch.tensor(values).view_as(buffer))
    evaluations: list[Scores] = []
    parts = assembly_of(run, settings, segmentor, evaluations.append)

    def evaluate(model: nn.Module, step: int, check_stop: Callable[[], None]) -> dict[str, float]:
        assert parts.evaluate is not None
        means, each = parts.evaluate(model, step, check_stop), evaluations[-1].each
        assert each is not None
        areas = each.round().astype(np.int64)
        low, high = mean_iou_interval(areas, seed=config.seed, resamplings=config.bootstrap)
        return {**means, "mIoU_low": low, "mIoU_high": high}

    metrics, facts = parts.finish(train_parts(run, settings, dataclasses.replace(parts, evaluate=evaluate)))
    row = {
        "layer": len(large.backbone.net.feature_info),
        "token": "last map" if config.head == "linear" else "four maps, concatenated",
        "final_norm": segmentor.backbone.after_norm and Readout(encoder.backbone).norm != "none",
        "resolution": config.linear.crop_size,
        "crop_pct": 1.0,
        "interpolation": "bilinear, windows",
        "optimizer": f"adamw, batch {settings.batch_size}, {settings.iterations} iterations, "
        f"warm-up {settings.schedule.warmup_iterations}, decay {settings.optimizer.weight_decay:g}",
        "learning_rate": settings.learning_rate,
        "selection_set": "none",
        "epoch": "last",
    }
    return Measured(metrics, row, facts)
