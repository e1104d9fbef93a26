"""The loss around trained weights, along filter-normalised directions (Li et al., NeurIPS 2018, arXiv 1712.09913)."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from analysis.config import LandscapeConfig
from analysis.progress import Progress
from analysis.subject import Line, Measurement, Subject

Direction = dict[str, Tensor]


def direction(network: nn.Module, seed: int) -> Direction:
    """A random direction in the space of weights, each filter of it (first index of a weight) with the norm of the
    filter it moves. Biases and the weights of norms, which have one dimension, do not move: they are left out.

    Args:
        network: whose weights.
        seed: of the draw.
    """
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for name, weight in network.named_parameters():
        if weight.dim() < 2:
            continue
        drawn = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
        norms = weight.detach().cpu().double().flatten(1).norm(dim=1) / drawn.flatten(1).norm(dim=1).clamp_min(1e-12)
        scaled = drawn * norms.view(-1, *[1] * (weight.dim() - 1))
        found[name] = scaled.to(device=weight.device, dtype=weight.dtype)
    return found


@contextmanager
def moved(network: nn.Module, steps: list[tuple[float, Direction]]) -> Iterator[None]:
    """Inside, the weights are moved by the sum of factor times direction; afterwards they are as before, to the bit."""
    weights = dict(network.named_parameters())
    kept = {name: weights[name].detach().clone() for _, moves in steps for name in moves}
    try:
        with torch.no_grad():
            for factor, moves in steps:
                for name, move in moves.items():
                    weights[name].add_(move, alpha=factor)
        yield
    finally:
        with torch.no_grad():
            for name, weight in kept.items():
                weights[name].copy_(weight)


def measure(config: LandscapeConfig, subject: Subject, folder: Path) -> Measurement:
    """The mean cross-entropy at every point of the line or plane.

    Args:
        config: extent and points.
        subject: the encoder, its readout and its images.
        folder: of the run; gets nothing.

    Raises:
        DataError: an image cannot be read.
    """
    assert subject.readout is not None
    network = subject.readout.network
    images = [(subject.prepared(pixels), labels) for pixels, labels in subject.images.batches(config.batch_size)]
    axis = np.linspace(-config.extent, config.extent, config.points)
    axis[config.points // 2] = 0.0
    directions = [direction(network, 2 * config.seed + number) for number in range(1 + config.plane)]
    points = [(x, y) for y in (axis if config.plane else [0.0]) for x in axis]
    progress = Progress(f"loss landscape of {subject.label}", len(points) * len(subject.images))
    lines = []
    for x, y in points:
        with moved(network, list(zip((float(x), float(y)), directions, strict=False))):
            loss = mean_loss(network, images, subject.readout.columns)
        lines.append(Line(float(x), {"y": float(y), "loss": loss} if config.plane else {"loss": loss}))
        progress.advance(len(subject.images))
    there = next(line.values["loss"] for line, point in zip(lines, points, strict=True) if point == (0.0, 0.0))
    near = [line.values["loss"] for line, (x, y) in zip(lines, points, strict=True) if max(abs(x), abs(y)) <= 0.5]
    metrics = {"loss_of_weights": there, "loss_rise_within_half": float(np.mean(near)) - there}
    return Measurement(lines, metrics, {"readout": subject.readout.name})


def mean_loss(network: nn.Module, images: list[tuple[Tensor, Tensor]], columns: tuple[int, ...]) -> float:
    """Mean cross-entropy over batches of normalised images (B, 3, H, W) and labels (B,), in evaluation mode."""
    total, count = 0.0, 0
    with torch.inference_mode():
        for batch, labels in images:
            scores = network(batch).double()
            classes = torch.tensor(columns)[labels].to(scores.device)
            total += F.cross_entropy(scores, classes, reduction="sum").item()
            count += len(labels)
    return total / count
