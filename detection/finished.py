"""The detector of a finished run, as it was evaluated."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from backbones import build_backbone
from detection.config import DetectionConfig
from detection.evaluation import with_category_ids
from detection.frameworks.contract import Batch, Framework, Predictor, Result, load_framework
from engine import distributed, use
from engine.data.images import ImageArray
from engine.errors import CheckpointError
from engine.run import checkpoint
from engine.training.state import PRECISIONS


@dataclasses.dataclass
class FinishedDetector:
    """A detector in evaluation mode, on this machine's device.

    Args:
        config: of its run.
        framework: whose it is.
        model: with the weights of the run's last step, and its precise BatchNorm statistics.
        categories: {id, name} of each label.
        device: where it runs.
    """

    config: DetectionConfig
    framework: Framework
    model: nn.Module
    categories: list[dict[str, Any]]
    device: torch.device

    def __post_init__(self) -> None:
        self._predictor: Predictor = self.framework.predictor(self.config, None)

    @property
    def category_ids(self) -> tuple[int, ...]:
        """Of the run's data set, by label."""
        return tuple(entry["id"] for entry in self.categories)

    @property
    def names(self) -> dict[int, str]:
        """Of the categories by id."""
        return {entry["id"]: entry["name"] for entry in self.categories}

    def own_numbers(self) -> dict[str, float]:
        """A detector that is used has no evaluator of its own."""
        return {}

    def __call__(self, model: nn.Module, batch: Batch) -> list[Result]:
        """The detections in a batch of samples, with `label`, in the precision of the run (a contract.Predictor)."""
        dtype = PRECISIONS[self.config.precision]
        with torch.no_grad(), torch.autocast(self.device.type, dtype, enabled=dtype is not torch.float32):
            return self._predictor(model, batch)

    def detect(self, image: ImageArray) -> list[Result]:
        """The detections in one decoded image, RGB uint8 (h, w, 3), with the run's category ids; image_id is 0."""
        found = self(self.model, [self.framework.sample_of_array(image, self.config)])
        return with_category_ids(found, self.category_ids)


def read_run(run_dir: Path) -> tuple[DetectionConfig, list[dict[str, Any]]]:
    """The configuration of a finished run and {id, name} of each label.

    Raises:
        ConfigError: the folder holds no finished detection run.
        CheckpointError: its list of categories is damaged.
    """
    config = use.stored_config(run_dir, "detection", DetectionConfig)
    path = run_dir / "categories.json"
    if not path.is_file():
        raise use.not_finished("detection", run_dir, path.name)
    try:
        categories = [{"id": int(entry["id"]), "name": str(entry["name"])} for entry in json.loads(path.read_bytes())]
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise CheckpointError(f"{path}: not the list of categories that a run writes ({error!r})") from error
    return config, categories


def evaluated_weights(run_dir: Path) -> dict[str, Tensor]:
    """The weights of a run's last step, with the BatchNorm statistics with which it was evaluated.

    Raises:
        CheckpointError: there are none, or they are damaged.
    """
    weights, _ = checkpoint.load_model_state(run_dir)
    precise = run_dir / "precise_bn.safetensors"
    try:
        return {**weights, **safetensors.torch.load_file(precise)} if precise.is_file() else weights
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{precise}: cannot be read ({error})") from error


def load_detector(run_dir: Path) -> FinishedDetector:
    """Build a finished run's detector and load what was evaluated.

    Raises:
        ConfigError: the folder holds no finished detection run.
        CheckpointError: its files are damaged, or belong to another run.
    """
    config, categories = read_run(run_dir)
    state = evaluated_weights(run_dir)
    framework = load_framework(config.framework)
    backbone = build_backbone(config.model, image_size=config.build_size)
    model = framework.build(config, backbone, len(categories))
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        text = " ".join(str(error).split())
        raise CheckpointError(
            f"{run_dir}/checkpoints: not the weights of the run in {run_dir}/config.json ({text[:300]})"
        ) from error
    device = distributed.pick_device()
    if backbone.is_cnn:  # as it was evaluated: rounding depends on it
        model.to(memory_format=torch.channels_last)
    return FinishedDetector(config, framework, model.to(device).eval(), categories, device)
