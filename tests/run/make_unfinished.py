"""Make tests/data/unfinished again: `python -m tests.run.make_unfinished`, a few seconds.

Run folders stopped half-way, with their checkpoints, as the first format of config.json has them (it had no number):
a pre-training run and a classification run of a tiny network on sixteen images, which stand beside them.
"""

import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import engine.loop
from classification.config import AugmentConfig, DataConfig, OptimizerConfig, ScheduleConfig
from classification.recipes import RECIPES as CLASSIFICATION
from classification.train import train as classify
from engine.errors import StopRequested
from pretrain.recipes import RECIPES as PRETRAINING
from pretrain.train import train as pretrain
from tests.classification.folders import make_folder
from tests.helpers import ROOT
from tests.run.tiny_network import NAME, register

FOLDER = ROOT / "tests/data/unfinished"
STOP_AT = {"pretrain": 4, "classification": 5}
OLDER = {"pretrain": 2, "classification": 4}


def configurations() -> dict[str, tuple[Any, Any]]:
    """{package: (its train function, a configuration of three steps an epoch)}; paths are relative to FOLDER."""
    small = {"model": NAME, "batch_size": 4, "image_size": 32, "log_every": 1, "checkpoint_every": 2}
    masked = PRETRAINING["demo"](NAME, "simmim")
    masked = replace(masked, **small, epochs=2, precision="float32", visualize_every_epochs=0)
    masked = replace(masked, data=replace(masked.data, root="images", num_workers=0))
    masked = replace(masked, mask=replace(masked.mask, cell_size=8))
    labelled = CLASSIFICATION["demo"](NAME)
    labelled = replace(
        labelled,
        **small,
        init="none",
        epochs=3,
        evaluate_every=1,
        precision="float32",
        data=DataConfig(root="images", num_workers=0, evaluation_batch_size=4),
        augment=AugmentConfig(test_size=32, crop_pct=1.0),
        optimizer=OptimizerConfig(base_batch=4),
        schedule=ScheduleConfig(warmup_epochs=1),
    )
    return {"pretrain": (pretrain, masked), "classification": (classify, labelled)}


def stop_at(step: int) -> Any:
    """A monitor that asks the run to stop once it has taken so many steps."""

    class Stopping(engine.loop.Monitor):
        def step(self, done: int) -> None:
            if done == step:
                os.kill(os.getpid(), signal.SIGTERM)

    return Stopping


def make() -> None:
    """Write FOLDER."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    os.chdir(FOLDER)
    os.environ["MIM_TRACKERS"] = ""
    register()
    make_folder(Path("images"), num_train=6, num_val=2, classes=("blue", "green"))
    for package, (train, config) in configurations().items():
        with pytest.MonkeyPatch.context() as patch, pytest.raises(StopRequested):
            patch.setattr(engine.loop, "Monitor", stop_at(STOP_AT[package]))
            train(config, Path(package), recipe="demo")
        for leftover in ("error.json", "panels", f"checkpoints/{OLDER[package]:08d}"):
            path = Path(package) / leftover
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        place = Path(package) / "environment.json"
        machine = {"platform": "Linux", "command": ["__main__.py", "demo"]}  # nobody else has ours
        place.write_text(json.dumps({**json.loads(place.read_text()), **machine}, indent=2) + "\n")


if __name__ == "__main__":
    make()
