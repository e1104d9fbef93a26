"""Segmentation by the nearest training patches.

N images, h w map height and width, L = h * w patches, D numbers of a feature, U pixels of a patch, C classes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from backbones import Encoder
from backbones.frozen import Readout
from engine import use
from engine.errors import ConfigError, DataError
from engine.run import storage
from engine.run.open import Run
from evaluation.cache import key
from evaluation.dense.config import DenseConfig, Similarity
from evaluation.dense.labels import all_labels, areas, mean_iou, mean_iou_interval
from evaluation.dense.nearest import Rows, nearest_patches, scaling_of, vote
from evaluation.features import Representation, data_identity, extract, layer_number, open_readout
from evaluation.measured import Inputs, Measured
from segmentation.labels import Classes, classes_in
from segmentation.layout import PairIndex

_AT_ONCE = 64  # validation images, whose neighbours are looked for together


@dataclass(frozen=True)
class Patches:
    """The patches of a set.

    Args:
        features: (N * L, D), mapped.
        labels: (N * L, U), mapped.
        per_image: L.
    """

    features: Rows
    labels: Rows
    per_image: int

    def of(self, images: Sequence[int]) -> "Patches":
        """Some of the images, in this order."""
        rows = (np.asarray(images)[:, None] * self.per_image + np.arange(self.per_image)).reshape(-1)
        return Patches(self.features.of(rows), self.labels.of(rows), self.per_image)

    def __len__(self) -> int:
        return len(self.features) // self.per_image


@dataclass(frozen=True)
class Reader:
    """Makes patches of image sets.

    Args:
        encoder: what is measured.
        readout: of it, on the run's device.
        config: of the protocol.
        inputs: for the cache.
        classes: of the data set.
    """

    encoder: Encoder
    readout: Readout
    config: DenseConfig
    inputs: Inputs
    classes: Classes

    @property
    def representation(self) -> Representation:
        """The patches of the first of the layers."""
        layer = layer_number(self.readout, self.config.layers[0])
        return Representation(layer, "patches", self.config.norm == "after" and self.readout.has_norm(layer))

    def read(self, pairs: PairIndex) -> Patches:
        """Features and labels of the pairs, from the cache or computed.

        Raises:
            DataError: an image or a label map cannot be used.
            DivergedError: a feature is not finite.
            CheckpointError: the cache cannot be written.
        """
        found = extract(
            self.readout,
            self.encoder,
            pairs.images,
            [self.representation],
            self.config,
            self.inputs,
            squash=True,
        )
        rows_nd = found[self.representation.name]
        side = round(math.sqrt(rows_nd.shape[1] / self._width()))
        assert self.config.image_size is not None
        patch = self.config.image_size // side
        maps = [label_map for _, label_map in pairs.matched()]
        facts = {"maps": data_identity(pairs.maps), "classes": repr(self.classes), "side": side, "patch": patch}
        file = self.inputs.cache_dir / "label-maps" / f"{key(**facts)}.npy"
        labels = all_labels(maps, self.classes, side, patch, file)
        patches_nd = rows_nd.reshape(len(rows_nd) * side * side, -1)
        return Patches(Rows.all(patches_nd), Rows.all(labels), side * side)

    def _width(self) -> int:
        """D."""
        size, wide = self.encoder.image_size, self.encoder.backbone.in_channels
        device = next(self.encoder.backbone.parameters()).device
        with torch.no_grad():
            level = self.readout(torch.zeros(1, wide, size, size, device=device), [self.representation.layer])[0]
            return int(self.readout.patches(level, norm=False).shape[-1])


def score(
    bank: Patches, queries: Patches, similarity: Similarity, ks: Sequence[int], reader: Reader, title: str
) -> dict[int, npt.NDArray[np.int64]]:
    """{k: areas of each image (N, 2, C)} of the queries by their nearest patches in the bank."""
    num_classes, device = len(reader.classes.names), next(reader.encoder.backbone.parameters()).device
    scaling = scaling_of(bank.features, device)
    found: dict[int, list[npt.NDArray[np.int64]]] = {k: [] for k in ks}
    length = queries.per_image
    places = nearest_patches(bank.features, queries.features, max(ks), scaling, similarity)
    for first in use.each(range(0, len(queries), _AT_ONCE), title):
        rows = slice(first * length, (first + _AT_ONCE) * length)
        answers, truth = vote(places[rows], bank.labels, ks, num_classes, device), queries.labels[rows]
        for k in ks:
            images = range(0, len(truth), length)
            found[k] += [areas(answers[k][i : i + length], truth[i : i + length], num_classes) for i in images]
    return {k: np.stack(parts) for k, parts in found.items()}


def measure_nearest(run: Run, encoder: Encoder, config: DenseConfig, inputs: Inputs) -> Measured:
    """mIoU over the validation images at image_size, k and similarity chosen on a part of the training images.

    Raises:
        ConfigError: there are too few training images to choose on.
        DataError: no pixel of the validation images counts.
    """
    reader = Reader(encoder, open_readout(encoder, run.device), config, inputs, classes_in(config.data))
    pairs = inputs.data.pairs
    bank, queries = reader.read(pairs["training"]), reader.read(pairs["validation"])
    grid = _choose(bank, reader) if len(config.k) * len(config.similarity) > 1 else {}
    chosen = max(grid, key=lambda cell: grid[cell]) if grid else (config.similarity[0], config.k[0])
    similarity, k = chosen
    areas_n2c = score(bank, queries, similarity, [k], reader, f"dense {encoder.name}")[k]
    total = areas_n2c.sum(axis=0)
    if not total[1].any():
        raise DataError(f"{pairs['validation'].maps.root}: no pixel of the validation images counts")
    low, high = mean_iou_interval(areas_n2c, seed=config.seed, resamplings=config.bootstrap)
    metrics = {"mIoU": mean_iou(total), "mIoU_low": low, "mIoU_high": high}
    if grid:
        metrics["mIoU_held_out"] = grid[chosen]
        with storage.storage_errors(run.dir):
            cells = [{"similarity": name, "k": number, "mIoU": value} for (name, number), value in grid.items()]
            storage.write_json(run.dir / "grid.json", {"chosen_on": "held-out training images", "cells": cells})
    row = {
        **reader.representation.row(reader.readout),
        "k": k,
        "similarity": f"{similarity} of standardised patches",
        "crop_pct": 1.0,
        "interpolation": f"{config.interpolation}, squashed to a square",
        "grid": {"k": list(config.k), "similarity": list(config.similarity)},
        "selection_set": f"{config.selection_share:g} of the training images" if grid else "none",
    }
    facts = {"num_train": len(bank), "num_val": len(queries), "num_classes": len(reader.classes.names)}
    return Measured(metrics, row, facts)


def _choose(bank: Patches, reader: Reader) -> dict[tuple[Similarity, int], float]:
    """mIoU of every similarity and k on held-out training images, by the others."""
    config = reader.config
    count = max(1, round(config.selection_share * len(bank)))
    if count >= len(bank):
        raise ConfigError(
            f"selection_share: {config.selection_share:g} of {len(bank)} training images leaves none for the bank; "
            "give one --k and one --similarity instead"
        )
    source = np.random.Generator(np.random.Philox(np.random.SeedSequence((config.seed, 0x5E1E))))
    order = source.permutation(len(bank))
    held, rest = bank.of(sorted(order[:count])), bank.of(sorted(order[count:]))
    grid: dict[tuple[Similarity, int], float] = {}
    for similarity in config.similarity:
        found = score(rest, held, similarity, config.k, reader, f"choosing k, {similarity}")
        grid |= {(similarity, k): mean_iou(values.sum(axis=0)) for k, values in found.items()}
    return grid
