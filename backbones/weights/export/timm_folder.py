"""A network for timm: a folder that `timm.create_model("local-dir:FOLDER", pretrained=True)` loads, or ready for the
Hugging Face hub with a card."""

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

from backbones.architectures import find_architecture
from backbones.errors import WeightsError
from backbones.weights.files import write_weights

from .card import write_card
from .counterparts import refused
from .trained import Trained
from .written import Written, write_errors

WEIGHTS = "model.safetensors"
_TOLERANCE = 1e-5


def write(trained: Trained, out: Path, *, hub: bool = False) -> Written:
    """Write config.json and model.safetensors into the new folder `out`; with `hub` a model card beside them.

    Raises:
        WeightsError: the network is not timm's, timm does not give the same from the folder, or the folder holds files.
        WeightsFileError: it cannot be written.
    """
    if find_architecture(trained.model).factory is not None:
        raise refused(
            trained.model, "it is a class of your own, which timm cannot build; `--to onnx` holds any network"
        )
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise WeightsError(f"{out} exists and is no empty folder: choose another one.")
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    with write_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        partial.mkdir()
        try:
            remarks = _fill(trained, partial)
            digest = hashlib.sha256((partial / WEIGHTS).read_bytes()).hexdigest()
            if hub:
                write_card(partial, trained, digest)
            if out.exists():
                out.rmdir()
            partial.replace(out)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    lines = [f'net = timm.create_model("local-dir:{out}", pretrained=True)']
    if hub:
        lines.append(f"hf upload YOU/NAME {out}  # then timm.create_model('hf-hub:YOU/NAME', pretrained=True)")
    return Written(out, tuple(lines), remarks)


def timm_config(
    model: str,
    image_size: int,
    *,
    classes: Sequence[str],
    num_classes: int,
    statistics: dict[str, Sequence[float]],
    preprocessing: dict[str, Any],
    pooling: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """What timm needs to build and feed the network `model` as built for `image_size`: its config.json.

    Args:
        model: its published or timm name.
        image_size: it was built for.
        classes: their names, if they are known.
        num_classes: 0 for an encoder.
        statistics: mean and std.
        preprocessing: test_size, crop_pct and interpolation of a classifier; an encoder has none.
        pooling: timm's option for what its classifier reads, where that is not its default.
    """
    architecture = find_architecture(model)
    options = {**architecture.options, **architecture.for_size(image_size)}
    if architecture.is_vit and pooling is None:
        pooling = {"global_pool": "token" if architecture.class_token_head or not num_classes else "avg"}
    size, channels = preprocessing.get("test_size", image_size), len(statistics["mean"])
    interpolation = preprocessing.get("interpolation", "bicubic")
    return {
        "architecture": architecture.timm_name.partition(".")[0],
        "num_classes": num_classes,
        **({"label_names": list(classes)} if classes else {}),
        "model_args": {**(pooling or {}), **options, **({"in_chans": channels} if channels != 3 else {})},
        "pretrained_cfg": {
            "num_classes": num_classes,
            "input_size": [channels, size, size],
            "fixed_input_size": False,
            "crop_pct": preprocessing.get("crop_pct", 1.0),
            "interpolation": "bilinear" if interpolation == "random" else interpolation,
            "mean": list(statistics["mean"]),
            "std": list(statistics["std"]),
        },
    }


def _fill(trained: Trained, folder: Path) -> tuple[str, ...]:
    """Write the two files and compare what timm makes of them."""
    pools_first = "fc_norm.weight" in trained.state and find_architecture(trained.model).is_vit
    config = timm_config(
        trained.model,
        trained.image_size,
        classes=trained.classes,
        num_classes=trained.num_classes,
        statistics={"mean": trained.mean, "std": trained.std},
        preprocessing=trained.preprocessing,
        pooling={"global_pool": "avg"} if pools_first else None,
    )
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    torch.manual_seed(0)  # of the weights that only a classifier would use
    theirs = timm.create_model(config["architecture"], num_classes=trained.num_classes, **config["model_args"])
    missing, unexpected = theirs.load_state_dict(trained.state, strict=False)
    if unexpected:
        raise refused(trained.model, f"timm's {config['architecture']} has no {', '.join(unexpected[:5])}")
    header = {**trained.header, **({"untrained": list(missing)} if missing else {})}
    write_weights(folder / WEIGHTS, theirs.state_dict(), header)
    _compare(trained, timm.create_model(f"local-dir:{folder}", pretrained=True))
    if not missing:
        return ()
    return (f"{len(missing)} tensors that only its classifier uses are as timm made them: {', '.join(missing[:5])}",)


def _compare(trained: Trained, theirs: nn.Module) -> None:
    images = torch.randn(1, *trained.image_shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found, expected = (_outputs(net, images, trained) for net in (theirs.eval(), trained.net))
    limit = _TOLERANCE * expected.abs().max().clamp(min=1e-12)
    if found.shape != expected.shape or (found - expected).abs().max() > limit:
        raise refused(trained.model, "timm computes something else from these weights")


def _outputs(net: Any, images: torch.Tensor, trained: Trained) -> torch.Tensor:
    output = net(images) if trained.num_classes else net.forward_features(images)
    return torch.cat([part.flatten() for part in (output if isinstance(output, (list, tuple)) else [output])])
