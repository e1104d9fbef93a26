"""The `linear` protocol: MAE's linear probe, a recipe of the one loop."""

from collections.abc import Callable
from typing import Any

from backbones import Encoder
from engine.run.open import Run
from evaluation.config import LinearConfig, ProbeConfig
from evaluation.data import Labelled, open_labelled
from evaluation.features import Representation, counts, list_hash, open_readout, representations
from evaluation.heads import Head
from evaluation.measured import Inputs, Measured
from evaluation.probe import Frozen, Probe, on_ranks

VERSION = 1
__all__ = ["VERSION", "measure", "on_ranks", "one_head", "open_data", "recipe", "trained"]
open_data: Callable[[LinearConfig], Labelled] = open_labelled


def recipe(config: LinearConfig) -> str:
    """Its name: without augmentation it is another protocol."""
    return "linear" if config.augment == "crop" else "linear-cached"


def measure(run: Run, encoder: Encoder, config: LinearConfig, inputs: Inputs) -> Measured:
    """Train the head and count on val."""
    readout = open_readout(encoder, run.device)
    (head, *_) = representations(readout, config)
    return one_head(
        run,
        config,
        Frozen(readout, encoder, [head], config.extract_batch),
        inputs,
        Head(head.name, config.base_learning_rate),
    )


def one_head(run: Run, config: ProbeConfig, frozen: Frozen, inputs: Inputs, head: Head) -> Measured:
    """Train one head on all of train; the last epoch is the headline, the best one a column beside it."""
    data: Labelled = inputs.data
    probe = Probe(run, config, frozen, inputs, [head], data.train, data.val)
    last = probe.fit()
    evaluated = run.on_main(lambda: run.read_metrics("val"))
    metrics = {**last, "top1_best": max(row["top1"] for row in evaluated)}
    read: Representation = frozen.wanted[0]
    return Measured(
        metrics, {**read.row(frozen.readout), **trained(config), **list_hash(data)}, counts(data), probe.correct
    )


def trained(config: ProbeConfig) -> dict[str, Any]:
    """The row's fields of what was trained."""
    return {
        "optimizer": f"{config.optimizer}, batch {config.batch_size}, {config.epochs} epochs, "
        f"warm-up {config.warmup_epochs}, decay {config.weight_decay:g}, "
        + (f"{config.crop} crops and flips" if config.augment == "crop" else "centre crops, cached"),
        "learning_rate": config.learning_rate,
        "selection_set": "none",
        "epoch": "last",
    }
