"""The Fourier analysis of one encoder: every unit of depth over all images, nothing kept but sums."""

import csv
import io
import logging
from pathlib import Path

import torch

from analysis.config import FourierConfig
from analysis.fourier.depth import Units
from analysis.fourier.spectrum import Spectrum, frequencies
from analysis.progress import Progress
from analysis.subject import Line, Measurement, Subject
from engine.run.storage import write_atomic

log = logging.getLogger("mim")
FILE = "spectra.csv"
"""In the run folder: the whole spectrum of every depth."""


def measure(config: FourierConfig, subject: Subject, folder: Path) -> Measurement:
    """Relative log amplitudes and variances of the feature maps of every depth.

    Args:
        config: how many images.
        subject: the encoder and its images.
        folder: of the run; gets FILE.

    Raises:
        BackboneError: the network shows no maps.
        DataError: an image cannot be read.
    """
    units = Units(subject.encoder.backbone, subject.images.image_size)
    if not units.are_residual:
        log.info("%s: no residual branches to tell units of depth by; seen at the maps that timm names", subject.label)
    spectra: dict[str, Spectrum] = {}
    progress = Progress(f"spectra of {subject.label}", len(subject.images))
    with torch.inference_mode():
        for pixels, _ in subject.images.batches(config.batch_size):
            units.run(subject.prepared(pixels), lambda name, maps: spectra.setdefault(name, Spectrum(name)).add(maps))
            progress.advance(len(pixels))
    depths = list(spectra.values())
    write_atomic(folder / FILE, _table(depths))
    return _measurement(depths, are_residual=units.are_residual)


def _table(depths: list[Spectrum]) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["depth", "unit", "side", "frequency_pi", "log_amplitude"])
    for number, depth in enumerate(depths):
        for frequency, amplitude in zip(frequencies(depth.height), depth.relative(), strict=True):
            writer.writerow([number, depth.name, depth.height, frequency, amplitude])
    return file.getvalue()


def _measurement(depths: list[Spectrum], *, are_residual: bool) -> Measurement:
    lines = [
        Line(
            number / max(len(depths) - 1, 1),
            {"depth": number, **_highest(depth), "variance": depth.mean_variance(), "side": depth.height},
        )
        for number, depth in enumerate(depths)
    ]
    high = [line.values["high_frequency"] for line in lines if "high_frequency" in line.values]
    metrics = {"high_frequency_last": high[-1]} if high else {}
    metrics["variance_last"] = lines[-1].values["variance"]
    return Measurement(lines, metrics, {"units": [depth.name for depth in depths], "residual_units": are_residual})


def _highest(depth: Spectrum) -> dict[str, float]:
    """Of a map of two positions in a row only the frequency zero is known: nothing."""
    if depth.height < 3:
        return {}
    return {"high_frequency": depth.relative()[-1], "frequency_pi": frequencies(depth.height)[-1]}
