"""Training heads on frozen features in the one loop: what the linear, sweep and attentive protocols share.

The encoder is in evaluation mode throughout (batch norm keeps the statistics of pre-training), without gradients, and
no part of what is trained and saved. B batch, C classes.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from backbones import Encoder
from backbones.frozen import Readout
from engine.data.images import ImageIndex
from engine.data.loader import make_batches
from engine.data.order import SampleKey, SamplePlan
from engine.errors import ConfigError
from engine.groups import OptimizerOptions
from engine.loop import run_loop
from engine.run.open import Run
from engine.task import announcement, loader_options
from engine.training import optim
from engine.training.optim import Schedule
from engine.training.state import LoopSettings
from evaluation.config import ProbeConfig
from evaluation.crops import RandomCrops
from evaluation.data import batches_in_order, centre_crops, normalise
from evaluation.features import Representation, extract
from evaluation.heads import Head, Heads, parameter_groups
from evaluation.intervals import accuracy_interval
from evaluation.logistic import top_hits
from evaluation.measured import Inputs

Features = dict[str, Tensor]
log = logging.getLogger("mim")


def on_ranks(config: ProbeConfig) -> bool:
    """Whether torchrun may start it: the cache of features is written by one process."""
    return config.augment == "crop"


@dataclass(frozen=True)
class Frozen:
    """The encoder and what is read from it."""

    readout: Readout
    encoder: Encoder
    wanted: Sequence[Representation]
    at_once: int
    """Images in one forward pass, however many a step has."""

    @torch.no_grad()
    def features(self, images_bchw: Tensor) -> Features:
        """Representations of uint8 images, float32; under autocast as the loop has it."""
        layers = sorted({each.layer for each in self.wanted})
        parts = []
        for images in torch.split(images_bchw, self.at_once):
            levels = dict(zip(layers, self.readout(normalise(images, self.encoder), layers), strict=True))
            parts.append([each.of(self.readout, levels[each.layer]).float() for each in self.wanted])
        return {each.name: torch.cat(part) for each, part in zip(self.wanted, zip(*parts, strict=True), strict=True)}

    @torch.no_grad()
    def dims(self, device: torch.device) -> dict[str, int]:
        """Numbers of one feature of each representation: of one position, where there are several."""
        size, wide = self.encoder.image_size, self.encoder.backbone.in_channels
        widths = {}
        for each in self.wanted:
            level = self.readout(torch.zeros(1, wide, size, size, device=device), [each.layer])[0]
            found = self.readout.patches(level, norm=False) if each.token == "patches" else each.of(self.readout, level)
            widths[each.name] = found.shape[-1]
        return widths


@dataclass(eq=False)
class _Cached(Dataset[dict[str, Any]]):
    """`dataset[SampleKey]` -> {"features": {representation: its numbers}, "label": int}.

    Args:
        features: of a whole set, mapped.
        places: of the images in it.
        labels: of the images.
    """

    features: Mapping[str, npt.NDArray[Any]]
    places: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]

    def __getitem__(self, key: SampleKey) -> dict[str, Any]:
        place = self.places[key.index]
        rows = {name: np.array(values[place], dtype=np.float32) for name, values in self.features.items()}
        return {
            "features": {name: torch.from_numpy(row) for name, row in rows.items()},
            "label": int(self.labels[key.index]),
        }


@dataclass
class Probe:
    """One probe: everything that its training and its evaluations need.

    Args:
        run: its folder.
        config: of the protocol.
        frozen: the encoder.
        inputs: for cached features.
        heads: what is trained.
        train: the images that heads are trained on.
        val: those that they are measured on.
        held: those that the best head is chosen on; None with one head.
    """

    run: Run
    config: ProbeConfig
    frozen: Frozen
    inputs: Inputs
    heads: Sequence[Head]
    train: ImageIndex
    val: ImageIndex
    held: ImageIndex | None = None
    correct: npt.NDArray[np.bool_] | None = field(default=None, init=False)
    """Of the last evaluation's head."""
    by_head: list[float] = field(default_factory=list, init=False)
    """Accuracies on `held` at the last evaluation."""
    chosen: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        """Read what is cached."""
        self.banks: dict[str, _Cached] = {}
        if self.config.augment == "none":
            for name, index in (("train", self.train), ("val", self.val), ("held", self.held)):
                if index is not None:
                    self.banks[name] = self._extracted(index)

    def _extracted(self, index: ImageIndex) -> _Cached:
        """The features of a set, or of a part of train, from the cache."""
        assert index.labels is not None
        whole: ImageIndex = self.inputs.data.train if index is not self.val else self.val
        found = extract(self.frozen.readout, self.frozen.encoder, whole, self.frozen.wanted, self.config, self.inputs)
        numbers = {path: place for place, path in enumerate(whole.paths)}
        return _Cached(found, np.array([numbers[path] for path in index.paths]), index.labels)

    def fit(self) -> dict[str, float]:
        """Train, and return the metrics of the last evaluation."""
        config, run = self.config, self.run
        plan = SamplePlan(len(self.train), config.batch_size, config.seed)
        torch.manual_seed(config.seed)
        model = Heads(self.heads, self.frozen.dims(run.device), len(self.train.classes)).to(run.device)
        groups = parameter_groups(model, self.heads, batch_size=config.batch_size, weight_decay=config.weight_decay)
        optimizer = optim.build(OptimizerOptions(name=config.optimizer), groups, config.learning_rate)
        settings = _settings(config, plan, self.train)
        dataset: Dataset[Any] = (
            self.banks["train"]
            if self.banks
            else RandomCrops(self.train, self.frozen.encoder.image_size, config.interpolation, config.crop, config.seed)
        )
        options = loader_options(config, plan, run.device)
        if self.banks:
            options = replace(options, num_workers=0)
        run.note(**announcement(config, settings), heads=len(self.heads))
        if run.main:
            _warn_of_standing_still(config, settings.total_steps)
        return run_loop(
            run,
            model,
            optimizer=optimizer,
            batches=lambda first: make_batches(dataset, plan.batch, range(first, settings.total_steps), options),
            loss=self._loss,
            settings=settings,
            evaluate=self._evaluate,
        )

    def _loss(self, model: nn.Module, batch: Any) -> dict[str, Tensor]:
        """The sum over heads of their cross entropies; each head's gradient is its own."""
        features = batch["features"] if "features" in batch else self.frozen.features(batch["image"])
        with torch.autocast(batch["label"].device.type, enabled=False):
            losses = [F.cross_entropy(logits, batch["label"]) for logits in model(features)]
        return {"cross_entropy": torch.stack(losses).sum()}

    def _evaluate(self, model: nn.Module, step: int, check_stop: Callable[[], None]) -> dict[str, float]:
        """Accuracy on val of the head that is best on what was held out."""
        metrics: dict[str, float] = {}
        self.chosen = 0
        if self.held is not None:
            every = range(len(self.heads))
            self.by_head = [100 * float(right.mean()) for right, _ in self._hits(model, self.held, every, check_stop)]
            self.chosen = int(np.argmax(self.by_head))
            metrics["top1_held_out"] = self.by_head[self.chosen]
        ((self.correct, among_five),) = self._hits(model, self.val, [self.chosen], check_stop)
        low, high = accuracy_interval(self.correct, seed=self.config.seed, resamplings=self.config.bootstrap)
        found = {"top1": 100 * float(self.correct.mean()), "top5": 100 * float(among_five.mean())}
        return {**found, **metrics, "top1_low": low, "top1_high": high}

    def _hits(
        self, model: nn.Module, index: ImageIndex, heads: Sequence[int], check_stop: Callable[[], None]
    ) -> list[tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]]:
        """For some heads, of every image of a set whether its class is the first, and among the first five, (N,)."""
        assert index.labels is not None
        found = [(np.zeros(len(index), dtype=bool), np.zeros(len(index), dtype=bool)) for _ in heads]
        for first, features in self._in_order(index):
            check_stop()
            with torch.autocast(self.run.device.type, enabled=False):
                logits = model(features)
            for (one, five), head in zip(found, heads, strict=True):
                place = slice(first, first + len(logits[head]))
                right = top_hits(logits[head].double().cpu().numpy(), index.labels[place])
                one[place], five[place] = right["top1"], right["top5"]
        return found

    def _in_order(self, index: ImageIndex) -> Iterator[tuple[int, Features]]:
        """(position of its first image, features) of each batch of a set."""
        size, device = self.config.extract_batch, self.run.device
        cached = next((bank for bank in self.banks.values() if bank.labels is index.labels), None)
        if cached is not None:
            for first in range(0, len(index), size):
                places = cached.places[first : first + size]
                rows = {name: np.array(values[places], dtype=np.float32) for name, values in cached.features.items()}
                yield first, {name: torch.from_numpy(value).to(device) for name, value in rows.items()}
            return
        crops = centre_crops(index, self.config)
        workers = self.config.data.num_workers
        for first, images in batches_in_order(crops, len(index), 0, batch_size=size, num_workers=workers):
            yield first, self.frozen.features(images.to(device))


