"""A network for torchvision: a state dictionary that its own class takes, and that was compared with it."""

from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import nn

from backbones.weights.keymaps import to_torchvision

from .counterparts import depths_of, refused, torchvision_name
from .trained import Trained
from .written import Written, bare_state, torch_bytes, write_hashed

_HEADS = ("fc.", "heads.", "head.", "classifier.2.")
_TOLERANCE = 1e-5


def write(trained: Trained, out: Path, stem: str) -> Written:
    """Write the state dictionary; its header is where torch keeps the versions of modules.

    Raises:
        WeightsError: torchvision has no such network, or one that computes otherwise.
        WeightsFileError: it cannot be written.
    """
    name = torchvision_name(trained.model, trained.net)
    if trained.in_channels != 3:
        raise refused(
            trained.model, f"it takes {trained.in_channels} channels, torchvision's networks 3; `--to timm` holds it"
        )
    code, theirs = _network(name, trained)
    state = to_torchvision(trained.state)
    own = theirs.state_dict()
    state |= {key: own[key] for key in own if key.endswith("relative_position_index")}
    lacking = [key for key in own.keys() - state.keys() if trained.num_classes or not key.startswith(_HEADS)]
    other = [key for key in state if key not in own or own[key].shape != state[key].shape]
    if lacking or other:
        raise refused(trained.model, f"torchvision's {name} differs in {', '.join(sorted([*lacking, *other])[:5])}")
    theirs.load_state_dict(state, strict=False)
    _compare(trained, theirs, name)
    path = write_hashed(out, stem, ".pth", torch_bytes(bare_state(state, trained.header)))
    strict = "" if trained.num_classes else ", strict=False"
    lines = (f"net = {code}", f'net.load_state_dict(torch.load("{path}"){strict})')
    remarks = (
        () if trained.num_classes else ("an encoder: the classifier of torchvision's network stays as it was made",)
    )
    return Written(path, lines, remarks)


def _network(name: str, trained: Trained) -> tuple[str, nn.Module]:
    """How torchvision makes the network, as code and made."""
    classes = trained.num_classes or 1000
    if name == "ResNet":
        depths = list(depths_of(trained.net))
        block = "torchvision.models.resnet.Bottleneck"
        made: nn.Module = torchvision.models.ResNet(torchvision.models.resnet.Bottleneck, depths, num_classes=classes)
        return f"torchvision.models.ResNet({block}, {depths}, num_classes={classes})", made
    options: dict[str, Any] = {"num_classes": classes}
    if name.startswith("vit"):
        options["image_size"] = trained.image_size
    arguments = ", ".join(f"{key}={value}" for key, value in options.items())
    made = torchvision.models.get_model(name, weights=None, **options)
    return f'torchvision.models.get_model("{name}", {arguments})', made


def _compare(trained: Trained, theirs: Any, name: str) -> None:
    """Refuse a network that does not compute what torchvision's does from the same weights."""
    theirs.eval()
    if not trained.num_classes:
        names = {name for name, _ in theirs.named_modules()}
        head = next(name for name in ("fc", "heads.head", "head", "classifier.2") if name in names)
        parent, _, last = head.rpartition(".")
        setattr(theirs.get_submodule(parent), last, nn.Identity())
    images = torch.randn(1, *trained.image_shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found, expected = theirs(images), trained.net(images)
    limit = _TOLERANCE * expected.abs().max().clamp(min=1e-12)
    if found.shape != expected.shape or (found - expected).abs().max() > limit:
        raise refused(trained.model, f"torchvision's {name} computes something else from the same weights")
