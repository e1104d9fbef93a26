"""`python -m segmentation export RUN DIR`: a trained segmentor as MMSegmentation loads it.

DIR/config.py and DIR/segmentor.pth are what `mmseg.apis.init_model` takes. A ResNet becomes MMSegmentation's own, under
its names, and needs nothing of this suite; any other encoder stays a SuiteEncoder, with the suite on PYTHONPATH.
"""

import argparse
import io
import re
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from mmseg.registry import MODELS
from torch import Tensor

from backbones import find_architecture
from engine import use
from engine.errors import ConfigError
from engine.run import storage
from segmentation.config import SegmentationConfig
from segmentation.labels import classes_in
from segmentation.mmseg_adapter import mmseg_scope, model_config
from segmentation.use import load_segmentor

_ENCODER = "backbone.encoder.net."


def export(run_dir: Path, folder: Path) -> bool:
    """Write config.py and segmentor.pth into `folder`; returns whether they need the suite to be loaded.

    Raises:
        ConfigError: the run folder holds no segmentation run, or `folder` holds one of the files.
        CheckpointError: the run holds no intact checkpoint, or the files cannot be written.
    """
    config = use.stored_config(run_dir, "segmentation", SegmentationConfig)
    paths = folder / "config.py", folder / "segmentor.pth"
    if present := [path for path in paths if path.exists()]:
        raise ConfigError(f"{present[0]} exists: choose another folder")
    state = {name: value.cpu() for name, value in load_segmentor(run_dir, config).state_dict().items()}
    model = model_config(config)
    own = _as_mmsegmentations_resnet(config, model, state)
    if own is not None:
        model, state = own
    classes = classes_in(config.data)
    meta = {"dataset_meta": {"classes": list(classes.names), "palette": classes.palette.tolist()}}
    settings: dict[str, Any] = {"default_scope": "mmseg", "model": model, "test_pipeline": _test_pipeline(config)}
    if own is None:
        settings["custom_imports"] = {"imports": ["segmentation.mmseg_adapter"], "allow_failed_imports": False}
    with redirect_stdout(io.StringIO()):
        text = Config({**settings, "test_dataloader": {"dataset": {"pipeline": settings["test_pipeline"]}}}).pretty_text
    with storage.storage_errors(folder.parent):
        folder.mkdir(parents=True, exist_ok=True)
        paths[0].write_text(text)
        torch.save({"meta": meta, "state_dict": state}, paths[1])
    return own is None


def _as_mmsegmentations_resnet(
    config: SegmentationConfig, model: dict[str, Any], state: dict[str, Tensor]
) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
    """The model with MMSegmentation's own ResNet, and the weights under its names; None if it is none of those."""
    found = re.fullmatch(r"resnet(18|34|50|101|152)", find_architecture(config.model).timm_name.partition(".")[0])
    if not found or config.head.kind == "linear":  # that head is the suite's
        return None
    dilation = {32: (1, 1, 1, 1), 16: (1, 1, 1, 2), 8: (1, 1, 2, 4)}[config.output_stride]
    backbone = {
        "type": "ResNet",
        "depth": int(found[1]),
        "dilations": dilation,
        "strides": tuple(2 if i and dilation[i] == 1 else 1 for i in range(4)),
        "contract_dilation": True,
        "norm_cfg": {"type": "BN", "requires_grad": True},
        "norm_eval": False,
        "style": "pytorch",
    }
    settings = {**model, "backbone": backbone}
    renamed = {name.replace(_ENCODER, "backbone."): value for name, value in state.items()}
    with mmseg_scope(), torch.device("meta"):
        names = MODELS.build(ConfigDict(settings)).state_dict()
    # What only classifies, and what the pooling of a pre-training head left, has no place in a segmentor.
    kept = {name: value for name, value in renamed.items() if name in names}
    same = all(name in kept and kept[name].shape == value.shape for name, value in names.items())
    return (settings, kept) if same else None


def _test_pipeline(config: SegmentationConfig) -> list[dict[str, Any]]:
    scale = (4 * config.image_size, config.image_size)
    return [
        {"type": "LoadImageFromFile"},
        {"type": "Resize", "scale": scale, "keep_ratio": True},
        {"type": "PackSegInputs"},
    ]


def main(arguments: Sequence[str]) -> None:
    """Export a run and say how to load it."""
    parser = argparse.ArgumentParser(prog="python -m segmentation export", description=main.__doc__)
    parser.add_argument("run", type=Path, help="folder of a segmentation run")
    parser.add_argument("folder", type=Path, help="folder for config.py and segmentor.pth")
    options = parser.parse_args(list(arguments))
    needs_suite = export(options.run, options.folder)
    print(f"{options.folder}: mmseg.apis.init_model('{options.folder}/config.py', '{options.folder}/segmentor.pth')")
    if needs_suite:
        print("its encoder has no equal in MMSegmentation: keep this suite's packages on PYTHONPATH")