def _warn_of_standing_still(config: ProbeConfig, steps: int) -> None:
    """LARS moves weights by a thousandth of their norm times the rate: made for large batches and many steps."""
    moved = 0.5 * 0.001 * config.learning_rate * steps  # the mean of a cosine is half its peak
    if config.optimizer == "lars" and moved < 1:
        log.warning(
            "LARS at rate %.3g moves the head by %.2g of its norm in %d steps, so it stays near its initial weights: "
            "on few images take --optimizer sgd, or the protocols sweep or logistic",
            *(config.learning_rate, moved, steps),
        )


def _settings(config: ProbeConfig, plan: SamplePlan, index: ImageIndex) -> LoopSettings:
    per_epoch = plan.steps_per_epoch
    total = config.epochs * per_epoch
    if config.warmup_epochs >= config.epochs:
        raise ConfigError(f"warmup_epochs is {config.warmup_epochs}; allowed: below epochs {config.epochs}")
    return LoopSettings(
        total_steps=total,
        steps_per_epoch=per_epoch,
        batch_size=config.batch_size,
        schedule=Schedule(kind="cosine", total_steps=total, warmup_steps=config.warmup_epochs * per_epoch),
        seed=config.seed,
        checkpoint_every=config.checkpoint_every,
        precision=config.precision,
        log_every=config.log_every,
        evaluate_every=config.evaluate_every * per_epoch,
        name_batch=lambda step: [index.path(key.index) for key in plan.batch(step)],
    )
