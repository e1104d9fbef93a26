"""A trained detector in Detectron2's own names, for its tools and configurations.

Only ResNets can be written: Detectron2 has these networks under names of its own, and no other of ours.
"""

import io
import re
from collections.abc import Iterable
from pathlib import Path

import torch

from backbones.weights.keymaps import find_keymap
from detection.finished import evaluated_weights, read_run
from engine.errors import ConfigError
from engine.run import storage

_ENCODER = r"backbone\.(|bottom_up\.)encoder\.backbone\.net\."
_NOT_DETECTRON2S = ("running_normalizer",)  # RetinaNet's, kept so that runs resume exactly


def export(run_dir: Path, file: Path) -> str:
    """Write a finished run's detector to `file` in Detectron2's names; returns what it is and how to load it.

    Raises:
        ConfigError: the run's detector is not Detectron2's, not on a ResNet, or the file is no *.pth.
        CheckpointError: the run's files are damaged, or the file cannot be written.
    """
    if file.suffix != ".pth":
        raise ConfigError(f"{file}: the name of the file has to end in .pth, by which Detectron2 knows what it holds")
    config, categories = read_run(run_dir)
    if config.framework != "detectron2":
        raise ConfigError(
            f"{run_dir} was trained in {config.framework}, whose detectors compute otherwise than Detectron2's: train "
            "with --framework detectron2 to export"
        )
    state = evaluated_weights(run_dir)
    tensors = {name: state[own].contiguous() for name, own in detectron2_names(state).items()}
    content = io.BytesIO()
    torch.save({"model": tensors, "__author__": "mim-benchmark"}, content)
    with storage.storage_errors(file.parent):
        file.parent.mkdir(parents=True, exist_ok=True)
        storage.write_atomic(file, content.getvalue())
    names = ", ".join(entry["name"] for entry in categories[:5])
    return (
        f"{file}: {len(tensors)} tensors of {config.detector} with {len(categories)} classes ({names}, ...); RGB, "
        "norm BN, stride in the 3x3 convolutions"
    )


def detectron2_names(names: Iterable[str]) -> dict[str, str]:
    """{name in Detectron2: our name} of the tensors of a detector built by frameworks/detectron2_models.py.

    Raises:
        ConfigError: the encoder is no ResNet of Detectron2's form.
    """
    return {_detectron2_name(name): name for name in names if name not in _NOT_DETECTRON2S}


def _detectron2_name(name: str) -> str:
    if match := re.match(_ENCODER, name):
        return f"backbone.{match[1]}{_resnet_name(name[match.end() :])}"
    if match := re.match(r"roi_heads\.res5\.([01])\.", name):  # C4: the encoder's last stage, and the norm after it
        rest = name[match.end() :]
        return f"roi_heads.res5.norm.{rest}" if match[1] == "1" else f"roi_heads.{_resnet_name(f'layer4.{rest}')}"
    return name


def _resnet_name(name: str) -> str:
    """timm's name of a ResNet's tensor in Detectron2's."""
    renamed = find_keymap("detectron2", "resnet").new_name(name, from_timm=True)
    if renamed == name:
        raise ConfigError(
            f"Detectron2 has no network with a tensor like {name}: only detectors on ResNets (r50, r101, ...) can be "
            "written in its names"
        )
    return renamed
