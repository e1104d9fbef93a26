"""What is to be given away: a network with its weights, and what is known of how they came about."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from backbones.architectures import IMAGENET_MEAN, IMAGENET_STD, find_architecture
from backbones.build import build_backbone, build_classifier
from backbones.encoder import Backbone
from backbones.errors import WeightsError
from backbones.weights.files import OUR_FILE, open_weights
from backbones.weights.keymaps import State
from backbones.weights.load import load_weights

CLASSIFIER_FILE = "classifier.safetensors"
"""Name of the classifier in the folder of a classification run."""
_HEADS = ("fc.", "head.fc.", "head.", "classifier.")
_ELSEWHERE = {
    "detection": "`python -m detection export RUN FILE.pth` writes a whole detector",
    "segmentation": "`python -m segmentation export RUN DIR` writes a whole segmentor",
}


@dataclass(frozen=True)
class Trained:
    """A network with weights.

    Args:
        model: the published or timm name it was built from, or one's own `module:Name`.
        net: a timm network, or one's own, in evaluation mode: with its classifier if it has one.
        image_size: side of the images in pixels that it was built for.
        description: of the weights: method, epochs, ...; what their file says.
        classes: names of the classes; empty for an encoder, and where the file names none.
        num_classes: 0 for an encoder.
        mean, std: what images are normalised with, one value a channel, for pixels between 0 and 1.
        remarks: what had to be assumed, one sentence each.
        run_dir: the run it came from, if it was one.
    """

    model: str
    net: nn.Module
    image_size: int
    description: dict[str, Any]
    classes: tuple[str, ...] = ()
    num_classes: int = 0
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    remarks: tuple[str, ...] = ()
    run_dir: Path | None = None
    preprocessing: dict[str, Any] = field(default_factory=dict)
    """Test size, crop share and interpolation of a classifier."""

    @property
    def state(self) -> State:
        """The weights under timm's names."""
        return dict(self.net.state_dict())

    @property
    def in_channels(self) -> int:
        """Of its images."""
        return len(self.mean)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        return self.in_channels, self.image_size, self.image_size

    @property
    def header(self) -> dict[str, Any]:
        """What files that are given away say of themselves."""
        head = {"classes": list(self.classes)} if self.classes else {}
        own = {"name": self.model, "image_size": self.image_size, "mean": list(self.mean), "std": list(self.std)}
        return {"method": None, "epochs": None, "config_hash": None, **self.description, **own, **head}

    def encoder(self) -> Backbone:
        """The same as an encoder, which shares the weights; its classifier is gone from `net` afterwards."""
        return Backbone(self.net, name=self.model, image_size=self.image_size, in_channels=self.in_channels)


def read_trained(
    source: Path, *, model: str | None = None, image_size: int | None = None, encoder_only: bool = False
) -> Trained:
    """The classifier or encoder of a run folder, or of a file of weights in anybody's names.

    Args:
        source: the folder of a pre-training or classification run, or a file.
        model: the network, where the file does not say it.
        image_size: side of its images in pixels, where the file does not say it (default 224).
        encoder_only: take a classification run's encoder.

    Raises:
        WeightsFileError: there is no such file, or it is damaged.
        WeightsError: it is a run of another task, no network is named, or the weights are not of that network.
        BackboneError: there is no such network.
    """
    path = _file_of(source, encoder_only=encoder_only)
    file = open_weights(path)
    told = dict(file.description)
    name = model or told.get("name") or told.get("model")
    if not isinstance(name, str):
        raise WeightsError(
            f"{source} does not say which network it holds: add --model NAME (r50, vit_b, ... or a name of timm)."
        )
    preprocessing = told.pop("preprocessing", {})
    mean, std = (told.get(key) or preprocessing.get(key) for key in ("mean", "std"))
    remarks = list(file.remarks)
    if not mean or not std:
        remarks.append("the file does not say how images are normalised: taken as ImageNet's mean and deviation")
    size = image_size or told.get("image_size") or 224
    classes = tuple(told.pop("classes", ()))
    num_classes = 0 if encoder_only else len(classes) or _classifier_rows(file.state)
    options: dict[str, Any] = {"in_chans": len(mean)} if mean and len(mean) != 3 else {}
    if num_classes:
        net = build_classifier(name, num_classes, image_size=size, **options)
        load_weights(net, path)
    else:
        if "fc_norm.weight" in file.state and find_architecture(name).is_vit:
            options["global_pool"] = "avg"  # the norm stays where its classifier had it
        encoder = build_backbone(name, image_size=size, **options)
        load_weights(encoder, path)
        net = encoder.net
    for key in ("name", "model", "image_size"):
        told.pop(key, None)
    return Trained(
        model=name,
        net=net.eval(),
        image_size=size,
        description=told,
        classes=classes if len(classes) == num_classes else (),
        num_classes=num_classes,
        mean=tuple(mean or IMAGENET_MEAN),
        std=tuple(std or IMAGENET_STD),
        remarks=tuple(remarks),
        run_dir=source if source.is_dir() else None,
        preprocessing=preprocessing,
    )


def _file_of(source: Path, *, encoder_only: bool) -> Path:
    if not source.is_dir():
        return source
    if (source / CLASSIFIER_FILE).is_file() and not encoder_only:
        return source / CLASSIFIER_FILE
    if not (source / OUR_FILE).is_file() and (task := _task_of(source)) in _ELSEWHERE:
        raise WeightsError(f"{source} is a {task} run, which leaves no encoder of its own: {_ELSEWHERE[task]}.")
    return source


def _task_of(run_dir: Path) -> str:
    try:
        return str(json.loads((run_dir / "config.json").read_text()).get("package"))
    except (OSError, ValueError, AttributeError):
        return ""


def _classifier_rows(state: State) -> int:
    """How many classes the classifier in `state` has; 0 if there is none."""
    weights = (state.get(f"{head}weight") for head in _HEADS)
    return next((weight.shape[0] for weight in weights if weight is not None and weight.ndim >= 2), 0)
