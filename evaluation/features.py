"""Features of image sets: extracted in one pass for every representation that is missing, and cached on disk.

The `features` protocol does that and measures the effective rank. B batch, N images, D numbers of a feature.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from backbones import Encoder
from backbones.frozen import Level, Readout
from engine import use
from engine.config import config_hash
from engine.data.content import look_into
from engine.data.index import ImageIndex
from engine.errors import ConfigError, DivergedError
from engine.run.open import Run
from engine.training.state import PRECISIONS
from evaluation.cache import FeatureCache, key
from evaluation.config import FeaturesConfig
from evaluation.data import (
    CentreCrops,
    Labelled,
    batches_in_order,
    centre_crops,
    normalise,
    open_labelled,
    squashed,
)
from evaluation.measured import Inputs, Measured
from evaluation.measures import rank_me

VERSION = 1
RECORD_EVERY_S = 20.0
_RANK_IMAGES = 25_000
__all__ = ["VERSION", "Representation", "extract", "measure", "open_data", "representations"]

log = logging.getLogger("mim")
open_data: Callable[[FeaturesConfig], Labelled] = open_labelled


@dataclass(frozen=True)
class Representation:
    """What stands for an image."""

    layer: int
    """From 1."""
    token: str
    """"cls", "mean", "cls+mean", or "patches": all positions one after the other."""
    norm: bool
    """After the network's final norm."""

    @property
    def name(self) -> str:
        """As files call it: layer12-cls-after."""
        return f"layer{self.layer}-{self.token}-{'after' if self.norm else 'before'}"

    def label(self, head: "Representation") -> str:
        """As metrics call it beside a headline, the same for networks of any depth: mean_after, l11_mean_after."""
        layer = "" if self.layer == head.layer else f"l{self.layer}_"
        return f"{layer}{self.token.replace('+', '_')}_{'after' if self.norm else 'before'}"

    def row(self, readout: Readout) -> dict[str, Any]:
        """Its fields of a row; the token in words."""
        mean = "mean of patches" if readout.is_tokens else "pooled map"
        words = {"cls": "class token", "mean": mean, "cls+mean": f"class token and {mean}"}
        words["patches"] = "patches" if readout.is_tokens else "cells of the map"
        return {
            "layer": self.layer,
            "layer_name": readout.layer_names[self.layer - 1],
            "token": words[self.token],
            "final_norm": self.norm,
        }

    def of(self, readout: Readout, level: Level) -> Tensor:
        """(B, D) of a batch; (B, L * D) of all positions."""
        if self.token == "patches":
            return readout.patches(level, norm=self.norm).flatten(1)
        parts = [readout.class_token(level, norm=self.norm)] if "cls" in self.token else []
        parts += [readout.mean(level, norm=self.norm)] if "mean" in self.token else []
        return torch.cat(parts, dim=1)


def open_readout(encoder: Encoder, device: torch.device) -> Readout:
    """The encoder on a device, to be read at any depth."""
    encoder.backbone.to(device)
    return Readout(encoder.backbone)


def layer_number(readout: Readout, layer: int) -> int:
    """A layer counted from 1 of one that may be counted from the end.

    Raises:
        ConfigError: the network has no such layer.
    """
    number = layer if layer > 0 else readout.depth + 1 + layer
    if not 1 <= number <= readout.depth:
        raise ConfigError(f"layers: {layer}: {readout.backbone.name} has the layers 1 to {readout.depth}")
    return number


def representations(readout: Readout, config: FeaturesConfig) -> list[Representation]:
    """The headline first, then the other layers, each with every token and norm that it has.

    Raises:
        ConfigError: a layer or a token does not exist.
    """
    if "cls" in config.token and not readout.has_class_token:
        raise ConfigError(f"token: {readout.backbone.name} has no class token; take --token mean")
    tokens = ["cls", "mean"] if readout.has_class_token else ["mean"]
    if config.token == "cls+mean":
        tokens.insert(0, "cls+mean")
    elif config.token == "mean":
        tokens.reverse()
    norms = [False, True] if config.norm == "before" else [True, False]
    found = []
    for layer in (layer_number(readout, layer) for layer in config.layers):
        can = readout.has_norm(layer)
        found += [Representation(layer, token, norm) for token in tokens for norm in norms if can or not norm]
    return list(dict.fromkeys(found))


def extract(
    readout: Readout,
    encoder: Encoder,
    index: ImageIndex,
    wanted: Sequence[Representation],
    config: FeaturesConfig,
    inputs: Inputs,
    *,
    squash: bool = False,
) -> dict[str, npt.NDArray[Any]]:
    """The features of every image of a set, {representation: (N, D)}, mapped from the cache.

    What is missing there is computed in one pass over the images and can be stopped at any time. With `squash` an image
    is seen whole, resized to a square, instead of its centre.

    Raises:
        DataError: an image cannot be read.
        DivergedError: a feature is not finite.
        CheckpointError, ConfigError: the cache cannot be written, or another process writes it.
    """
    views = squashed(index, config) if squash else centre_crops(index, config)
    cache = _cache(encoder, index, config, inputs, squash=squash)
    names = [each.name for each in wanted]
    if cache.missing(names):
        missing = [each for each in wanted if each.name in cache.missing(names)]
        _extract(cache, readout, encoder, views, missing, config)
    return {name: cache.read(name) for name in names}


