"""Assembly of a pre-training run: images, model, optimizer and panels, handed to engine/loop.py."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from backbones import save_backbone
from engine import task
from engine.after import After, python_module
from engine.config import config_hash
from engine.data.images import ImageIndex, count_unreadable
from engine.data.order import SamplePlan
from engine.data.split import image_root
from engine.distributed import is_main
from engine.run.checkpoint import SUITE_VERSION
from engine.run.open import Run
from engine.task import Assembly, Task
from engine.training.optim import parameter_groups
from engine.training.state import Draw
from pretrain.build import build_model
from pretrain.config import PretrainConfig
from pretrain.data import PretrainDataset, collate, training_images
from pretrain.monitor import monitor_of
from pretrain.start import load, named
from pretrain.visualize import panel_batch, save_panel


def assemble(run: Run, config: PretrainConfig) -> Assembly:
    """The parts of a pre-training run, which leaves the encoder in backbone.safetensors.

    Its metrics are the mean losses of the last logging window.
    """
    index = training_images(config.data)
    run.pin_data("train", index)
    plan = SamplePlan(len(index), config.batch_size, config.seed)
    torch.manual_seed(config.seed)
    model = build_model(config)
    task.begin(run, config.init, lambda source: load(model, config, source))

    def finish(_: dict[str, float]) -> tuple[dict[str, float], dict[str, Any]]:
        save_backbone(run.dir / "backbone.safetensors", model.encoder, _description(config, run))
        last = run.read_metrics("train")[-1]
        metrics = {name: last[name] for name in last if name not in ("step", "epoch", "split")}
        facts = {"num_images": len(index), "unreadable": count_unreadable(run.dir), "method": named(config, run.dir)}
        return metrics, facts

    return Assembly(
        model=model,
        groups=groups_of(config, model),
        dataset=_dataset(config, run, index),
        plan=plan,
        files=index.path,
        collate=collate,
        loss=compute_losses,
        settings={
            "channels_last": model.encoder.is_cnn,
            "evaluate_every": config.monitor.every_epochs * plan.steps_per_epoch,
            "evaluate_first": True,
            "draw": _panels(config, run, index, plan.steps_per_epoch),
            "draw_every": config.visualize_every_epochs * plan.steps_per_epoch,
        },
        evaluate=monitor_of(config, run),
        finish=finish,
    )


def after(run_dir: Path, config: PretrainConfig) -> After:
    """The encoder, and fine-tuning from it where the data set has class folders; else pictures."""
    image = f"torch.rand(1, {len(config.data.mean)}, {config.image_size}, {config.image_size})"
    root = image_root(config.data.root)
    command = python_module("pretrain.visualize", run_dir)
    if any(entry.is_dir() and not entry.name.startswith(".") for entry in root.iterdir()):
        command = python_module("classification", "own", "--model", config.model, "--run-dir", f"{run_dir}-ft")
        command += ["--data.root", config.data.root, "--init", str(run_dir)]
    return After(
        weights=run_dir / "backbone.safetensors",
        python=(
            "import torch, mim_benchmark as mim",
            f"encoder = mim.load_encoder({str(run_dir)!r})",
            f"features = encoder.backbone({image})  # (B, C, h, w), of images normalised by encoder.mean, .std",
        ),
        command=command,
    )


TASK = Task(name="pretrain", assemble=assemble, after=after)
train = TASK.train


def compute_losses(model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """The method's loss terms for a micro-batch; see pretrain/methods."""
    losses: dict[str, Tensor] = model(batch["image"], batch["mask"])
    return losses


def groups_of(config: PretrainConfig, model: nn.Module) -> list[dict[str, Any]]:
    """The parameter groups that the configuration's name rules make."""
    return parameter_groups(
        model.named_parameters(),
        learning_rate=config.learning_rate,
        weight_decay=config.optimizer.weight_decay,
        no_decay=config.optimizer.no_decay,
        rate_scale=config.optimizer.rate_scale,
    )


def _dataset(config: PretrainConfig, run: Run, index: ImageIndex) -> PretrainDataset:
    data, mask = config.data, config.mask
    return PretrainDataset(
        index=index,
        image_size=config.image_size,
        scale=data.crop_scale,
        ratio=data.crop_ratio,
        flip=data.flip,
        cell_size=mask.cell_size,
        mask_ratio=mask.mask_ratio,
        seed=config.seed,
        unreadable=data.unreadable,
        run_dir=run.dir,
    )


def _panels(config: PretrainConfig, run: Run, index: ImageIndex, steps_per_epoch: int) -> Draw:
    """Draw the same images' reconstructions at the start, every few epochs and at the end."""

    def draw(model: Any, step: int, check_stop: Callable[[], None]) -> None:
        check_stop()
        if is_main():
            images, mask = panel_batch(config, index)
            path = run.dir / "panels" / f"epoch_{step // steps_per_epoch:04d}.png"
            save_panel(path, model, images.to(run.device), mask.to(run.device))

    return draw


def _description(config: PretrainConfig, run: Run) -> dict[str, Any]:
    method = named(config, run.dir)
    return {
        "method": method["name"],
        "method_title": method["title"],
        "method_order": method["order"],
        "epochs": config.epochs,
        "seed": config.seed,
        "mean": config.data.mean,
        "std": config.data.std,
        "suite_version": SUITE_VERSION,
        "config_hash": config_hash(run.config),
    }
