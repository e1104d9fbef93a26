"""A frozen encoder by reference: one spelling for everything whose features are measured or explained.

RUN_DIR          a finished run of this suite: pre-trained or fine-tuned
FILE             its backbone.safetensors, or any file of weights that says which network it is
MODEL=FILE       a file of weights that does not say it: resnet50=resnet50-0676ba61.pth
released:NAME    a published file by its name (`python -m backbones released`)
timm:NAME        timm's pre-trained weights, from its cache; nothing is downloaded
random:NAME      a network without training, the control; random:NAME@3 with seed 3
"""

import dataclasses
import hashlib
import importlib.util
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .architectures import IMAGENET_MEAN, IMAGENET_STD, find_architecture
from .build import build_backbone
from .encoder import Backbone
from .errors import BackboneError, WeightsFileError
from .weights.files import open_weights
from .weights.load import load_weights
from .weights.released import fetch_weights, find_released

_HUB_FILES = ("model.safetensors", "pytorch_model.bin", "open_clip_model.safetensors", "open_clip_pytorch_model.bin")


@dataclass(frozen=True)
class Encoder:
    """A frozen encoder: in evaluation mode, without gradients, on the CPU."""

    reference: str
    """As it was asked for."""
    name: str
    """What tables and folders call it: letters, digits and . _ - alone."""
    backbone: Backbone
    digest: str
    """sha256 over names, types, shapes and values of its tensors: the same weights have the same, whatever their
    file."""
    mean: tuple[float, ...]
    """Of the pixel values between 0 and 1 that it is given."""
    std: tuple[float, ...]
    method: str
    """How its weights were made, as the method calls itself: "a2mim", "supervised", "none" without training; "" where
    nothing tells."""
    source: str
    """The file of the weights; "" for a network without training."""
    description: dict[str, Any] = field(default_factory=dict)
    """What the file says of itself: epochs, hash of the configuration, ...; {} for other people's."""

    @property
    def model(self) -> str:
        """Name of the network, a published or timm's."""
        return self.backbone.name

    @property
    def image_size(self) -> int:
        """Side in pixels of the images that it was built for."""
        return self.backbone.image_size


@dataclass(frozen=True)
class _Found:
    """What a reference leads to."""

    model: str
    name: str
    path: Path | None = None
    seed: int = 0
    facts: Mapping[str, Any] = field(default_factory=dict)
    """mean, std, image_size and method, where something beside the file tells them."""


def load_encoder(reference: str, *, image_size: int | None = None) -> Encoder:
    """The encoder that a reference means (the head of this file lists the spellings).

    Args:
        reference: what to load.
        image_size: side in pixels of the images it will see; by default that of its pre-training. Tables of positions
            are resized.

    Raises:
        BackboneError: the reference or the network does not exist, or nothing says which network a file is of.
        WeightsError: the file does not fit the network.
        WeightsFileError: the file is missing, damaged, or would have to run code; or timm's are not in its cache.
    """
    found = _find(reference)
    description: dict[str, Any] = {}
    if found.path is not None:
        description = open_weights(found.path).description
        model = found.model or description.get("name") or description.get("model")
        if not isinstance(model, str):
            raise BackboneError(
                f"{found.path} does not say which network it is of: write MODEL={found.path}, with a published or timm "
                "name for MODEL"
            )
        found = dataclasses.replace(found, model=model)
    facts = {**found.facts, **{name: value for name, value in description.items() if value is not None}}
    mean, std = (tuple(facts.get(name, known)) for name, known in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)))
    size = image_size or int(facts.get("image_size", 224))
    backbone = _build(found, size, len(mean))
    if found.path is not None:
        load_weights(backbone, found.path)
    backbone.requires_grad_(False).eval()
    return Encoder(
        reference=reference,
        name=re.sub(r"[^A-Za-z0-9._-]+", "-", found.name).strip("-.") or "encoder",
        backbone=backbone,
        digest=weights_digest(backbone.net.state_dict()),
        mean=mean,
        std=std,
        method=str(facts.get("method", "")),
        source="" if found.path is None else str(found.path),
        description=description,
    )


def timm_file(name: str) -> Path:
    """The file of timm's pre-trained weights of this name, where its cache or torch's holds it.

    Raises:
        BackboneError: there are none of this name.
        WeightsFileError: they are not in the cache.
    """
    path = _in_timm(name).path
    assert path is not None
    return path


