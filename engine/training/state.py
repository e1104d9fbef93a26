"""What a run carries from step to step, and how it is put on the device, saved and restored."""

import logging
import os
import random
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from engine.data.order import step_seed
from engine.distributed import barrier, copy_from_main, gather_objects, rank, sum_over_ranks, world_size
from engine.errors import CheckpointError, ConfigError
from engine.run import checkpoint
from engine.run.open import Run
from engine.training.optim import Schedule
from engine.training.ranks import prepare_for_ranks
from engine.training.transfer import Transfer, to_device
from engine.training.verdict import Verdict, skips_bad_steps

log = logging.getLogger("mim")
PRECISIONS = {
    "float32": torch.float32,
    "tf32": torch.float32,  # of the tensors; a GPU multiplies them with 10 bits of mantissa
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
FAILED_SAVES_ALLOWED = 2
SKIPPED_STEPS_ALLOWED = 20


Draw = Callable[[nn.Module, int, Callable[[], None]], None]
"""(model or its average, step, check_stop): writes pictures and measures nothing; calls check_stop before each part."""


@dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """What the loop needs to know beyond model, data and loss. Every *_every is in optimizer steps."""

    total_steps: int
    steps_per_epoch: float
    batch_size: int
    schedule: Schedule
    seed: int
    checkpoint_every: int
    precision: str = "bfloat16"
    compile: bool = False
    channels_last: bool = False
    clip_grad: float | None = None
    ema_decay: float | None = None
    ema_warmup_steps: int = 0
    log_every: int = 20
    evaluate_every: int = 0
    evaluate_first: bool = False
    draw: Draw | None = None
    draw_every: int = 0
    deterministic: bool = False
    name_batch: Callable[[int], list[str]] | None = None

    def evaluation_due(self, step: int) -> bool:
        """At the end, every evaluate_every steps (0: not), and before the first step if evaluate_first."""
        if step == 0:
            return self.evaluate_first
        return step == self.total_steps or bool(self.evaluate_every and step % self.evaluate_every == 0)

    def drawing_due(self, step: int) -> bool:
        """Before the first step, every draw_every steps (0: not) and at the end, where there is something to draw."""
        if self.draw is None:
            return False
        return step in (0, self.total_steps) or bool(self.draw_every and step % self.draw_every == 0)

    def evaluations_due(self, until: int) -> list[int]:
        """The steps up to `until` after which an evaluation is due."""
        return [step for step in range(until + 1) if self.evaluation_due(step)]

    def average_decay(self, step: int) -> float:
        """Decay of the moving average after `step` steps: 0.9 of ema_decay rising linearly to it over ema_warmup_steps
        (OpenMixup, whose averages the published networks are)."""
        rising = min(step / self.ema_warmup_steps, 1.0) if self.ema_warmup_steps else 1.0
        return (self.ema_decay or 0.0) * (0.9 + 0.1 * rising)

    def log_due(self, step: int) -> bool:
        """Every log_every steps and at the end."""
        return step % self.log_every == 0 or step == self.total_steps

    def checkpoint_due(self, step: int) -> bool:
        """Every checkpoint_every steps and at the end."""
        return step % self.checkpoint_every == 0 or step == self.total_steps


def seed_step(seed: int, step: int) -> None:
    """Make what this rank draws during a step (drop path, dropout, mixup) a function of (seed, step, rank)."""
    value = step_seed(seed, step, rank())
    random.seed(value)
    np.random.seed(value)
    torch.manual_seed(value)


class Meters:
    """Sums of the losses since the last log line; on the device, so that adding does not wait for it."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Start again from zero."""
        self.sums: dict[str, Tensor] = {}
        self.steps = 0.0

    @classmethod
    def of_rank(cls, stored: list[tuple[dict[str, Tensor], float]], device: torch.device) -> "Meters":
        """This rank's sums; with another number of ranks than stored, the first rank's stand for all."""
        meters = cls()
        sums, meters.steps = stored[rank() if len(stored) == world_size() else 0]
        meters.sums = to_device(sums, device)
        return meters

    def add(self, losses: dict[str, Tensor], weight: float) -> None:
        """Add one micro-batch's losses with its share of the step."""
        for name, value in losses.items():
            term = value.detach().float() * weight
            self.sums[name] = self.sums[name] + term if name in self.sums else term
        self.steps += weight

    def means(self) -> dict[str, float]:
        """Means per step over all ranks, with their sum as "loss"; starts again from zero."""
        names = list(self.sums)
        values = sum_over_ranks(torch.stack([self.sums[name] for name in names])) / (self.steps * world_size())
        means = dict(zip(names, values.tolist(), strict=True))
        self.reset()
        return {"loss": sum(means.values()), **means}


class TrainingState:
    """Weights, optimizer, average, meters and step; `begin` makes them those of the run folder.

    `model` is the plain module whose state is saved; `forward` is the same one as it is called: compiled, and wrapped
    for several ranks.
    """

    def __init__(self, run: Run, model: nn.Module, optimizer: torch.optim.Optimizer, settings: LoopSettings) -> None:
        self.run, self.optimizer, self.settings = run, optimizer, settings
        self.step, self.meters, self.transfer = 0, Meters(), Transfer(run.device)
        self._failed_saves = self._skipped = 0
        self._evaluated_step, self._lines_before = -1, 0
        self.model = _place(model, run.device, settings)
        self.average = _averaged(self.model, settings)
        use_scaler = settings.precision == "float16"
        self.scaler = torch.amp.GradScaler(run.device.type, enabled=use_scaler)
        self.skips_bad_steps = skips_bad_steps(optimizer) and not use_scaler  # a scaler reads the verdict anyway
        self.forward = self.model

    def begin(self) -> None:
        """Restore what a resumed run folder holds, or save the state as it is; then compile, and wrap for the ranks.

        Raises:
            CheckpointError: the folder holds no checkpoint, or one of another network, or nothing can be saved.
            ConfigError: it has taken more steps than are asked for.
        """
        if self.run.resumed:
            self._restore()
        else:
            self.save(must=True)  # a run stopped before its first step resumes too
        self.forward = _wrap(self.model, self.run.device, self.settings)
        self.forward.train()

    def _restore(self) -> None:
        run, due = self.run, self.settings.evaluations_due(self.settings.total_steps)
        folder = run.on_main(lambda: checkpoint.newest(run.dir, due))
        if folder is None:
            raise CheckpointError(f"{run.dir} has taken steps, but holds no checkpoint: start a new run elsewhere")
        snapshot = checkpoint.load(folder)
        self.step = snapshot.step
        if not snapshot.training and self.step < self.settings.total_steps:
            raise CheckpointError(
                f"{run.dir} finished after {self.step} steps and kept its weights, not the optimizer's state, so that "
                "it cannot be made longer (--keep all keeps that, too): start a longer run in a new folder"
            )
        if self.step > self.settings.total_steps:
            raise ConfigError(f"{run.dir} has taken {self.step} steps, more than the {self.settings.total_steps} asked")
        try:
            self._take(snapshot)
        except (RuntimeError, KeyError, ValueError, TypeError) as error:
            raise CheckpointError(f"{folder} does not fit this model and optimizer: {error}") from error
        run.on_main(lambda: run.continue_from(snapshot.step, snapshot.metrics_offset))
        log.info("continuing %s at step %d", run.dir, self.step)

    def _take(self, snapshot: checkpoint.Snapshot) -> None:
        self.model.load_state_dict(snapshot.model)
        if self.average is not None and snapshot.ema is not None:
            self.average.module.load_state_dict(snapshot.ema)
        training = snapshot.training
        if not training:  # of a finished run, which takes no further step
            return
        self.optimizer.load_state_dict(training["optimizer"])
        self.scaler.load_state_dict(training["scaler"])
        self.meters = Meters.of_rank(training["meters"], self.run.device)

    def save(self, *, must: bool) -> None:
        """Write a checkpoint. A failure is tolerated twice in a row, unless the checkpoint `must` be written.

        Raises:
            CheckpointError: on the main rank, when the storage refuses for the third time or `must`.
        """
        # Each rank gets its own sums back when it resumes: added in another order they would round otherwise.
        sums = gather_objects((to_device(self.meters.sums, torch.device("cpu")), self.meters.steps))
        if self.run.main:
            try:
                self.run.flush_metrics()  # a checkpoint counts on every line before it
                checkpoint.save(self.run.dir, self._snapshot(sums))
                self._failed_saves = 0
            except CheckpointError as error:
                self._failed_saves += 1
                if must or self._failed_saves > FAILED_SAVES_ALLOWED:
                    raise
                log.warning("checkpoint of step %d failed, training goes on: %s", self.step, error)
        if must:
            barrier()

    def _snapshot(self, meters: list[tuple[dict[str, Tensor], float]]) -> checkpoint.Snapshot:
        return checkpoint.Snapshot(
            step=self.step,
            model=self.model.state_dict(),
            training={
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
                "meters": meters,
            },
            metrics_offset=self._lines_before if self._evaluated_step == self.step else self.run.metrics_offset(),
            ema=None if self.average is None else self.average.module.state_dict(),
        )

    def begin_evaluation(self) -> None:
        """Remember where metrics.jsonl ends: a checkpoint of this step stands for the state before its evaluation, even
        if it is written after it, because the next step's data could not be had. A resumed run evaluates again."""
        self._evaluated_step, self._lines_before = self.step, self.run.metrics_offset()

    def autocast(self) -> AbstractContextManager[Any]:
        """Mixed precision for a forward pass, or nothing in float32."""
        dtype = PRECISIONS[self.settings.precision]
        return nullcontext() if dtype is torch.float32 else torch.autocast(self.run.device.type, dtype=dtype)

    def gradients_stay_local(self) -> AbstractContextManager[Any]:
        """No exchange of gradients until the last micro-batch of a step."""
        return self.forward.no_sync() if isinstance(self.forward, DistributedDataParallel) else nullcontext()

    def clip(self) -> Tensor:
        """Total gradient norm (before clipping); clips to settings.clip_grad if that is set."""
        self.scaler.unscale_(self.optimizer)
        gradients = [p.grad for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients, foreach=True)
        if self.settings.clip_grad is not None:
            parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
            torch.nn.utils.clip_grads_with_norm_(parameters, self.settings.clip_grad, norm, foreach=True)
        return norm

    def gradient_fault(self, gradient_norm: Tensor) -> Tensor:
        """1 if the gradient makes the step impossible, else 0. float16 may overflow and skip a few steps in a row."""
        fault = (~torch.isfinite(gradient_norm)).float()
        if not self.scaler.is_enabled():
            return fault
        self._skipped = self._skipped + 1 if bool(fault) else 0
        return fault if self._skipped >= SKIPPED_STEPS_ALLOWED else torch.zeros_like(fault)

    def move_weights(self, verdict: Verdict) -> None:
        """The optimizer's step. If it `skips_bad_steps` it moves nothing after a bad verdict; otherwise the verdict
        must be known to be good."""
        if self.skips_bad_steps:
            self.optimizer.found_inf = verdict.found_inf  # type: ignore[attr-defined]
            self.optimizer.step()
            return
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def update_average(self) -> None:
        """Move the exponential moving average, if there is one."""
        if self.average is not None:
            self.average.decay = self.settings.average_decay(self.step)
            self.average.update(self.model, step=self.step)

    def evaluation_model(self) -> nn.Module:
        """The average if there is one, else the model; on every rank with the main one's buffers, which are saved.

        Plain BatchNorm statistics differ between ranks after a step, and a resumed run evaluates with the saved ones.
        """
        model: nn.Module = self.average.module if self.average is not None else self.model
        for buffer in model.buffers():
            copy_from_main(buffer)
        return model


def _averaged(model: nn.Module, settings: LoopSettings) -> Any:
    if settings.ema_decay is None:
        return None
    from timm.utils.model_ema import ModelEmaV3  # importing timm takes seconds, and most runs average nothing

    return ModelEmaV3(model, decay=settings.ema_decay)


def set_backends(precision: str, device: torch.device, *, deterministic: bool = False) -> None:
    """Set how this process computes on a device, before anything is.

    On a GPU only "float32" multiplies float32 numbers exactly; with the others what stays float32 is multiplied in TF32
    (range of float32, 10 bits of mantissa), three to eight times as fast. A CPU has no TF32.

    Args:
        precision: of PRECISIONS.
        device: where.
        deterministic: only algorithms that repeat exactly; otherwise cuDNN tries several and keeps the fastest.

    Raises:
        ConfigError: there is no such precision.
    """
    if precision not in PRECISIONS:
        raise ConfigError(f"precision {precision!r}: choose one of {', '.join(PRECISIONS)}")
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision != "float32"
        torch.backends.cudnn.benchmark = not deterministic
        if deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it at its first product
    torch.use_deterministic_algorithms(deterministic, warn_only=True)


def float32_products(device: torch.device) -> str:
    """How float32 numbers are multiplied there now: "float32" or "tf32"."""
    return "tf32" if device.type == "cuda" and torch.backends.cuda.matmul.allow_tf32 else "float32"


def _place(model: nn.Module, device: torch.device, settings: LoopSettings) -> nn.Module:
    if world_size() > 1:
        model = prepare_for_ranks(model, device)
    model = model.to(device)
    return model.to(memory_format=torch.channels_last) if settings.channels_last else model


def _wrap(model: nn.Module, device: torch.device, settings: LoopSettings) -> nn.Module:
    forward: nn.Module = model
    if settings.compile:
        forward = torch.compile(forward)  # type: ignore[assignment]
    if world_size() > 1:
        ids = [device.index] if device.type == "cuda" else None
        # It sends rank 0's buffers to the others before each forward pass. Plain BatchNorm statistics thus follow the
        # rank that is saved; otherwise resuming could not be exact.
        forward = DistributedDataParallel(forward, device_ids=ids)
    return forward
