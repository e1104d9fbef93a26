"""What every task shares about models: encoders from timm, and their weights in everybody's key names.

Names are imported when they are first used: a family or an error needs neither torch nor timm, and help texts use both.
"""

import importlib
from typing import TYPE_CHECKING, Any

from .architectures import IMAGENET_MEAN, IMAGENET_STD, PUBLISHED, find_architecture
from .errors import BackboneError, WeightsError, WeightsFileError
from .family import family

if TYPE_CHECKING:
    from .build import build_backbone, build_classifier
    from .encoder import Backbone
    from .entry import Entry
    from .source import Encoder, load_encoder
    from .weights.keymaps import to_detectron2, to_openmixup, to_torchvision
    from .weights.load import LoadReport, load_weights, read_weights, save_backbone

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "PUBLISHED",
    "Backbone",
    "BackboneError",
    "Encoder",
    "Entry",
    "LoadReport",
    "WeightsError",
    "WeightsFileError",
    "build_backbone",
    "build_classifier",
    "family",
    "find_architecture",
    "load_encoder",
    "load_weights",
    "read_weights",
    "save_backbone",
    "to_detectron2",
    "to_openmixup",
    "to_torchvision",
]

_HOME = {
    "build": ("build_backbone", "build_classifier"),
    "encoder": ("Backbone",),
    "entry": ("Entry",),
    "source": ("Encoder", "load_encoder"),
    "weights.keymaps": ("to_detectron2", "to_openmixup", "to_torchvision"),
    "weights.load": ("LoadReport", "load_weights", "read_weights", "save_backbone"),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOME.items():
        if name in names:
            return getattr(importlib.import_module(f".{module}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
