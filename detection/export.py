"""A trained detector in Detectron2's own names, for its tools and configurations.

Only ResNets can be written: Detectron2 has these networks under names of its own, and no other of ours.
"""

import io
import re
from collections.abc import Iterable
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from detection.finished import read_run
from engine.errors import ConfigError
from engine.run import checkpoint, storage

_ENCODER = r"backbone\.(?:bottom_up\.)?encoder\.backbone\.net\."
_NOT_DETECTRON2S = ("running_normalizer",)  # RetinaNet's, kept so that runs resume exactly
_IN_A_BLOCK = (
    (r"^conv(\d)\.", r"conv\1."),
    (r"^bn(\d)\.", r"conv\1.norm."),
    (r"^downsample\.0\.", "shortcut."),
    (r"^downsample\.1\.", "shortcut.norm."),
)


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
    newest = checkpoint.newest(run_dir)
    if newest is None:
        raise ConfigError(f"{run_dir} holds no checkpoint: give the folder of a finished detection run")
    state: dict[str, Tensor] = checkpoint.load(newest).model
    precise = run_dir / "precise_bn.safetensors"
    if precise.is_file():
        state = {**state, **safetensors.torch.load_file(precise)}
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
        prefix = "backbone.bottom_up." if name.startswith("backbone.bottom_up.") else "backbone."
        return prefix + _resnet_name(name[match.end() :])
    if match := re.match(r"roi_heads\.res5\.([01])\.", name):  # C4: the encoder's last stage, and the norm after it
        rest = name[match.end() :]
        if match.group(1) == "1":
            return f"roi_heads.res5.norm.{rest}"
        block, _, part = rest.partition(".")
        return f"roi_heads.res5.{block}.{_in_block(part, name)}"
    return name


def _resnet_name(name: str) -> str:
    """timm's name of a ResNet's tensor in Detectron2's."""
    if match := re.match(r"layer(\d)\.(\d+)\.", name):
        return f"res{int(match.group(1)) + 1}.{match.group(2)}.{_in_block(name[match.end() :], name)}"
    if match := re.match(r"(conv1|bn1)\.", name):
        return f"stem.conv1.{'norm.' * (match.group(1) == 'bn1')}{name[match.end() :]}"
    raise _no_resnet(name)


def _in_block(name: str, whole: str) -> str:
    for pattern, replacement in _IN_A_BLOCK:
        if re.match(pattern, name):
            return re.sub(pattern, replacement, name)
    raise _no_resnet(whole)


def _no_resnet(name: str) -> ConfigError:
    return ConfigError(
        f"Detectron2 has no network with a tensor like {name}: only detectors on ResNets (r50, r101, ...) can be "
        "written in its names"
    )
