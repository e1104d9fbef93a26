"""Accuracy on images of which something is missing. B batch, H W pixels of normalised images, 0 the mean colour."""

import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from analysis.config import RobustnessConfig
from analysis.interactions.masked import masked_images
from analysis.progress import Progress
from analysis.subject import Line, Measurement, Subject
from engine.data.order import SampleKey, generator
from engine.errors import ConfigError

_DROP, _SHUFFLE = 0xD809, 0x5FFE  # streams of generator()
Change = Callable[[Tensor, int], Tensor]
"""A normalised image (3, H, W) and its number among those analysed -> a changed one."""


def drop_patches(image_chw: Tensor, ratio: float, grid: int, draw: np.random.Generator) -> Tensor:
    """Set a share of the cells of a grid to the mean colour: round(ratio g^2) cells, the first of a random order, so
    that more of them with the same draw include the fewer."""
    order = draw.permutation(grid**2)
    present = np.ones(grid**2, dtype=np.bool_)
    present[order[: round(ratio * grid**2)]] = False
    return masked_images(image_chw, torch.from_numpy(present)[None].to(image_chw.device))[0]


def shuffle_patches(image_chw: Tensor, grid: int, draw: np.random.Generator) -> Tensor:
    """Cut the image into grid x grid equal pieces and lay them in random order. Rows and columns that are left over
    where `grid` does not divide the image stay at its lower and right border."""
    height, width = (side // grid for side in image_chw.shape[1:])
    channels = len(image_chw)
    inner = image_chw[:, : height * grid, : width * grid]
    pieces = inner.reshape(channels, grid, height, grid, width).permute(1, 3, 0, 2, 4).flatten(0, 1)
    pieces = pieces[torch.from_numpy(draw.permutation(grid**2)).to(image_chw.device)]
    laid = pieces.view(grid, grid, channels, height, width).permute(2, 0, 3, 1, 4)
    result = image_chw.clone()
    result[:, : height * grid, : width * grid] = laid.reshape(inner.shape)
    return result


def filter_frequencies(image_chw: Tensor, radius: float, *, low: bool) -> Tensor:
    """Keep the frequencies up to a radius (`low`) or beyond it. The unit of the radius is the highest frequency of a
    row, pi; corners reach sqrt(2). The mean of the image is its frequency zero, and goes with the low ones."""
    rows, columns = (2 * torch.fft.fftfreq(side, dtype=torch.float64) for side in image_chw.shape[1:])
    distance = (rows[:, None].square() + columns[None].square()).sqrt().to(image_chw.device)
    keep = distance <= radius if low else distance > radius
    filtered: Tensor = torch.fft.ifft2(torch.fft.fft2(image_chw.double()) * keep).real
    return filtered.to(image_chw.dtype)


def changes(config: RobustnessConfig) -> Iterator[tuple[str, float, Change]]:
    """(name of the curve, place on it, the change) of everything that is tried."""

    def draw(number: int, stream: int) -> np.random.Generator:
        return generator(config.seed, SampleKey(0, number), stream)

    def drop(image: Tensor, number: int, ratio: float) -> Tensor:
        return drop_patches(image, ratio, config.grid, draw(number, _DROP))

    def shuffle(image: Tensor, number: int, grid: int) -> Tensor:
        return shuffle_patches(image, grid, draw(number, _SHUFFLE))

    def filtered(image: Tensor, _: int, radius: float, low: bool) -> Tensor:
        return filter_frequencies(image, radius, low=low)

    for ratio in config.drop_ratios:
        yield "drop", ratio, partial(drop, ratio=ratio)
    for grid in config.shuffle_grids:
        yield "shuffle", grid, partial(shuffle, grid=grid)
    for name, low in (("low_pass", True), ("high_pass", False)):
        for radius in config.frequencies:
            yield name, radius, partial(filtered, radius=radius, low=low)


def measure(config: RobustnessConfig, subject: Subject, folder: Path) -> Measurement:
    """Top-1 accuracy under every change, in percent.

    Args:
        config: what is changed, and how much.
        subject: the encoder, its readout and its images.
        folder: of the run; gets nothing.

    Raises:
        ConfigError: a patch would have no pixel.
        DataError: an image cannot be read.
    """
    finest = max(config.grid if config.drop_ratios else 1, *config.shuffle_grids, 1)
    if finest > subject.images.image_size:
        raise ConfigError(f"{finest} patches in a row: images of {subject.images.image_size} pixels have fewer")
    tried: list[tuple[str, float, Change]] = [("unchanged", 0.0, lambda image, number: image), *changes(config)]
    right = np.zeros(len(tried), dtype=np.int64)
    progress = Progress(f"robustness of {subject.label}", len(subject.images) * len(tried))
    number = 0
    for pixels, labels in subject.images.batches(config.batch_size):
        images = subject.prepared(pixels)
        for place, (_, _, change) in enumerate(tried):
            changed = torch.stack([change(image, number + n) for n, image in enumerate(images)])
            right[place] += int((classes(subject, changed) == labels).sum())
            progress.advance(len(images))
        number += len(images)
    lines, accuracy = [], 100 * right / number
    for (name, at, _), value in zip(tried[1:], accuracy[1:].tolist(), strict=True):
        error = math.sqrt(value * (100 - value) / number)
        lines.append(Line(at, {f"top1_{name}": value, f"top1_{name}_error": error}))
    metrics = {"top1": float(accuracy[0])}
    for kind in dict.fromkeys(name for name, _, _ in tried[1:]):
        metrics[f"top1_{kind}_mean"] = float(
            np.mean([v for (n, _, _), v in zip(tried, accuracy, strict=True) if n == kind])
        )
    assert subject.readout is not None
    return Measurement(lines, metrics, {"readout": subject.readout.name, "num_images": number})


def classes(subject: Subject, images_bchw: Tensor) -> Tensor:
    """The most probable class of the data set for each normalised image: (B,), on the CPU."""
    assert subject.readout is not None
    with torch.inference_mode():
        scores = subject.readout.network(images_bchw)
    best: Tensor = scores[:, list(subject.readout.columns)].argmax(dim=1)
    return best.cpu()
