"""A complete small task over the engine, run as a process by the engine's tests: 48 samples, a convolutional network
with batch norm and dropout, its own data drawn from the sample keys."""

import dataclasses
import os
import signal
import sys
import time
from pathlib import Path

import torch
from torch import nn

from engine import cli
from engine.data.loader import LoaderOptions, make_batches
from engine.data.order import SampleKey, SamplePlan, generator
from engine.distributed import rank, world_size
from engine.errors import DataError
from engine.loop import run_loop
from engine.run.open import open_run
from engine.training.optim import Schedule, parameter_groups
from engine.training.state import LoopSettings


@dataclasses.dataclass(frozen=True, kw_only=True)
class TinyData:
    num_workers: int = 0
    "Loader processes."


@dataclasses.dataclass(frozen=True, kw_only=True)
class TinyConfig:
    steps: int = 14
    batch_size: int = 8
    accumulation: int = 1
    seed: int = 0
    learning_rate: float = 0.05
    fused: bool = False
    "The optimizer skips a bad step itself, and the loop learns of it later."
    ema: bool = False
    checkpoint_every: int = 4
    log_every: int = 3
    evaluate_every: int = 5
    precision: str = "float32"
    poison_step: int = -1
    "Make the loss of this step NaN, on rank `poison_rank`."
    poison_rank: int = 0
    poison_gradient: bool = False
    poison_memory: bool = False
    "Run out of memory in this step instead."
    signal_at: str = ""
    "STEP:SIGNAL - raise this signal in the process when the step's batch is used."
    slow: float = 0.0
    "Seconds to wait in each step."
    hold: str = ""
    """Steps, as in "0,7" - stay before the first step and in step 7 until RUN_DIR.go says a number as high, or the run
    is asked to stop: tests interrupt where they mean to, however busy the machine."""
    data: TinyData = TinyData()

    def problems(self) -> list[str]:
        found = []
        if self.learning_rate <= 0:
            found.append(f"learning_rate {self.learning_rate}: must be above 0")
        if not self.steps > 0:
            found.append(f"steps {self.steps}: must be above 0")
        return found


class TinyDataset(torch.utils.data.Dataset):
    def __init__(self, seed):
        self.seed = seed

    def __getitem__(self, key: SampleKey):
        if os.environ.get("TINY_BAD_SAMPLE") == str(key.index) and key.epoch == 1:
            raise DataError(f"sample {key.index}: cannot be read")
        rng = generator(self.seed, key)
        label = key.index % 4
        image = rng.normal(size=(3, 8, 8)).astype("float32") + label
        return {"image": torch.from_numpy(image), "label": label, "step_hint": key.epoch}


def build() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 4),
    )


def train(config: TinyConfig, run_dir: Path, *, recipe="tiny", resume=False, accept_divergence=False, package="tiny"):
    torch.set_num_threads(1)
    with open_run(
        run_dir, config, package=package, recipe=recipe, resume=resume, accept_divergence=accept_divergence
    ) as run:
        if run.finished() is not None:
            return run.finished()
        task = Task(config, run_dir)
        model = build()
        groups = parameter_groups(
            model.named_parameters(), learning_rate=config.learning_rate, weight_decay=0.05, no_decay=["bias"]
        )
        _hold(config, 0, run_dir)
        metrics = run_loop(
            run,
            model,
            optimizer=torch.optim.AdamW(groups, fused=config.fused),
            batches=task.batches,
            loss=task.loss,
            settings=task.settings(),
            evaluate=task.evaluate,
        )
        run.finish(metrics)
        return metrics


class Task:
    """Data, loss and evaluation of a run, and the accidents its configuration asks for."""

    def __init__(self, config: TinyConfig, run_dir: Path) -> None:
        self.config, self.run_dir = config, run_dir
        self.dataset, self.plan = TinyDataset(config.seed), SamplePlan(48, config.batch_size, config.seed)
        self.step = 0

    def settings(self) -> LoopSettings:
        config = self.config
        return LoopSettings(
            total_steps=config.steps,
            steps_per_epoch=self.plan.steps_per_epoch,
            batch_size=config.batch_size,
            schedule=Schedule(kind="cosine", total_steps=config.steps, warmup_steps=2),
            seed=config.seed,
            checkpoint_every=config.checkpoint_every,
            precision=config.precision,
            log_every=config.log_every,
            ema_decay=0.9 if config.ema else None,
            evaluate_every=config.evaluate_every,
            name_batch=lambda step: [f"sample {key.index}" for key in self.plan.batch(step)],
        )

    def batches(self, first):
        self.step = first
        workers, accumulation = self.config.data.num_workers, self.config.accumulation
        options = LoaderOptions(num_workers=workers, accumulation=accumulation, rank=rank(), world_size=world_size())
        return make_batches(self.dataset, self.plan.batch, range(first, self.config.steps), options)

    def loss(self, model, batch):
        config, step = self.config, self.step + 1
        if model.training:
            self.step = step
        if config.signal_at and config.signal_at.split(":")[0] == str(step):
            os.kill(os.getpid(), int(config.signal_at.split(":")[1]))
        time.sleep(config.slow)
        if model.training:
            _hold(config, step, self.run_dir)
        logits = model(batch["image"]).float()
        value = nn.functional.cross_entropy(logits, batch["label"])
        poisoned = step == config.poison_step and rank() == config.poison_rank
        return {"cross_entropy": _poison(config, logits, value) if poisoned else value}

    def evaluate(self, model, step, check_stop):
        check_stop()
        x = torch.stack([self.dataset[SampleKey(10**6, i)]["image"] for i in range(16)])
        labels = torch.arange(16) % 4
        return {"accuracy": float((model(x).argmax(1) == labels).float().mean())}


def _poison(config: TinyConfig, logits: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    if config.poison_memory:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
    if config.poison_gradient:
        logits.register_hook(lambda g: g * float("inf"))
        return value
    return value * float("nan")


def _hold(config: TinyConfig, step: int, run_dir: Path) -> None:
    if str(step) not in config.hold.split(","):
        return
    go = run_dir.with_name(f"{run_dir.name}.go")
    flag = getattr(
        signal.getsignal(signal.SIGTERM), "__self__", None
    )  # engine.training.stop's, which the handler belongs to
    while not getattr(flag, "asked", False) and not (go.exists() and int(go.read_text() or 0) >= step):
        time.sleep(0.02)


def tiny(style: str = "plain") -> TinyConfig:
    """A tiny run.

    Expected: nothing.
    """
    return TinyConfig(steps=14 if style == "plain" else 6)


if __name__ == "__main__":
    cli.main("tiny", {"tiny": tiny, "tiny-short": lambda: tiny("short")}, train, sys.argv[1:])
