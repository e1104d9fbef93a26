"""The classifier in a file of weights, where it is one that can be used as it is."""

from typing import Any

import torch
from torch import nn

from backbones.architectures import IMAGENET_MEAN, IMAGENET_STD, PUBLISHED, find_architecture
from backbones.build import build_classifier

from .files import WeightsFile
from .fit import fit_file
from .released import PREFIX, released

_HEADS = ("fc", "head.fc", "head", "classifier")
_IMAGENET = 1000


def build_head(file: WeightsFile, model: str, image_size: int, source: str) -> nn.Module | None:
    """The network `model` with encoder and classifier from the file; None if the file has no classifier, or one whose
    names do not tell how it pools (a plain ViT's)."""
    weight = next((file.state[f"{head}.weight"] for head in _HEADS if f"{head}.weight" in file.state), None)
    if weight is None or weight.ndim not in (2, 4):
        return None
    plain = find_architecture(model).family == "vit" and model not in PUBLISHED
    if plain and ("fc_norm.weight" in file.state or file.convention not in ("timm", "torchvision")):
        return None
    with torch.random.fork_rng(devices=[]):
        network = build_classifier(model, weight.shape[0], image_size=image_size)
    fit = fit_file(network, file, source)
    if fit.problems:
        return None
    network.load_state_dict(fit.fitting, strict=False)
    return network


def head_description(file: WeightsFile, model: str, image_size: int, network: Any, source: str) -> dict[str, Any]:
    """What `python -m classification evaluate` needs to know: names of the classes (ImageNet's for a thousand, else the
    file's own, else numbers) and how an image is brought to the network (RSB's crop for the published files that were
    fine-tuned so, else the usual one)."""
    num_classes = int(network.num_classes)
    entry = next((e for e in released().values() if source in (f"{PREFIX}{e.name}", e.file)), None)
    classes = file.description.get("classes")
    if not isinstance(classes, list) or len(classes) != num_classes:
        classes = _synsets() if num_classes == _IMAGENET else [str(number) for number in range(num_classes)]
    return {
        "model": model,
        "image_size": image_size,
        "classes": classes,
        "preprocessing": {
            "test_size": image_size,
            "crop_pct": 0.95 if entry is not None and entry.protocol.startswith("rsb") else 0.875,
            "interpolation": "bicubic",
            "mean": list(IMAGENET_MEAN),
            "std": list(IMAGENET_STD),
            **(file.description.get("preprocessing") or {}),
        },
    }


def _synsets() -> list[str]:
    """ImageNet-1K's folders, in the order of its logits."""
    from timm.data.imagenet_info import ImageNetInfo

    information: Any = ImageNetInfo("imagenet-1k")
    return [str(name) for name in information.label_names()]
