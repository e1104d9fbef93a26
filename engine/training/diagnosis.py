"""What a diverged run leaves behind: <run>/diverged/report.json, enough to find the cause and to replay the step."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from engine.distributed import gather_objects, rank
from engine.errors import DivergedError
from engine.run import storage
from engine.training.optim import norms_by_group
from engine.training.state import TrainingState, seed_step
from engine.training.transfer import to_device


def raise_diverged(
    state: TrainingState,
    loss: Callable[[nn.Module, Any], dict[str, Tensor]],
    micro_batches: list[Any],
    gradient_norm: Tensor,
    *,
    loss_is_bad: bool,
) -> NoReturn:
    """Write the diagnosis of a step that was not finite and stop, on every rank.

    Args:
        state: before the optimizer moved.
        loss: the task's.
        micro_batches: this rank's part of the step.
        gradient_norm: of the step, over all ranks; NaN or Inf if the gradient is the culprit.
        loss_is_bad: whether this rank's own loss was not finite.

    Raises:
        DivergedError: always.
    """
    gradients = [
        n for n, p in state.model.named_parameters() if p.grad is not None and not bool(p.grad.isfinite().all())
    ]
    seed_step(state.settings.seed, state.step)
    losses, module = _replay(state, loss, micro_batches)
    mine = {
        "rank": rank(),
        "loss_is_bad": loss_is_bad,
        "losses": losses,
        "first_bad_module": module,
        "bad_gradients": gradients[:20],
        "num_bad_gradients": len(gradients),
        "bad_parameters": [n for n, p in state.model.named_parameters() if not bool(p.isfinite().all())][:20],
    }
    everyone = gather_objects(mine)
    step, names = state.step + 1, state.settings.name_batch
    report = {
        "step": step,
        "seed": state.settings.seed,
        "gradient_norm": str(float(gradient_norm)),
        "ranks": everyone,
        "parameter_groups": _as_text(norms_by_group(state.optimizer)),
        "files": names(state.step) if names else None,
    }
    folder = state.run.dir / "diverged"
    if state.run.main:
        with storage.storage_errors(state.run.dir):
            folder.mkdir(exist_ok=True)
            storage.write_json(folder / "report.json", report)
    culprit = max(everyone, key=lambda row: (row["loss_is_bad"], row["num_bad_gradients"]))
    where = culprit["first_bad_module"] or (culprit["bad_gradients"] or ["the loss itself"])[0]
    raise DivergedError(
        f"step {step} is not finite on rank {culprit['rank']} (first in {where}; losses {culprit['losses']}); "
        f"the weights are those of step {step - 1}. Diagnosis: {folder / 'report.json'}. "
        "Replay it from the last checkpoint with --resume --accept-divergence, or start a new run with a lower rate"
    )


def _replay(
    state: TrainingState, loss: Callable[[nn.Module, Any], dict[str, Tensor]], micro_batches: list[Any]
) -> tuple[dict[str, str], str | None]:
    """Run the forward pass again: (losses as text, name of the first module with a bad output)."""
    bad: list[str] = []
    shown: dict[str, str] = {}
    with torch.no_grad(), _watch(state.model, bad):
        for batch in micro_batches:
            with state.autocast():
                losses = loss(state.model, to_device(batch, state.run.device))
            shown = {name: str(float(value)) for name, value in losses.items()}
            if bad or not all(math.isfinite(float(value)) for value in losses.values()):
                break
    return shown, bad[0] if bad else None


@contextmanager
def _watch(model: nn.Module, bad: list[str]) -> Iterator[None]:
    def hook_for(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.is_floating_point() and not bool(output.isfinite().all()):
                bad.append(name)

        return hook

    handles = [module.register_forward_hook(hook_for(name)) for name, module in model.named_modules() if name]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _as_text(rows: list[dict[str, float]]) -> list[dict[str, str]]:
    return [{name: f"{value:.6g}" for name, value in row.items()} for row in rows]
