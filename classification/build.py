"""The network of a run: built, started from pre-trained weights, and its encoder written out at the end."""

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from backbones import Backbone, LoadReport, build_classifier, load_weights, save_backbone
from classification.config import ClassificationConfig
from classification.probe import LinearProbe, folded
from engine.data.options import in_channels
from engine.errors import ConfigError


def build_network(config: ClassificationConfig, num_classes: int) -> nn.Module:
    """The timm network with a fresh classifier, initialised from the seed: (B, 3, H, W) -> (B, num_classes).

    Raises:
        ConfigError: it cannot be evaluated at augment.test_size.
        BackboneError: the name, the size or the drop path do not fit a timm network.
    """
    torch.manual_seed(config.seed)
    network = build_classifier(
        config.model,
        num_classes,
        image_size=config.image_size,
        drop_path=config.drop_path,
        **in_channels(config.data.mean),
    )
    test_size = config.augment.test_size
    if test_size != config.image_size:
        try:
            with torch.no_grad():
                network.eval()(torch.zeros(1, len(config.data.mean), test_size, test_size))
        except (AssertionError, RuntimeError, ValueError) as error:
            raise ConfigError(
                f"{config.model} built for image_size {config.image_size} cannot be tested at augment.test_size "
                f"{test_size} ({error}): use the same size for both"
            ) from error
        network.train()
    return network


def classifier_prefix(network: nn.Module) -> str:
    """How the names of the classifier's parameters begin ("fc.", "head.fc.", ...)."""
    layer = network.get_classifier()  # type: ignore[operator]
    return next(f"{name}." for name, module in network.named_modules() if module is layer)


def load_encoder(network: nn.Module, source: str) -> LoadReport:
    """Load a file's encoder into a timm network whose classifier alone may be absent from it.

    Raises:
        WeightsError: the weights do not fit; the network is unchanged.
    """
    return load_weights(network, source, allow_missing=[classifier_prefix(network)])


def is_convolutional(network: nn.Module, in_channels: int = 3) -> bool:
    """Whether all feature maps are (B, C, h, w), so that the channels-last memory format pays."""
    return Backbone(copy.deepcopy(network), in_channels=in_channels).is_cnn


def trainable(network: nn.Module, config: ClassificationConfig) -> nn.Module:
    """The network as it is trained: whole, or only its classifier for a frozen encoder."""
    return LinearProbe(network, standardise=config.standardise) if config.freeze == "encoder" else network


def network_state(config: ClassificationConfig, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state of the timm network in that of the module which was trained."""
    if config.freeze == "none":
        return state
    return folded(state, classifier_prefix(build_classifier(config.model, 2, image_size=config.image_size)))


def export_encoder(
    path: Path, config: ClassificationConfig, own: dict[str, Tensor], description: dict[str, Any]
) -> None:
    """Write the trained encoder, without classifier, under timm's names.

    Args:
        path: of the safetensors file.
        config: of the run.
        own: the trained network's state.
        description: stored in the file's header, beside name, image size, mean and standard deviation.
    """
    # A fresh network, because the trained one may hold layers (SyncBatchNorm) that run on a GPU only.
    mean = config.data.mean
    network = build_classifier(config.model, num_classes=2, image_size=config.image_size, **in_channels(mean))
    encoder = Backbone(network, name=config.model, image_size=config.image_size, in_channels=len(mean))
    encoder.net.load_state_dict({name: own[name] for name in encoder.net.state_dict()})
    save_backbone(path, encoder, {"mean": mean, "std": config.data.std, **description})