def _cache(
    encoder: Encoder, index: ImageIndex, config: FeaturesConfig, inputs: Inputs, *, squash: bool
) -> FeatureCache:
    """Where the features of a set lie: by the content of encoder and images, and by all that changes a number."""
    view = {
        "version": VERSION,
        "encoder": encoder.digest,
        "model": encoder.backbone.name,
        "mean": encoder.mean,
        "std": encoder.std,
        "image_size": config.image_size,
        "crop_pct": config.crop_pct,
        "interpolation": config.interpolation,
        "precision": config.precision,
        "batch": config.extract_batch,
        "device": next(encoder.backbone.parameters()).device.type,
        **({"view": "squashed"} if squash else {}),
    }
    folder = inputs.cache_dir / f"{encoder.name}-{key(**view)}" / key(**data_identity(index))
    return FeatureCache(folder, len(index), config.stored)


def data_identity(index: ImageIndex) -> dict[str, Any]:
    """What tells image sets apart: names, sizes, and the content of as many files as can be read in seconds."""
    options = index.options
    return {"names": index.digest, "content": look_into(index).digest, "exif": options.exif}


def _extract(
    cache: FeatureCache,
    readout: Readout,
    encoder: Encoder,
    views: CentreCrops,
    wanted: Sequence[Representation],
    config: FeaturesConfig,
) -> None:
    index = views.index
    size, device = config.extract_batch, next(encoder.backbone.parameters()).device
    layers = sorted({each.layer for each in wanted})
    with cache.writing() as writer:
        first = writer.first_missing([each.name for each in wanted]) // size * size
        if first:
            log.info("%s: going on at image %d of %d", cache.folder, first, len(index))
        stream = batches_in_order(views, len(index), first, batch_size=size, num_workers=config.data.num_workers)
        recorded = time.monotonic()
        for step in use.each(range(first // size, -(-len(index) // size)), f"features {encoder.name}"):
            start, images = next(stream)
            values = compute(readout, encoder, images.to(device, non_blocking=True), layers, wanted, config.precision)
            for each, rows in zip(wanted, values, strict=True):
                _check_finite(rows, each, encoder, index, start)
                writer.write(each.name, start, rows)
            if time.monotonic() - recorded > RECORD_EVERY_S:
                writer.record()
                recorded = time.monotonic()
            del step


@torch.inference_mode()
def compute(
    readout: Readout,
    encoder: Encoder,
    images_bchw: Tensor,
    layers: Sequence[int],
    wanted: Sequence[Representation],
    precision: str,
) -> list[npt.NDArray[np.float32]]:
    """(B, D) float32 of each representation, of uint8 images (B, 3, S, S) on the encoder's device."""
    dtype = PRECISIONS[precision]
    with torch.autocast(images_bchw.device.type, dtype=dtype, enabled=dtype is not torch.float32):
        levels = dict(zip(layers, readout(normalise(images_bchw, encoder), layers), strict=True))
        return [each.of(readout, levels[each.layer]).float().cpu().numpy() for each in wanted]


def _check_finite(
    rows: npt.NDArray[np.float32], each: Representation, encoder: Encoder, index: ImageIndex, start: int
) -> None:
    bad = ~np.isfinite(rows).all(axis=1)
    if bad.any():
        raise DivergedError(
            f"{encoder.name} computes {each.name} that is not finite for {index.path(start + int(bad.argmax()))}: its "
            "weights, or the precision, are no good for this layer"
        )


def measure(run: Run, encoder: Encoder, config: FeaturesConfig, inputs: Inputs) -> Measured:
    """Extract everything and measure the effective rank of the training features."""
    readout = open_readout(encoder, run.device)
    data: Labelled = inputs.data
    wanted = representations(readout, config)
    banks = extract(readout, encoder, data.train, wanted, config, inputs)
    extract(readout, encoder, data.val, wanted, config, inputs)
    chosen = np.unique(np.linspace(0, len(data.train) - 1, min(len(data.train), _RANK_IMAGES)).round().astype(int))
    ranks = {each: rank_me(banks[each.name][chosen]) for each in wanted}
    head = wanted[0]
    metrics = {"rank_me": ranks[head], **{f"rank_me_{each.label(head)}": ranks[each] for each in wanted[1:]}}
    return Measured(metrics, {**head.row(readout), **list_hash(data)}, counts(data))


def counts(data: Labelled) -> dict[str, Any]:
    """What finished.json says of the images."""
    return {"num_train": len(data.train), "num_val": len(data.val), "num_classes": len(data.train.classes)}


def list_hash(data: Labelled) -> dict[str, Any]:
    """The row's hash of the training list: over the paths, in order."""
    return {"train_list_sha256": config_hash({"paths": list(data.train.paths)})}