def weights_digest(state: Mapping[str, Tensor]) -> str:
    """sha256 over tensors: name, type, shape and bytes of each, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _build(found: _Found, image_size: int, channels: int) -> Backbone:
    """The network, drawn from its seed; the generator of the process is as before afterwards."""
    options = {} if channels == 3 else {"in_chans": channels}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(found.seed)
        return build_backbone(found.model, image_size=image_size, **options)


def _find(reference: str) -> _Found:
    kind, colon, name = reference.partition(":")
    if colon and kind == "random":
        return _untrained(name)
    if colon and kind == "timm":
        return _in_timm(name)
    if colon and kind == "released":
        return _released(name)
    model, equals, file = reference.partition("=")
    if equals and not Path(reference).exists():
        find_architecture(model)
        return _Found(model=model, name=f"{model}-{_label(Path(file))}", path=Path(file))
    path = Path(reference)
    if not path.exists() and "/" not in reference and importlib.util.find_spec("timm"):
        import timm

        if reference in timm.list_models():
            raise BackboneError(f"{reference} is a network, not weights: write timm:{reference} or random:{reference}")
    return _Found(model="", name=_label(path), path=path)


def _label(path: Path) -> str:
    """The name of a run folder, or of a file without its suffix; of a run's backbone.safetensors that of the run."""
    if path.name == "backbone.safetensors" or path.name in ("", ".", ".."):
        path = path.absolute().resolve().parent if path.name == "backbone.safetensors" else path.absolute().resolve()
    return path.name if path.is_dir() else path.stem


def _untrained(name: str) -> _Found:
    model, at, seed = name.rpartition("@")
    if at and not (seed.isascii() and seed.isdecimal() and int(seed) < 2**31):
        raise BackboneError(f"random:{name}: {seed!r} is no seed: write a whole number, as in random:{model}@1")
    model = model if at else name
    find_architecture(model)
    label = f"{model}-untrained" + (f"-{int(seed)}" if at else "")
    return _Found(model=model, name=label, seed=int(seed) if at else 0, facts={"method": "none", **_timm_facts(model)})


def _in_timm(name: str) -> _Found:
    """timm's pre-trained weights, where its cache or torch's holds their file."""
    import timm

    architecture = name.partition(".")[0]
    find_architecture(architecture)
    tags = timm.list_pretrained(f"{architecture}.*")
    config = timm.get_pretrained_cfg(name) if tags and ("." not in name or name in tags) else None
    if config is None or not config.has_weights:
        known = f"there are {', '.join(tags[:8])}" if tags else f"random:{name} is the network without training"
        raise BackboneError(f"timm has no pre-trained weights called {name}: {known}")
    path = _cached(config)
    if path is None:
        raise WeightsFileError(
            f"timm's weights {name} are not in its cache, and nothing is downloaded here. Where there is a network: "
            f"python -c \"import timm; timm.create_model('{name}', pretrained=True)\""
        )
    return _Found(model=name, name=name, path=path, facts={"method": f"timm {name}", **_timm_facts(name)})


def _cached(config: Any) -> Path | None:
    """The file of a timm configuration in the cache of the model hub, or of torch."""
    if config.hf_hub_id and importlib.util.find_spec("huggingface_hub"):
        from huggingface_hub import try_to_load_from_cache

        repository, _, revision = config.hf_hub_id.partition("@")
        for file in [config.hf_hub_filename] if config.hf_hub_filename else _HUB_FILES:
            found = try_to_load_from_cache(repository, file, revision=revision or None)
            if isinstance(found, str):
                return Path(found)
    if config.url:
        path = Path(torch.hub.get_dir()) / "checkpoints" / config.url.rpartition("/")[2]
        return path if path.is_file() else None
    return None


def _timm_facts(name: str) -> dict[str, Any]:
    """What timm says of the images that a network of its own is made for; a tag that it does not know says nothing."""
    import timm

    architecture = name.partition(".")[0]
    if architecture not in timm.list_models():
        return {}
    config = timm.get_pretrained_cfg(name if name in timm.list_pretrained(f"{architecture}.*") else architecture)
    if config is None:
        return {}
    return {"mean": config.mean, "std": config.std, "image_size": config.input_size[-1]}


def _released(name: str) -> _Found:
    """A published file by its name (weights/released.py), fetched unless it is here."""
    entry = find_released(name)
    if not entry.model:
        raise BackboneError(f"released:{name}: {entry.note}")
    facts = {**entry.description, **_timm_facts(entry.model)}
    return _Found(model=entry.model, name=entry.name, path=fetch_weights(entry), facts=facts)
