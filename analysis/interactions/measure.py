"""The interactions of one encoder, image by image; continued where it was killed, with the same numbers."""

import json
import logging
import math
import os
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from analysis.config import InteractionsConfig
from analysis.interactions.masked import Outputs, Plan, rewards_of
from analysis.interactions.rewards import OF_CLASSES, Reward, cosine
from analysis.interactions.sampling import draw_pairs, orders_of
from analysis.interactions.strength import Strengths, differences, strengths
from analysis.progress import Progress
from analysis.readout import Pooled
from analysis.subject import Line, Measurement, Subject
from engine.errors import ConfigError, DivergedError

log = logging.getLogger("mim")
FILE = "interactions.jsonl"
"""In the run folder: a line for each image with its pairs and their interactions, I and that of half the contexts."""
_SAVE_EVERY_S = 2.0
_RANGES = {"J_low": (0.0, 0.3), "J_middle": (0.3, 0.7001), "J_high": (0.7001, 1.01)}  # of orders, as fractions of n


class Rewards:
    """The rewards of the image at work, kept in a file as they come: 8 bytes each, little-endian."""

    def __init__(self, path: Path) -> None:
        self._path, self._waiting, self._saved_at = path, list[float](), time.monotonic()
        known = path.read_bytes() if path.exists() else b""
        self.values = np.frombuffer(known[: len(known) // 8 * 8], dtype="<f8").tolist()
        if len(known) % 8:  # killed in the middle of a number
            os.truncate(path, len(self.values) * 8)

    def add(self, values: list[float]) -> None:
        """Keep some more; they reach the disk within two seconds."""
        self.values += values
        self._waiting += values
        if time.monotonic() - self._saved_at > _SAVE_EVERY_S:
            self.save()

    def save(self) -> None:
        """Force what waits to the disk."""
        with self._path.open("ab") as file:
            file.write(np.array(self._waiting, dtype="<f8").tobytes())
            file.flush()
            os.fsync(file.fileno())
        self._waiting.clear()
        self._saved_at = time.monotonic()


@dataclass
class Counts:
    """Forward passes of this start, in masked images."""

    needed: int = 0
    made: int = 0
    published: int = 0
    """By the implementation that computes every variant of every context, whether or not it is new."""


def measure(config: InteractionsConfig, subject: Subject, folder: Path) -> Measurement:
    """The strength of interactions of every order.

    Args:
        config: sampling and reward.
        subject: the encoder and its images.
        folder: of the run; holds what is known already, and FILE afterwards.

    Raises:
        ConfigError: a cell would have no pixel.
        DataError: an image cannot be read.
        DivergedError: a reward is not finite.
    """
    if config.grid > subject.images.image_size:
        raise ConfigError(f"grid is {config.grid}: images of {subject.images.image_size} pixels have fewer in a row")
    known, counts = _known(folder / FILE), Counts()
    plan = _plan(config, 0)
    progress = Progress(
        f"interactions of {subject.label}, {len(subject.images)} images",
        len(subject.images) * len(plan.masks),
        len(known) * len(plan.masks),
    )
    for index in range(len(known), len(subject.images)):
        known.append(_of_image(config, subject, index, folder, (counts, progress)))
    for left in folder.glob("coalitions-*.f64"):
        left.unlink()
    interactions = np.array([line["I"] for line in known])
    halves = np.array([line["half"] for line in known]) if config.contexts > 1 else None
    found = strengths(interactions, halves)
    if not found.strength.any():
        log.warning("%s: no pair interacts at any order, so that J would be 0 / 0: it is given as 0", subject.label)
    return _measurement(config, subject, found, counts)


def _plan(config: InteractionsConfig, index: int) -> Plan:
    num_players = config.grid**2
    pairs = draw_pairs(config.grid, config.pairs, index=index, seed=config.seed, reach=config.reach)
    orders = orders_of(num_players, config.orders)
    return Plan(pairs, orders, config.contexts, num_players=num_players, index=index, seed=config.seed)


def _of_image(
    config: InteractionsConfig, subject: Subject, index: int, folder: Path, told: tuple[Counts, Progress]
) -> dict[str, Any]:
    """Compute what is not known of one image, and add its line to FILE."""
    counts, progress = told
    plan = _plan(config, index)
    pixels, label = subject.images.read(index)
    image = subject.prepared(pixels)
    outputs, reward = _rewarded(config, subject, (image, label), counts)
    kept = Rewards(folder / f"coalitions-{index:06}.f64")
    before = len(kept.values)
    for batch in rewards_of(plan.masks, image, outputs, reward, batch_size=config.batch_size, first=before):
        kept.add(batch)
        progress.advance(len(batch))
    kept.save()
    counts.needed += len(plan.masks) - before
    counts.published += plan.num_variants
    if not np.isfinite(kept.values).all():
        bad = int((~np.isfinite(kept.values)).sum())
        raise DivergedError(
            f"{subject.images.path(index)}: the rewards of {bad} of {len(kept.values)} masked images are not finite: "
            "the scores of this network overflow"
        )
    of_contexts = differences(plan.spread(np.array(kept.values)))
    line = {
        "image": subject.images.path(index),
        "class": subject.images.index.classes[label] if subject.images.index.classes else "",
        "coalitions": len(plan.masks),
        "pairs": plan.pairs.tolist(),
        "I": of_contexts.mean(axis=2).tolist(),
        "half": of_contexts[:, :, : config.contexts // 2].mean(axis=2).tolist() if config.contexts > 1 else None,
    }
    _append(folder / FILE, line)
    (folder / f"coalitions-{index:06}.f64").unlink()
    return line


def _rewarded(
    config: InteractionsConfig, subject: Subject, labelled: tuple[Tensor, int], counts: Counts
) -> tuple[Outputs, Reward]:
    """The network to run on masked images, every pass counted, and the reward of what it gives."""
    image, label = labelled
    network: Outputs = subject.readout.network if subject.readout else Pooled(subject.encoder)

    def outputs(images_bchw: Tensor) -> Tensor:
        counts.made += len(images_bchw)
        return network(images_bchw)

    if config.reward == "cosine":
        with torch.inference_mode():
            return outputs, partial(cosine, full_c=outputs(image[None])[0])
    assert subject.readout is not None
    return outputs, partial(OF_CLASSES[config.reward], label=subject.readout.columns[label])


def _known(path: Path) -> list[dict[str, Any]]:
    """The lines of the images that are done; half a line, of a process that was killed, goes."""
    content = path.read_bytes() if path.exists() else b""
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        os.truncate(path, len(whole))
    return [json.loads(line) for line in whole.splitlines()]


def _append(path: Path, line: dict[str, Any]) -> None:
    with path.open("ab") as file:
        file.write(json.dumps(line, allow_nan=False).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def _measurement(config: InteractionsConfig, subject: Subject, found: Strengths, counts: Counts) -> Measurement:
    lines = [
        Line(
            ratio,
            _finite(
                {
                    "order": order,
                    "J": found.normalised[place],
                    "J_error": found.normalised_error[place],
                    "J_change": found.change[place],
                    "strength": found.strength[place],
                    "strength_error": found.strength_error[place],
                }
            ),
        )
        for place, (ratio, order) in enumerate(
            zip(config.orders, orders_of(config.grid**2, config.orders), strict=True)
        )
    ]
    metrics: dict[str, float] = {}
    for name, (low, high) in _RANGES.items():
        there = [line.values["J"] for line in lines if low <= line.at < high]
        metrics |= {name: float(np.mean(there))} if there else {}
    if config.contexts > 1:
        metrics["J_change"] = float(np.abs(found.change).max())
    facts: dict[str, Any] = {
        "num_players": config.grid**2,
        "reward": config.reward,
        "readout": subject.readout.name if subject.readout else "cosine to the features of the whole image",
        "forward_passes": {**vars(counts), "ratio": counts.made / counts.needed if counts.needed else None},
    }
    if counts.needed:
        log.info(
            "%s: %d forward passes of one image, %.4f of those needed; each variant by itself would take %d",
            subject.label, counts.made, counts.made / counts.needed, counts.published,
        )  # fmt: skip
    return Measurement(lines, metrics, facts)


def _finite(values: dict[str, float]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items() if math.isfinite(value)}
