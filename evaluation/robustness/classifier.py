"""A classifier from wherever it is: a fine-tuned run, its file, a folder as timm writes it, or timm's own by name.

B batch, K classes, H W pixels.
"""

import hashlib
import json
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import timm
import torch
from PIL import Image
from timm.data.config import resolve_data_config
from timm.data.transforms_factory import create_transform
from torch import Tensor, nn
from torchvision import transforms

from backbones import IMAGENET_MEAN, IMAGENET_STD, WeightsError
from backbones.source import timm_file, weights_digest
from backbones.weights.files import open_weights
from classification.augment import evaluation_transform, resized_side
from classification.classifier import FILE, load_classifier
from engine.errors import ConfigError
from evaluation.robustness.facts import imagenet_classes

TIMM = "timm:"
_TIMM_WEIGHTS = ("model.safetensors", "pytorch_model.bin")

log = logging.getLogger("mim")


@dataclass(frozen=True, kw_only=True)
class LoadedClassifier:
    """A classifier with what it needs to be fed; what evaluation.run.Subject asks for."""

    reference: str
    """As it was asked for."""
    name: str
    """What tables and folders call it."""
    source: str
    """The file of its weights."""
    model: str
    """Name of the network."""
    network: nn.Module
    """In evaluation mode: normalised images (B, 3, H, W) to logits (B, K)."""
    classes: tuple[str, ...]
    """Names of the K classes; ImageNet's are wnids."""
    transform: Callable[[Image.Image], Tensor]
    """PIL image to uint8 tensor (3, H, W): its own evaluation."""
    preprocessing: Mapping[str, Any]
    """test_size, the short side before the crop, crop_pct, interpolation, mean and std."""
    description: dict[str, Any] = field(default_factory=dict)
    """What the file says of its training; {} for other people's."""

    @cached_property
    def digest(self) -> str:
        """sha256 over its tensors and how it is fed: both make its numbers."""
        how = json.dumps({**self.preprocessing, "classes": self.classes}, sort_keys=True)
        return hashlib.sha256(f"{weights_digest(self.network.state_dict())} {how}".encode()).hexdigest()

    @property
    def method(self) -> str:
        """How it was made, as far as its file tells."""
        return str(self.description.get("method", ""))

    @property
    def image_size(self) -> int:
        """Side in pixels of the images it is tested at."""
        return int(self.preprocessing["test_size"])

    def as_it_is(self, image: Image.Image) -> Tensor:
        """The transform for pictures that were cropped before they were corrupted: those of the test size stay as they
        are, others are resized to it, with nothing cut off a square one. PIL image to uint8 (3, H, W)."""
        if image.size != (self.image_size, self.image_size):
            mode = transforms.InterpolationMode(self.preprocessing["interpolation"])
            resize = transforms.Resize(self.image_size, interpolation=mode)
            image = transforms.CenterCrop(self.image_size)(resize(image))
        array: Tensor = transforms.PILToTensor()(image)
        return array

    def normalise(self, images_bchw: Tensor) -> Tensor:
        """uint8 (B, 3, H, W) to float32 with the mean and deviation that it was trained with."""
        pair = torch.tensor([self.preprocessing["mean"], self.preprocessing["std"]], device=images_bchw.device) * 255
        return (images_bchw.float() - pair[0].view(1, 3, 1, 1)) / pair[1].view(1, 3, 1, 1)


def load(reference: str, *, image_size: int | None = None) -> LoadedClassifier:
    """The classifier of a fine-tuned run (its folder or its classifier.safetensors), of a timm folder (config.json
    beside model.safetensors, as the hub gives it and as RUN/timm is), or `timm:NAME` with timm's pretrained weights.

    Args:
        reference: what to load.
        image_size: None, or the size it is tested at: it brings its own.

    Raises:
        ConfigError: there is no classifier: an encoder alone cannot be tested so; or another size is asked for.
        WeightsError: a file is damaged, or does not fit its configuration.
        WeightsFileError: timm's weights are not in its cache.
    """
    found = _by_name(reference) if reference.startswith(TIMM) else _from_disk(reference)
    if image_size not in (None, found.image_size):
        raise ConfigError(f"image_size: {image_size}: {reference} is tested at {found.image_size} pixels: leave it out")
    return found


def _from_disk(reference: str) -> LoadedClassifier:
    path = Path(reference)
    if not path.exists() and reference.startswith(("random:", "released:")):
        raise ConfigError(
            f"{reference} is an encoder, and the robustness sets test a classifier: fine-tune it first (python -m "
            f"classification RECIPE --init {'none' if reference.startswith('random:') else reference} ...)"
        )
    if not path.exists():
        raise ConfigError(f"{reference}: there is no such run folder or file ({TIMM}NAME for one of timm's)")
    folder = path if path.is_dir() else path.parent
    is_timm = (folder / "config.json").is_file() and "architecture" in _read(folder / "config.json")
    return _of_timm(reference, folder, path) if is_timm and path.name != FILE else _of_run(reference, path)


