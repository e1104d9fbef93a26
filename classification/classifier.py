"""The classifier that a run leaves: one file with head, class names and preprocessing, for us and for timm.

classifier.safetensors   the whole timm network; its header says what build_network and the preprocessing need
timm/                    the same weights with the config.json that timm.create_model("local-dir:RUN/timm") reads
"""

import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from backbones import IMAGENET_MEAN, IMAGENET_STD, build_classifier, find_architecture
from backbones.weights.files import open_weights, write_weights
from classification.config import AugmentConfig, ClassificationConfig
from engine.errors import ConfigError
from engine.run import storage

FILE = "classifier.safetensors"


@dataclass(frozen=True)
class Classifier:
    """A trained classifier.

    Args:
        network: in evaluation mode, on the CPU: normalised images (B, 3, H, W) to logits (B, K).
        classes: names of the K classes.
        augment: of which the evaluation part says how an image is brought to the network.
    """

    network: nn.Module
    classes: tuple[str, ...]
    augment: AugmentConfig


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
    header = {
        **description,
        "model": config.model,
        "image_size": config.image_size,
        "classes": list(classes),
        "preprocessing": {
            "test_size": config.augment.test_size,
            "crop_pct": config.augment.crop_pct,
            "interpolation": config.augment.interpolation,
            "mean": IMAGENET_MEAN,
            "std": IMAGENET_STD,
        },
    }
    write_weights(run_dir / FILE, state, header)
    folder = run_dir / "timm"
    folder.mkdir(exist_ok=True)
    storage.write_json(folder / "config.json", timm_config(config, classes))
    copy = folder / "model.safetensors"
    copy.unlink(missing_ok=True)
    try:
        os.link(run_dir / FILE, copy)
    except OSError:  # a file system without hard links
        shutil.copyfile(run_dir / FILE, copy)


def timm_config(config: ClassificationConfig, classes: tuple[str, ...]) -> dict[str, Any]:
    """What timm needs to build and feed the network: its config.json."""
    architecture = find_architecture(config.model)
    options = {**architecture.options, **architecture.for_size(config.image_size)}
    pooling = {}
    if architecture.is_vit:
        pooling = {"global_pool": "token" if architecture.class_token_head else "avg"}
    size, interpolation = config.augment.test_size, config.augment.interpolation
    return {
        "architecture": architecture.timm_name,
        "num_classes": len(classes),
        "label_names": list(classes),
        "model_args": {**pooling, **options},
        "pretrained_cfg": {
            "num_classes": len(classes),
            "input_size": [3, size, size],
            "fixed_input_size": False,
            "crop_pct": config.augment.crop_pct,
            "interpolation": "bilinear" if interpolation == "random" else interpolation,
            "mean": IMAGENET_MEAN,
            "std": IMAGENET_STD,
        },
    }


def load_classifier(source: Path) -> Classifier:
    """The classifier of a finished run, or of its classifier.safetensors alone.

    Raises:
        ConfigError: there is none.
        WeightsError: the file is damaged or of another kind.
    """
    path = source / FILE if source.is_dir() else source
    if not path.is_file():
        raise ConfigError(
            f"{source} holds no {FILE}, which a classification run writes when it finishes (--resume continues one)"
        )
    weights = open_weights(path)
    header = weights.description
    if not {"model", "image_size", "classes", "preprocessing"} <= header.keys():
        raise ConfigError(f"{path} is no {FILE} of a classification run: its header names no classes")
    classes, preprocessing = tuple(header["classes"]), header["preprocessing"]
    network = build_classifier(header["model"], len(classes), image_size=header["image_size"])
    network.load_state_dict(weights.state)
    known = {name: preprocessing[name] for name in asdict(AugmentConfig()) if name in preprocessing}
    return Classifier(network.eval(), classes, AugmentConfig(**known))
