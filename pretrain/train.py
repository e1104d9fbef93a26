"""Assembly of a pre-training run: images, model, optimizer and panels, handed to engine/loop.py."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from backbones import save_backbone
from engine.config import config_hash
from engine.data.images import ImageIndex, count_unreadable, index_images
from engine.data.sampler import LoaderOptions, SamplePlan, make_batches
from engine.distributed import is_main, rank, world_size
from engine.loop import train as run_loop
from engine.run.checkpoint import SUITE_VERSION
from engine.run.open import Run, open_run
from engine.training import optim
from engine.training.optim import Schedule, parameter_groups
from engine.training.state import LoopSettings
from pretrain.build import build_model
from pretrain.config import PretrainConfig
from pretrain.data import PretrainDataset, collate, image_root
from pretrain.methods import find_method, method_order
from pretrain.targets import IMAGENET_MEAN, IMAGENET_STD
from pretrain.visualize import panel_batch, save_panel


def train(
    config: PretrainConfig,
    run_dir: Path,
    *,
    recipe: str = "custom",
    resume: bool = False,
    accept_divergence: bool = False,
) -> dict[str, float]:
    """Pre-train an encoder and leave it in `<run_dir>/backbone.safetensors`.

    Args:
        config: what to run; recipes.py makes them.
        run_dir: new or empty, or a run to continue with `resume`.
        recipe: name under which the run is recorded.
        resume: continue what the folder holds.
        accept_divergence: continue a run that diverged.

    Returns:
        The mean losses of the last logging window; empty on ranks other than the main one.

    Raises:
        engine.errors.SuiteError: with the exit code of what went wrong.
    """
    with open_run(
        run_dir, config, package="pretrain", recipe=recipe, resume=resume, accept_divergence=accept_divergence
    ) as run:
        finished = run.finished()
        if finished is not None:
            return finished
        index = index_images(image_root(config.data.root), labelled=False, options=config.data)
        run.pin_data("train", index)
        plan = SamplePlan(len(index), config.batch_size, config.seed)
        torch.manual_seed(config.seed)
        model = build_model(config)
        settings = loop_settings(config, plan, channels_last=model.encoder.is_cnn, index=index)
        _announce(run, config, settings)
        run_loop(
            run,
            model,
            optimizer=build_optimizer(config, model),
            batches=_batches(config, run, index, plan),
            loss=compute_losses,
            settings=settings,
            evaluate=_panels(config, run, index, plan.steps_per_epoch),
        )
        if not run.main:
            return {}
        save_backbone(run_dir / "backbone.safetensors", model.encoder, _description(config, run))
        last = run.read_metrics("train")[-1]
        metrics = {name: last[name] for name in last if name not in ("step", "epoch", "split")}
        title, order = find_method(config.method).title, method_order(config.method)
        run.finish(
            metrics,
            num_images=len(index),
            unreadable=count_unreadable(run_dir),
            method={"name": config.method, "title": title, "order": order},
        )
        return metrics


def compute_losses(model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """The method's loss terms for a micro-batch; see pretrain/methods."""
    losses: dict[str, Tensor] = model(batch["image"], batch["mask"])
    return losses


def build_optimizer(config: PretrainConfig, model: nn.Module) -> torch.optim.Optimizer:
    """The optimizer over the groups that the configuration's name rules make."""
    options = config.optimizer
    groups = parameter_groups(
        model.named_parameters(),
        learning_rate=config.learning_rate,
        weight_decay=options.weight_decay,
        no_decay=options.no_decay,
        rate_scale=options.rate_scale,
    )
    return optim.build(
        options.name,
        groups,
        learning_rate=config.learning_rate,
        betas=options.betas,
        eps=options.eps,
        momentum=options.momentum,
    )


def loop_settings(
    config: PretrainConfig, plan: SamplePlan, *, channels_last: bool, index: ImageIndex | None = None
) -> LoopSettings:
    """The configuration in steps instead of epochs."""
    per_epoch, schedule = plan.steps_per_epoch, config.schedule
    total = config.epochs * per_epoch
    return LoopSettings(
        total_steps=total,
        steps_per_epoch=per_epoch,
        batch_size=config.batch_size,
        schedule=Schedule(
            kind=schedule.kind,
            total_steps=total,
            warmup_steps=round(schedule.warmup_epochs * per_epoch),
            warmup_start=schedule.warmup_start,
            min_rate=schedule.min_rate,
            milestones=tuple(epoch * per_epoch for epoch in schedule.step_epochs),
            step_factor=schedule.step_factor,
            final_weight_decay=schedule.final_weight_decay,
        ),
        seed=config.seed,
        checkpoint_every=config.checkpoint_every,
        precision=config.precision,
        compile=config.compile,
        channels_last=channels_last,
        clip_grad=config.optimizer.clip_grad,
        log_every=config.log_every,
        evaluate_every=config.visualize_every_epochs * per_epoch,
        evaluate_first=True,
        deterministic=config.deterministic,
        name_batch=None if index is None else lambda step: [index.path(key.index) for key in plan.batch(step)],
    )


def _announce(run: Run, config: PretrainConfig, settings: LoopSettings) -> None:
    accumulation = config.accumulation or 1
    run.note(
        global_batch=config.batch_size,
        ranks=world_size(),
        accumulation=accumulation,
        images_per_forward=config.batch_size // (world_size() * accumulation),
        peak_learning_rate=config.learning_rate,
        steps=settings.total_steps,
        steps_per_epoch=settings.steps_per_epoch,
    )


def _batches(
    config: PretrainConfig, run: Run, index: ImageIndex, plan: SamplePlan
) -> Callable[[int], Iterator[list[Any]]]:
    data, mask = config.data, config.mask
    dataset = PretrainDataset(
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
    options = LoaderOptions(
        num_workers=data.num_workers,
        accumulation=config.accumulation or 1,
        rank=rank(),
        world_size=world_size(),
        pin_memory=run.device.type == "cuda",
        collate=collate,
    )
    last = config.epochs * plan.steps_per_epoch
    return lambda first: make_batches(dataset, plan.batch, range(first, last), options)


def _panels(
    config: PretrainConfig, run: Run, index: ImageIndex, steps_per_epoch: int
) -> Callable[[Any, int, Callable[[], None]], dict[str, float]]:
    """Draw the same images' reconstructions at the start, every few epochs and at the end."""

    def draw(model: Any, step: int, check_stop: Callable[[], None]) -> dict[str, float]:
        check_stop()
        if is_main():
            images, mask = panel_batch(config, index)
            path = run.dir / "panels" / f"epoch_{step // steps_per_epoch:04d}.png"
            save_panel(path, model, images.to(run.device), mask.to(run.device))
        return {}

    return draw


def _description(config: PretrainConfig, run: Run) -> dict[str, Any]:
    return {
        "method": config.method,
        "method_title": find_method(config.method).title,
        "method_order": method_order(config.method),
        "epochs": config.epochs,
        "mean": IMAGENET_MEAN,
        "std": IMAGENET_STD,
        "suite_version": SUITE_VERSION,
        "config_hash": config_hash(run.config),
    }
