"""The classifier that a run leaves: one file with head, class names and preprocessing, for us and for timm.

classifier.safetensors   the whole timm network; its header says what build_network and the preprocessing need
timm/                    the same weights with the config.json that timm.create_model("local-dir:RUN/timm") reads
"""

import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import Tensor, nn

from backbones import IMAGENET_MEAN, IMAGENET_STD, build_classifier
from backbones.weights.export.timm_folder import timm_config
from backbones.weights.files import WeightsFile, open_weights, write_weights
from backbones.weights.importing import import_weights, save_imported
from backbones.weights.released import PREFIX
from classification.augment import Statistics
from classification.config import AugmentConfig, ClassificationConfig
from engine import use
from engine.data.options import in_channels
from engine.errors import ConfigError
from engine.run import storage

FILE = "classifier.safetensors"
_NEEDED = {"model", "image_size", "classes", "preprocessing"}
"""What the header of one says."""


@dataclass(frozen=True)
class Classifier:
    """A trained classifier.

    Args:
        network: in evaluation mode, on the CPU: normalised images (B, 3, H, W) to logits (B, K).
        classes: names of the K classes.
        augment: of which the evaluation part says how an image is brought to the network.
        statistics: mean and standard deviation that it is normalised with.
    """

    network: nn.Module
    classes: tuple[str, ...]
    augment: AugmentConfig
    statistics: Statistics = (IMAGENET_MEAN, IMAGENET_STD)


def export_classifier(
    run_dir: Path,
    config: ClassificationConfig,
    state: dict[str, Tensor],
    classes: tuple[str, ...],
    description: dict[str, Any],
) -> None:
    """Write classifier.safetensors and timm/ into a run folder.

    Args:
        run_dir: of the run.
        config: of the run.
        state: the trained timm network's state.
        classes: their names, in the order of the logits.
        description: what the header says of the training.
    """
    header: dict[str, Any] = {
        **description,
        "model": config.model,
        "image_size": config.image_size,
        "classes": list(classes),
        "preprocessing": {
            "test_size": config.augment.test_size,
            "crop_pct": config.augment.crop_pct,
            "interpolation": config.augment.interpolation,
            "mean": config.data.mean,
            "std": config.data.std,
        },
    }
    write_weights(run_dir / FILE, state, header)
    folder = run_dir / "timm"
    folder.mkdir(exist_ok=True)
    storage.write_json(
        folder / "config.json",
        timm_config(
            config.model,
            config.image_size,
            classes=classes,
            num_classes=len(classes),
            statistics={"mean": config.data.mean, "std": config.data.std},
            preprocessing=header["preprocessing"],
        ),
    )
    copy = folder / "model.safetensors"
    copy.unlink(missing_ok=True)
    try:
        os.link(run_dir / FILE, copy)
    except OSError:  # a file system without hard links
        shutil.copyfile(run_dir / FILE, copy)


def load_classifier(source: Path) -> Classifier:
    """The classifier of a finished run, of its classifier.safetensors alone, of anybody's file, or of released:NAME.

    Raises:
        ConfigError: there is none.
        WeightsError: the file is damaged or of another kind.
    """
    path = source / FILE if source.is_dir() else source
    if not (path.is_file() or str(source).startswith(PREFIX)):
        use.stored_config(source, "classification", ClassificationConfig)
        raise use.not_finished("classification", source, FILE)
    weights = open_weights(path)
    if not weights.description.keys() >= _NEEDED:
        weights = _foreign(str(path))
    header = weights.description
    classes, preprocessing = tuple(header["classes"]), header["preprocessing"]
    mean = tuple(preprocessing.get("mean", IMAGENET_MEAN))
    std = tuple(preprocessing.get("std", IMAGENET_STD))
    size = header["image_size"]
    network = build_classifier(header["model"], len(classes), image_size=size, **in_channels(mean))
    network.load_state_dict(weights.state)
    known = {name: preprocessing[name] for name in asdict(AugmentConfig()) if name in preprocessing}
    return Classifier(network.eval(), classes, AugmentConfig(**known), (mean, std))


def _foreign(source: str) -> WeightsFile:
    """A file of others, or an encoder of ours, as our own command makes one of it (python -m backbones import).

    Raises ConfigError where it has no classifier that can be used.
    """
    imported = import_weights(source)
    if imported.classifier is None:
        raise ConfigError(
            f"{source} is no {FILE} of a classification run: it holds an encoder and no classifier that could be used "
            f"(python -m backbones import {source} says what is in it)"
        )
    with TemporaryDirectory() as folder:
        save_imported(imported, Path(folder) / FILE)
        return open_weights(Path(folder) / FILE)
