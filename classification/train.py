"""Assembly of a classification run: images, network, optimizer and evaluation, handed to engine/loop.py."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from classification.augment import BatchAugment, normalise
from classification.build import (
    build_network,
    export_encoder,
    is_convolutional,
    network_state,
    start_from,
    trainable,
)
from classification.classifier import export_classifier
from classification.config import ClassificationConfig
from classification.data import LabelledImages, open_data
from classification.evaluation import evaluate, trainable_parameters
from classification.losses import build_loss
from classification.optimizer import build_optimizer
from engine.config import config_hash
from engine.data.images import count_unreadable
from engine.data.sampler import LoaderOptions, SamplePlan, make_batches, micro_batches
from engine.distributed import rank, world_size
from engine.errors import ConfigError
from engine.loop import train as run_loop
from engine.run import checkpoint, storage
from engine.run.open import Run, open_run
from engine.training.optim import Schedule
from engine.training.state import LoopSettings

LAST_EPOCHS = 10  # the published accuracy is the best of these


def train(
    config: ClassificationConfig,
    run_dir: Path,
    *,
    recipe: str = "custom",
    resume: bool = False,
    accept_divergence: bool = False,
) -> dict[str, float]:
    """Train a classifier and leave its encoder in `<run_dir>/backbone.safetensors`.

    Args:
        config: what to run; recipes.py makes them.
        run_dir: new or empty, or a run to continue with `resume`.
        recipe: name under which the run is recorded.
        resume: continue what the folder holds.
        accept_divergence: continue a run that diverged.

    Returns:
        Accuracy in percent: {top1,top5}_last, {top1,top5}_best, and top1_best_last10, the best of the last ten epochs,
        which is what the A2MIM tables report. Empty on ranks other than the main one.

    Raises:
        engine.errors.SuiteError: with the exit code of what went wrong.
    """
    with open_run(
        run_dir, config, package="classification", recipe=recipe, resume=resume, accept_divergence=accept_divergence
    ) as run:
        finished = run.finished()
        return finished if finished is not None else _run(run, config)


def _run(run: Run, config: ClassificationConfig) -> dict[str, float]:
    train_set, val_set = open_data(config, run.dir)
    plan = SamplePlan(len(train_set), config.batch_size, config.seed, config.augment.repeats)
    options = loader_options(config, plan, pin_memory=run.device.type == "cuda")
    run.pin_data("train", train_set.index)
    if train_set.whole is not None:  # by it the seeds, each with a part of its own, are known to belong together
        run.pin_data("train before train_fraction", train_set.whole)
    run.pin_data("val", val_set.index)

    classes = train_set.index.classes
    network = build_network(config, len(classes))
    if not run.resumed or checkpoint.newest(run.dir) is None:  # else the checkpoint holds what init became
        start_from(network, config.init, run.dir if run.main else None)
    settings = loop_settings(config, plan, channels_last=is_convolutional(network), files=train_set.index.path)
    model = trainable(network, config).to(run.device)
    _announce(run, config, settings, model)

    last = settings.total_steps
    run_loop(
        run,
        model,
        optimizer=build_optimizer(model, config),
        batches=lambda first: make_batches(train_set, plan.batch, range(first, last), options),
        loss=loss_function(config, len(classes)),
        settings=settings,
        evaluate=evaluation(config, run, val_set),
    )
    if not run.main:
        return {}
    _export(run, config, classes)
    metrics = summary(run.read_metrics("val"), config.epochs)
    run.finish(
        metrics,
        num_train=len(train_set),
        num_val=len(val_set),
        num_classes=len(classes),
        unreadable=count_unreadable(run.dir),
    )
    return metrics


def loader_options(config: ClassificationConfig, plan: SamplePlan, *, pin_memory: bool) -> LoaderOptions:
    """How this rank reads its part of each batch.

    Raises:
        ConfigError: the batch does not divide into ranks and accumulation steps, or into pairs for mixing.
    """
    options = LoaderOptions(
        num_workers=config.data.num_workers,
        accumulation=config.accumulation,
        rank=rank(),
        world_size=world_size(),
        pin_memory=pin_memory,
    )
    size = len(micro_batches(plan.batch(0), options)[0])
    if config.mixes and size % 2:
        raise ConfigError(
            f"batch_size {config.batch_size} over {world_size()} ranks x {config.accumulation} accumulation steps "
            f"makes {size} images each: mixup and CutMix pair them, use an even number"
        )
    return options


def loop_settings(
    config: ClassificationConfig, plan: SamplePlan, *, channels_last: bool, files: Callable[[int], str]
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
            warmup_steps=schedule.warmup_epochs * per_epoch,
            warmup_start=schedule.warmup_start,
            min_rate=schedule.min_learning_rate,
            milestones=tuple(epoch * per_epoch for epoch in schedule.milestones),
        ),
        seed=config.seed,
        checkpoint_every=config.checkpoint_every,
        precision=config.precision,
        compile=config.compile,
        channels_last=channels_last,
        clip_grad=config.optimizer.clip_grad,
        ema_decay=config.ema.decay or None,
        ema_warmup_steps=config.ema.warmup_epochs * per_epoch,
        log_every=config.log_every,
        evaluate_every=config.evaluate_every * per_epoch,
        deterministic=config.deterministic,
        name_batch=lambda step: [files(key.index) for key in plan.batch(step)],
    )


def loss_function(
    config: ClassificationConfig, num_classes: int
) -> Callable[[nn.Module, dict[str, Tensor]], dict[str, Tensor]]:
    """(model, {"image", "label"}) -> {name of the loss: its value}, with augmentation of the batch on its device."""
    augment, criterion = BatchAugment(config.augment, num_classes), build_loss(config.loss)

    def loss(model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        images, targets = augment(batch["image"], batch["label"])
        return {config.loss.kind: criterion(model(images), targets)}

    return loss


def evaluation(
    config: ClassificationConfig, run: Run, val_set: LabelledImages
) -> Callable[[nn.Module, int, Callable[[], None]], dict[str, float]]:
    """What the loop calls for accuracy over the validation set."""

    def run_evaluation(model: nn.Module, step: int, check_stop: Callable[[], None]) -> dict[str, float]:
        return evaluate(
            lambda images: model(normalise(images)),
            val_set,
            batch_size=config.data.evaluation_batch_size,
            num_workers=config.data.num_workers,
            device=run.device,
            check_stop=check_stop,
        )

    return run_evaluation


def summary(evaluations: list[dict[str, Any]], epochs: int) -> dict[str, float]:
    """The accuracies of a run from its evaluations, lines of metrics.jsonl in order.

    "last10" are the evaluations after epochs epochs - 9 to epochs, fewer if not every epoch is evaluated.
    """
    late = [row for row in evaluations if row["epoch"] > epochs - LAST_EPOCHS]
    return {
        "top1_last": evaluations[-1]["top1"],
        "top5_last": evaluations[-1]["top5"],
        "top1_best": max(row["top1"] for row in evaluations),
        "top5_best": max(row["top5"] for row in evaluations),
        "top1_best_last10": max(row["top1"] for row in late),
    }


def _announce(run: Run, config: ClassificationConfig, settings: LoopSettings, model: nn.Module) -> None:
    run.note(
        global_batch=config.batch_size,
        ranks=world_size(),
        accumulation=config.accumulation,
        images_per_forward=config.batch_size // (world_size() * config.accumulation),
        peak_learning_rate=config.learning_rate,
        steps=settings.total_steps,
        steps_per_epoch=settings.steps_per_epoch,
        trainable_parameters=trainable_parameters(model),
    )


def _export(run: Run, config: ClassificationConfig, classes: tuple[str, ...]) -> None:
    """Write the last checkpoint's encoder and classifier (of the moving average if there is one)."""
    newest = checkpoint.newest(run.dir)
    assert newest is not None, "the loop saves at its last step"
    snapshot = checkpoint.load(newest)
    description = {
        "method": "supervised" if config.freeze == "none" else "linear probe",
        "init": config.init,
        "epochs": config.epochs,
        "averaged": snapshot.ema is not None,
        "suite_version": checkpoint.SUITE_VERSION,
        "config_hash": config_hash(run.config),
    }
    with storage.storage_errors(run.dir):
        state = network_state(config, snapshot.ema or snapshot.model)
        export_encoder(run.dir / "backbone.safetensors", config, state, description)
        export_classifier(run.dir, config, state, classes, description)
        storage.write_json(run.dir / "classes.json", list(classes))
