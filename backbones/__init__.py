"""What every task shares about models: encoders from timm, and their weights in everybody's key names."""

from .architectures import PUBLISHED, find_architecture
from .build import Backbone, build_backbone, build_classifier
from .entry import Entry
from .errors import BackboneError, WeightsError, WeightsFileError
from .weights.keymaps import to_detectron2, to_openmixup, to_torchvision
from .weights.load import LoadReport, export_weights, load_weights, read_weights, save_backbone

__all__ = [
    "PUBLISHED",
    "Backbone",
    "BackboneError",
    "Entry",
    "LoadReport",
    "WeightsError",
    "WeightsFileError",
    "build_backbone",
    "build_classifier",
    "export_weights",
    "find_architecture",
    "load_weights",
    "read_weights",
    "save_backbone",
    "to_detectron2",
    "to_openmixup",
    "to_torchvision",
]