def _of_run(reference: str, path: Path) -> LoadedClassifier:
    try:
        found = load_classifier(path)
    except ConfigError as error:
        raise ConfigError(
            f"{error}. The robustness sets test a classifier: fine-tune the encoder first (python -m classification "
            f"RECIPE --init {reference} ...)"
        ) from error
    weights, augment = path / FILE if path.is_dir() else path, found.augment
    description = open_weights(weights).description
    preprocessing = {
        "test_size": augment.test_size,
        "short_side": resized_side(augment),
        "crop_pct": augment.crop_pct,
        "interpolation": "bilinear" if augment.interpolation == "random" else augment.interpolation,
        "mean": tuple(IMAGENET_MEAN),
        "std": tuple(IMAGENET_STD),
    }
    return LoadedClassifier(
        reference=reference,
        name=_label(path),
        source=str(weights),
        model=str(description["model"]),
        network=found.network,
        classes=found.classes,
        transform=evaluation_transform(augment),
        preprocessing=preprocessing,
        description={key: value for key, value in description.items() if key not in ("classes", "preprocessing")},
    )


def _label(path: Path) -> str:
    """The name of a run folder, of the run that a timm folder is of, or of a file without its suffix."""
    path = path.absolute()
    if path.name in (FILE, "timm", *_TIMM_WEIGHTS) and path.parent.name:
        return _label(path.parent)
    return re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem if path.is_file() else path.name).strip("-.") or "classifier"


def _of_timm(reference: str, folder: Path, path: Path) -> LoadedClassifier:
    """A folder with timm's config.json; its weights are read without running anything in them."""
    names = [path.name] if path.is_file() else [name for name in _TIMM_WEIGHTS if (folder / name).is_file()]
    if not names:
        raise ConfigError(f"{folder}: no {' and no '.join(_TIMM_WEIGHTS)} beside its config.json")
    weights, stored = folder / names[0], _read(folder / "config.json")
    model = str(stored["architecture"])
    arguments = {**(stored.get("model_args") or {}), "num_classes": stored.get("num_classes", 1000)}
    try:
        network = timm.create_model(model, pretrained=False, **arguments)
    except (RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ConfigError(f"{folder / 'config.json'}: timm cannot build it: {reason}") from error
    description = _fill(network, weights, model)
    labels = description.get("classes") or stored.get("label_names")
    return LoadedClassifier(
        reference=reference,
        name=_label(path),
        source=str(weights),
        model=model,
        network=network.eval(),
        classes=_classes(reference, network, labels, known="classes" in description),
        **_feeding(reference, stored.get("pretrained_cfg") or {}),
        description={key: value for key, value in description.items() if key not in ("classes", "preprocessing")},
    )


def _by_name(reference: str) -> LoadedClassifier:
    name = reference.removeprefix(TIMM)
    weights = timm_file(name)
    config: Any = timm.get_pretrained_cfg(name)
    network = timm.create_model(name, pretrained=False, num_classes=config.num_classes)
    _fill(network, weights, name)
    return LoadedClassifier(
        reference=reference,
        name=name,
        source=str(weights),
        model=name,
        network=network.eval(),
        classes=_classes(reference, network, config.label_names),
        **_feeding(reference, config.to_dict()),
        description={"method": f"timm {name}"},
    )


def _fill(network: nn.Module, weights: Path, name: str) -> dict[str, Any]:
    """Load a file whole, or nothing; returns what it says of itself."""
    file = open_weights(weights)
    try:
        network.load_state_dict(file.state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise WeightsError(f"{weights} does not fit {name}: {reason}") from error
    return file.description


def _feeding(reference: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """timm's own evaluation of a pretrained configuration: `transform` and `preprocessing`."""
    chosen = resolve_data_config({}, pretrained_cfg=dict(settings))  # type: ignore[no-untyped-call]
    height, width = chosen["input_size"][1:]
    if height != width:
        raise ConfigError(f"{reference}: it is tested at {height}x{width} pixels; only squares are known here")
    named = {name: chosen[name] for name in ("crop_pct", "interpolation")}
    statistics = {name: tuple(chosen[name]) for name in ("mean", "std")}
    return {
        "transform": create_transform(**{**chosen, "normalize": False}),
        "preprocessing": {"test_size": height, "short_side": int(height / chosen["crop_pct"]), **named, **statistics},
    }


def _classes(reference: str, network: Any, names: Any, *, known: bool = False) -> tuple[str, ...]:
    """The names of the classes. timm's ImageNet models, which have none or words, are in ImageNet's order; `known`
    are those that a run of the suite wrote."""
    number, imagenet = int(network.num_classes), imagenet_classes()
    named = isinstance(names, list | tuple) and len(names) == number
    if named and (known or number != len(imagenet) or set(names) == set(imagenet)):
        return tuple(map(str, names))
    if number == len(imagenet):
        log.info("%s: its 1000 classes are taken for ImageNet's, in their order", reference)
        return imagenet
    raise ConfigError(f"{reference}: it has {number:,} classes without names, which are not the 1000 of ImageNet-1k")


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not a readable configuration ({error})") from error
    return found if isinstance(found, dict) else {}
