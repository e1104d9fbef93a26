"""A classifier from wherever it is: a fine-tuned run, its file, a folder as timm writes it, or timm's own by name.

B batch, K classes, H W pixels.
"""

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
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
from classification.augment import evaluation_transform
from classification.classifier import FILE, load_classifier
from engine.errors import ConfigError
from evaluation.robustness.facts import imagenet_classes

TIMM = "timm:"
_TIMM_WEIGHTS = ("model.safetensors", "pytorch_model.bin")

log = logging.getLogger("mim")


@dataclass(frozen=True)
class LoadedClassifier:
    """A classifier with what it needs to be fed.

    Args:
        source: as it was asked for.
        network: in evaluation mode, on the CPU: normalised images (B, 3, H, W) to logits (B, K).
        classes: names of the K classes; ImageNet's are wnids.
        transform: PIL image to uint8 tensor (3, H, W), its own evaluation preprocessing.
        preprocessing: model, test_size, crop_pct, interpolation, mean and std, for the record.
    """

    source: str
    network: nn.Module
    classes: tuple[str, ...]
    transform: Callable[[Image.Image], Tensor]
    preprocessing: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """sha256 over its tensors, wherever they are stored."""
        return weights_digest(self.network.state_dict())

    @property
    def test_size(self) -> int:
        """Side in pixels of the images it is tested at."""
        return int(self.preprocessing["test_size"])

    def as_it_is(self, image: Image.Image) -> Tensor:
        """The transform for pictures that were cropped before they were corrupted: those of the test size stay as they
        are, others are resized to it, with nothing cut off a square one. PIL image to uint8 (3, H, W)."""
        if image.size != (self.test_size, self.test_size):
            mode = transforms.InterpolationMode(self.preprocessing["interpolation"])
            resize = transforms.Resize(self.test_size, interpolation=mode)
            image = transforms.CenterCrop(self.test_size)(resize(image))
        array: Tensor = transforms.PILToTensor()(image)
        return array

    def normalise(self, images_bchw: Tensor) -> Tensor:
        """uint8 (B, 3, H, W) to float32 with the mean and deviation that it was trained with."""
        pair = torch.tensor([self.preprocessing["mean"], self.preprocessing["std"]], device=images_bchw.device) * 255
        return (images_bchw.float() - pair[0].view(1, 3, 1, 1)) / pair[1].view(1, 3, 1, 1)


def open_classifier(source: str) -> LoadedClassifier:
    """The classifier of a fine-tuned run (its folder or its classifier.safetensors), of a timm folder (config.json
    beside model.safetensors, as the hub gives it and as RUN/timm is), or `timm:NAME` with timm's pretrained weights.

    Raises:
        ConfigError: there is no classifier: an encoder alone cannot be tested so.
        WeightsError: a file is damaged, or does not fit its configuration.
    """
    if source.startswith(TIMM):
        return _by_name(source)
    path = Path(source)
    folder = path if path.is_dir() else path.parent
    if not (folder if path.is_dir() else path).exists():
        raise ConfigError(f"{source}: there is no such run folder or file ({TIMM}NAME for one of timm's)")
    is_timm = (folder / "config.json").is_file() and "architecture" in _read(folder / "config.json")
    if is_timm and path.name != FILE:
        return _from_timm_folder(source, folder, path)
    return _of_run(source, path)


def _of_run(source: str, path: Path) -> LoadedClassifier:
    try:
        found = load_classifier(path)
    except ConfigError as error:
        raise ConfigError(
            f"{error}. The robustness sets test a classifier: fine-tune the encoder first (python -m classification "
            f"RECIPE --init {source} ...)"
        ) from error
    augment = found.augment
    preprocessing = {
        "model": _model_name(path),
        "test_size": augment.test_size,
        "crop_pct": augment.crop_pct,
        "interpolation": "bilinear" if augment.interpolation == "random" else augment.interpolation,
        "mean": tuple(IMAGENET_MEAN),
        "std": tuple(IMAGENET_STD),
    }
    return LoadedClassifier(source, found.network, found.classes, evaluation_transform(augment), preprocessing)


def _model_name(path: Path) -> str:
    return str(open_weights(path / FILE if path.is_dir() else path).description["model"])


def _from_timm_folder(source: str, folder: Path, path: Path) -> LoadedClassifier:
    """A folder with timm's config.json; its weights are read without running anything in them."""
    names = [path.name] if path.is_file() else [name for name in _TIMM_WEIGHTS if (folder / name).is_file()]
    if not names:
        raise ConfigError(f"{folder}: no {' and no '.join(_TIMM_WEIGHTS)} beside its config.json")
    weights = folder / names[0]
    stored = _read(folder / "config.json")
    arguments = {**(stored.get("model_args") or {}), "num_classes": stored.get("num_classes", 1000)}
    try:
        network = timm.create_model(stored["architecture"], pretrained=False, **arguments)
    except (RuntimeError, TypeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0][:300]
        raise ConfigError(f"{folder / 'config.json'}: timm cannot build it: {reason}") from error
    _fill(network, weights, stored["architecture"])
    return _timm_classifier(
        source,
        network,
        {**(stored.get("pretrained_cfg") or {}), **{n: stored.get(n) for n in ("architecture", "label_names")}},
    )


def _by_name(source: str) -> LoadedClassifier:
    name = source.removeprefix(TIMM)
    weights = timm_file(name)
    config: Any = timm.get_pretrained_cfg(name)
    network = timm.create_model(name, pretrained=False, num_classes=config.num_classes)
    _fill(network, weights, name)
    return _timm_classifier(source, network, config.to_dict())


def _fill(network: nn.Module, weights: Path, name: str) -> None:
    try:
        network.load_state_dict(open_weights(weights).state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise WeightsError(f"{weights} does not fit {name}: {reason}") from error


def _timm_classifier(source: str, network: nn.Module, settings: Mapping[str, Any]) -> LoadedClassifier:
    chosen = resolve_data_config({}, pretrained_cfg=dict(settings))  # type: ignore[no-untyped-call]
    height, width = chosen["input_size"][1:]
    if height != width:
        raise ConfigError(f"{source}: it is tested at {height}x{width} pixels; only squares are known here")
    preprocessing = {
        "model": str(settings.get("architecture") or type(network).__name__),
        "test_size": height,
        "crop_pct": chosen["crop_pct"],
        "interpolation": chosen["interpolation"],
        "mean": tuple(chosen["mean"]),
        "std": tuple(chosen["std"]),
    }
    transform: Any = create_transform(**{**chosen, "normalize": False})
    classes = _timm_classes(source, int(network.num_classes), settings.get("label_names"))  # type: ignore[arg-type]
    return LoadedClassifier(source, network.eval(), classes, transform, preprocessing)


def _timm_classes(source: str, number: int, names: Any) -> tuple[str, ...]:
    """The names of the classes; timm's ImageNet models, which have none or words, are in ImageNet's order."""
    named = isinstance(names, list) and len(names) == number
    if named and (number != len(imagenet_classes()) or set(names) == set(imagenet_classes())):
        return tuple(map(str, names))
    if number == len(imagenet_classes()):
        log.info("%s: its 1000 classes are taken for ImageNet's, in their order", source)
        return imagenet_classes()
    raise ConfigError(f"{source}: it has {number:,} classes without names, which are not the 1000 of ImageNet-1k")


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not a readable configuration ({error})") from error
    return found if isinstance(found, dict) else {}
