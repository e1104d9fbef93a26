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
    load_encoder,
    network_state,
    trainable,
)
from classification.classifier import FILE, export_classifier
from classification.config import ClassificationConfig
from classification.data import LabelledImages, open_data
from classification.evaluation import evaluate, trainable_parameters
from classification.losses import build_loss
from classification.optimizer import parameter_groups
from engine import task
from engine.after import After, python_module
from engine.config import config_hash
from engine.data.images import count_unreadable
from engine.data.order import SamplePlan
from engine.data.split import split_folder
from engine.errors import ConfigError
from engine.run import checkpoint, storage
from engine.run.open import Run
from engine.task import Assembly, Task

LAST_EPOCHS = 10  # the published accuracy is the best of these


def assemble(run: Run, config: ClassificationConfig) -> Assembly:
    """The parts of a classification run, which leaves its encoder in backbone.safetensors.

    Its metrics are accuracies in percent: {top1,top5}_last, {top1,top5}_best, and top1_best_last10, the best of the
    last ten epochs, which is what the A2MIM tables report.
    """
    train_set, val_set = open_data(config, run.dir)
    plan = SamplePlan(train_set.num_samples, config.batch_size, config.seed, config.augment.repeats)
    size, told = task.images_at_once(config, plan, run.device)
    if config.mixes and size % 2:
        raise ConfigError(f"{told}: mixup and CutMix pair them, use an even number")
    run.pin_data("train", train_set.index)
    if train_set.whole is not None:  # by it the seeds, each with a part of its own, are known to belong together
        run.pin_data("train before train_fraction", train_set.whole)
    run.pin_data("val", val_set.index)

    classes = train_set.index.classes
    network = build_network(config, len(classes))
    task.begin(run, config.init, lambda source: load_encoder(network, source))
    channels_last = is_convolutional(network, len(config.data.mean))
    model = trainable(network, config).to(run.device)

    def finish(_: dict[str, float]) -> tuple[dict[str, float], dict[str, Any]]:
        _export(run, config, classes)
        facts = {"num_train": len(train_set), "num_val": len(val_set), "num_classes": len(classes)}
        return summary(run.read_metrics("val"), config.epochs), {**facts, "unreadable": count_unreadable(run.dir)}

    return Assembly(
        model=model,
        groups=parameter_groups(model, config.optimizer, config.learning_rate),
        dataset=train_set,
        plan=plan,
        files=train_set.path,
        loss=loss_function(config, len(classes)),
        settings={**in_steps(config, plan.steps_per_epoch), "channels_last": channels_last},
        evaluate=evaluation(config, run, val_set),
        finish=finish,
        notes={"trainable_parameters": trainable_parameters(model)},
    )


def after(run_dir: Path, config: ClassificationConfig) -> After:
    """The classifier, for timm where it knows the network, and its predictions for the validation images."""
    lines: tuple[str, ...] = (
        "import timm",
        f"classifier = timm.create_model({f'local-dir:{run_dir}/timm'!r}, pretrained=True).eval()",
        "transform = timm.data.create_transform(**timm.data.resolve_model_data_config(classifier))",
    )
    if ":" in config.model:  # a class of the user's own
        lines = (
            "import mim_benchmark as mim",
            f"classifier = mim.load_model({str(run_dir)!r})",
            "print(classifier.classes)",
        )
    images = split_folder(Path(config.data.root), "val") or config.data.root
    return After(run_dir / FILE, lines, python_module("classification", "predict", run_dir, images))


TASK = Task(name="classification", assemble=assemble, after=after)
train = TASK.train


def in_steps(config: ClassificationConfig, per_epoch: int) -> dict[str, Any]:
    """What the configuration says in epochs of average and evaluation, as fields of LoopSettings."""
    return {
        "ema_decay": config.ema.decay or None,
        "ema_warmup_steps": config.ema.warmup_epochs * per_epoch,
        "evaluate_every": config.evaluate_every * per_epoch,
    }


def loss_function(
    config: ClassificationConfig, num_classes: int
) -> Callable[[nn.Module, dict[str, Tensor]], dict[str, Tensor]]:
    """(model, {"image", "label"}) -> {name of the loss: its value}, with augmentation of the batch on its device."""
    augment, criterion = (
        BatchAugment(config.augment, num_classes, (config.data.mean, config.data.std)),
        build_loss(config.loss),
    )

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
            lambda images: model(normalise(images, (config.data.mean, config.data.std))),
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
