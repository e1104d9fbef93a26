"""Networks from Python: frozen encoders by reference, and what fine-tuning made."""

import importlib
from pathlib import Path
from typing import Any

from engine.config import read_config_file
from engine.errors import ConfigError
from mim_benchmark.measure import Source
from mim_benchmark.runs import as_path, as_reference, prepare


def load_encoder(source: Source, *, image_size: int | None = None) -> Any:
    """A frozen encoder in evaluation mode on the CPU (backbones.Encoder): `.backbone(images)` gives its last map,
    (B, C, h, w), of normalised images (B, 3, H, W); `.mean` and `.std` are what pixels from 0 to 1 are normalised by.

    Args:
        source: a run or its folder, a file of weights, "MODEL=FILE", "timm:NAME", "random:NAME", "released:NAME".
        image_size: side in pixels of the images it will see; by default that of its pre-training.

    Raises:
        SuiteError: it does not exist, is damaged, or does not fit its network.
    """
    from backbones.source import load_encoder as load

    return load(as_reference(source), image_size=image_size)


def export(
    source: Source, out: str | Path, to: str, *, model: str | None = None, image_size: int | None = None
) -> list[str]:
    """Write a network for another library; returns where it is and the lines that load it there, as the command prints.

    Args:
        source: a pre-training or classification run or its folder, or a file of weights; a detection run (to
            "detectron2") or a segmentation run (to "mmseg"), which are written whole.
        out: a folder or file, as `python -m backbones export --help` says of each library.
        to: "timm", "hf", "torchvision", "onnx", "detectron2", "mmseg", "mmdet", "mmpretrain" or "openmixup".
        model: the network, where a file does not say it.
        image_size: likewise the side in pixels that it was built for.

    Raises:
        SuiteError: that library has no such network, or a file cannot be read or written.
    """
    run, place = as_path("source", source), as_path("out", out)
    stored = run / "config.json"
    package = str(read_config_file(stored)["package"]) if stored.is_file() else ""
    wholly = {"detection": "detectron2", "segmentation": "mmseg"}
    if package in wholly:
        if to != wholly[package]:
            raise ConfigError(f"{run} holds a {package} run, which is exported to {wholly[package]!r}, not to {to!r}")
        prepare(package)
        told = importlib.import_module(f"{package}.export").export(run, place)
        return [str(place), *([told] if isinstance(told, str) else [])]
    from backbones.weights.export import export as write

    written = write(run, place, to, model=model, image_size=image_size)
    return [str(written.path), *written.lines, *(f"note: {remark}" for remark in written.remarks)]


def load_model(source: str | Path) -> Any:
    """What a finished fine-tuning run trained, in evaluation mode: a classifier (classification.classifier.Classifier,
    with `.network` and `.classes`), a detector (detection.finished.FinishedDetector) or MMSegmentation's segmentor.

    Raises:
        SuiteError: the folder holds no finished fine-tuning run.
    """
    run = as_path("source", source)
    package = str(read_config_file(run / "config.json")["package"])
    prepare(package)
    if package == "classification":
        from classification.classifier import load_classifier

        return load_classifier(run)
    if package == "detection":
        from detection.finished import load_detector

        return load_detector(run)
    if package == "segmentation":
        from segmentation.use import load_run

        return load_run(run)[0]
    raise ConfigError(f"{run} holds a {package} run, which trained no more than an encoder: load_encoder loads it")
