"""What every task shares about models: encoders from timm, and their weights in everybody's key names."""

from .architectures import PUBLISHED, find_architecture
from .build import Backbone, build_backbone, build_classifier
from .entry import Entry
from .errors import BackboneError, WeightsError, WeightsFileError

__all__ = [
    "PUBLISHED",
    "Backbone",
    "BackboneError",
    "Entry",
    "WeightsError",
    "WeightsFileError",
    "build_backbone",
    "build_classifier",
    "find_architecture",
]
