"""Linear centred kernel alignment between the layers of two encoders (Kornblith et al., ICML 2019, arXiv 1905.00414).

In the minibatch form of Nguyen et al. (ICLR 2021, arXiv 2010.15327): unbiased HSIC of each batch, summed over batches.
"""

from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from analysis.config import CkaConfig
from analysis.fourier.depth import Units
from analysis.images import Images
from analysis.progress import Progress
from analysis.subject import Line, Measurement, Subject
from backbones import load_encoder
from engine.errors import DataError

_LEAST = 4  # images in a batch: HSIC's divisor is B (B - 3)


def unbiased_hsic(grams_lbb: Tensor, others_mbb: Tensor) -> Tensor:
    """Unbiased estimate (Song et al., 2012) of HSIC between all pairs of layers.

    Args:
        grams_lbb: X X^T of each layer's features, (L, B, B), float64.
        others_mbb: of the other encoder's, (M, B, B).

    Returns:
        (L, M).
    """
    count = grams_lbb.shape[1]
    off = 1 - torch.eye(count, dtype=grams_lbb.dtype, device=grams_lbb.device)
    one, other = grams_lbb * off, others_mbb * off
    traces = torch.einsum("lij,mij->lm", one, other)
    totals = torch.outer(one.sum(dim=(1, 2)), other.sum(dim=(1, 2)))
    products = torch.einsum("li,mi->lm", one.sum(dim=2), other.sum(dim=2))
    found = traces + totals / ((count - 1) * (count - 2)) - 2 * products / (count - 2)
    return found / (count * (count - 3))


def grams(units: Units, images_bchw: Tensor) -> tuple[list[str], Tensor]:
    """Names of the units of depth, and X X^T of each over a batch, (L, B, B); features are positions and channels."""
    names: list[str] = []
    found: list[Tensor] = []

    def see(name: str, maps: Tensor) -> None:
        features = maps.flatten(1).double()
        names.append(name)
        found.append(features @ features.T)

    with torch.inference_mode():
        units.run(images_bchw, see)
    return names, torch.stack(found)


def measure(config: CkaConfig, subject: Subject, folder: Path) -> Measurement:
    """CKA of every unit of depth of the encoder (lines) with every one of the other (values of a line).

    Args:
        config: the other encoder and how many images.
        subject: the encoder and its images.
        folder: of the run; gets nothing.

    Raises:
        BackboneError: a network shows no maps, or the other encoder is none.
        DataError: there are too few images, or one cannot be read.
    """
    if len(subject.images) < _LEAST:
        raise DataError(f"{config.data.root} has {len(subject.images)} images: CKA needs {_LEAST} or more")
    other = load_encoder(config.other, image_size=config.image_size or None)
    other.backbone.to(device=subject.device, dtype=subject.dtype)
    mine = subject.images
    size = config.image_size or other.image_size
    theirs = Images(mine.index, mine.positions, size, config.crop_pct, other.mean, other.std, config.seed, folder)
    units = [Units(subject.encoder.backbone, mine.image_size), Units(other.backbone, size)]
    progress = Progress(f"CKA of {subject.label}", len(mine))
    sums: list[Tensor] = []
    for start, end in batches(len(mine), config.batch_size):
        names, found = [], []
        for images, each in zip((mine, theirs), units, strict=True):
            pixels = torch.stack([images.read(number)[0] for number in range(start, end)])
            seen, gram = grams(each, images.normalise(pixels.to(subject.device)).to(subject.dtype))
            names.append(seen)
            found.append(gram)
        one, two = found
        parts = [unbiased_hsic(one, two), unbiased_hsic(one, one).diagonal(), unbiased_hsic(two, two).diagonal()]
        known = sums or [torch.zeros_like(part).cpu() for part in parts]
        sums = [total + part.cpu() for total, part in zip(known, parts, strict=True)]
        progress.advance(end - start)
    cka = sums[0] / (sums[1][:, None] * sums[2][None]).sqrt()
    lines = [
        Line(row / max(len(cka) - 1, 1), {f"cka_{column:02}": float(value) for column, value in enumerate(values)})
        for row, values in enumerate(cka)
    ]
    facts = {"units": names[0], "other_units": names[1], "other": config.other}
    return Measurement(lines, {"cka_of_last": float(cka[-1, -1]), "cka_mean": float(cka.mean())}, facts)


def batches(count: int, size: int) -> list[tuple[int, int]]:
    """(first, end) of each batch; what is too little for one of its own goes with the one before."""
    starts = list(range(0, count, size))
    if len(starts) > 1 and count - starts[-1] < _LEAST:
        starts.pop()
    return list(pairwise([*starts, count]))
