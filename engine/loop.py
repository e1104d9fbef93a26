"""THE training loop. All four tasks run it: exact resume, stopping, the finite check, accumulation, clipping, EMA and
logging are written here once.

Everything random is a function of (seed, epoch, sample) or (seed, step, rank), the learning rate of the step, the data
of the step. So the state is weights, buffers, optimizer, EMA, meters and the step, and a run killed at any instant and
resumed ends with the same bytes as one that never stopped.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from engine.after import resume_command
from engine.distributed import gather_objects, max_over_ranks, world_size
from engine.errors import DataError, StopRequested
from engine.run.open import Run
from engine.training import diagnosis
from engine.training.finite import finite_outputs
from engine.training.progress import Monitor, Stopwatch
from engine.training.smaller import smaller_pieces_tried
from engine.training.state import LoopSettings, TrainingState, float32_products, seed_step, set_backends
from engine.training.stop import StopFlag
from engine.training.verdict import Verdict

log = logging.getLogger("mim")
Batch = Any
Losses = dict[str, Tensor]
Evaluate = Callable[[nn.Module, int, Callable[[], None]], dict[str, float]]


def run_loop(
    run: Run,
    model: nn.Module,
    *,
    optimizer: torch.optim.Optimizer,
    batches: Callable[[int], Iterator[list[Batch]]],
    loss: Callable[[nn.Module, Batch], Losses],
    settings: LoopSettings,
    evaluate: Evaluate | None = None,
) -> dict[str, float]:
    """Train to the last step, from wherever the run folder stands.

    Args:
        run: the claimed run folder.
        model: on the CPU or the run's device; it is moved, wrapped for several ranks and compiled here.
        optimizer: over the model's parameters, its groups with a "base_rate" (engine.training.optim.parameter_groups).
        batches: first step -> iterator over the steps' lists of micro-batches (engine.data.loader.make_batches).
        loss: (model, micro-batch) -> named scalars; their sum is minimised, each is logged. Called under autocast.
        settings: everything else.
        evaluate: (model or its average, step, check_stop) -> metrics; calls check_stop between its batches, equally
            often on every rank.

    Returns:
        The metrics of the last evaluation (empty without one).

    Raises:
        StopRequested: a signal arrived; the state is saved.
        DivergedError: a loss or gradient was not finite, and the weights have not moved; or an evaluation was not.
        CheckpointError: three saves in a row failed, or the last one did; or an evaluation is not in metrics.jsonl.
    """
    state = _begin(run, model, optimizer, settings)
    metrics: dict[str, float] = {}
    with StopFlag() as stop, Monitor(run, settings.total_steps, state.step, settings.steps_per_epoch) as monitor:
        watch, stream = Stopwatch(), batches(state.step)
        ahead: _Ahead | None = None
        while True:
            measuring = evaluate is not None and settings.evaluation_due(state.step)
            if settings.drawing_due(state.step) or measuring:
                metrics = _look_around(evaluate if measuring else None, state, stop, monitor) or metrics
                watch = Stopwatch()
            if state.step == settings.total_steps:
                if metrics:
                    run.require_evaluations(settings.evaluations_due(state.step))
                return metrics
            ahead = ahead or _fetch(stream, state, stop, watch)
            _leave_if_needed(ahead, state, stop)
            with smaller_pieces_tried(state, loss, ahead.micro_batches):
                taken = take_step(state, loss, ahead.micro_batches)
            ahead = _fetch(stream, state, stop, watch) if state.step + 1 < settings.total_steps else None
            complete_step(state, loss, taken)
            watch.images += settings.batch_size
            watch.steps += 1
            monitor.step(state.step)
            if settings.log_due(state.step):
                _log(state, monitor, watch, taken)
            del taken  # and its batch
            if ahead is not None and ahead.stopping:
                _stop(state, stop)
            if settings.checkpoint_due(state.step):
                state.save(must=state.step == settings.total_steps)


def _begin(run: Run, model: nn.Module, optimizer: torch.optim.Optimizer, settings: LoopSettings) -> TrainingState:
    """How this process computes, said and stored, and the state to go on from."""
    set_backends(settings.precision, run.device, deterministic=settings.deterministic)
    run.note(precision=settings.precision, float32_products=float32_products(run.device))
    state = TrainingState(run, model, optimizer, settings)
    state.begin()
    return state


@dataclass(frozen=True)
class _Ahead:
    """The next step's micro-batches, or why there is no next step: some rank was asked to stop, or cannot read its."""

    micro_batches: list[Batch]
    stopping: bool
    problems: list[DataError]


def _fetch(stream: Iterator[list[Batch]], state: TrainingState, stop: StopFlag, watch: Stopwatch) -> _Ahead:
    """Read the next micro-batches and start copying them, while the device is still at work on the step before."""
    started = time.perf_counter()
    micro_batches: list[Batch] = []
    problem: DataError | None = None
    try:
        if not stop.asked:
            micro_batches = state.transfer.start(next(stream))
    except DataError as error:
        problem = error
    watch.data_wait += time.perf_counter() - started
    # On the host, without a word to the devices, which are busy.
    stopping, unreadable = max_over_ranks(torch.tensor([float(stop.asked), float(problem is not None)])).tolist()
    problems = [other for other in gather_objects(problem) if other is not None] if unreadable else []
    return _Ahead(micro_batches, bool(stopping), problems)


def _leave_if_needed(ahead: _Ahead, state: TrainingState, stop: StopFlag) -> None:
    """If any rank was asked to stop, or cannot read its data, all of them save what was learnt until now and leave: the
    run can be continued once the cause is gone."""
    if ahead.problems:
        state.save(must=False)
        raise ahead.problems[0]
    if ahead.stopping:
        _stop(state, stop)


@dataclass(frozen=True)
class Taken:
    """A step that the device was asked to take, and may still be at work on."""

    micro_batches: list[Batch]
    rate: float
    gradient_norm: Tensor
    bad_loss: Tensor
    verdict: Verdict


def take_step(state: TrainingState, loss: Callable[[nn.Module, Batch], Losses], micro_batches: list[Batch]) -> Taken:
    """One optimizer step. Where the optimizer can skip a bad step on the device, nothing here waits for the device."""
    seed_step(state.settings.seed, state.step)
    rate = state.settings.schedule.apply(state.optimizer, state.step)
    bad = torch.zeros((), device=state.run.device)
    micro_batches = state.transfer.finish(micro_batches)
    for i, batch in enumerate(micro_batches):
        last = i == len(micro_batches) - 1
        with nullcontext() if last else state.gradients_stay_local():
            with state.autocast():
                losses = loss(state.forward, batch)
            total = torch.stack([value.float() for value in losses.values()]).sum()
            state.scaler.scale(total / len(micro_batches)).backward()  # type: ignore[no-untyped-call]
        bad += ~torch.isfinite(total.detach())
        state.meters.add(losses, 1 / len(micro_batches))
    gradient_norm = state.clip()

    # Every rank learns whether any rank is in trouble before any weight moves: its device now, its host in
    # complete_step.
    verdict = Verdict(bad + state.gradient_fault(gradient_norm))
    taken = Taken(micro_batches, rate, gradient_norm, bad, verdict)
    if not state.skips_bad_steps:
        _check(state, loss, taken)
    state.move_weights(verdict)
    return taken


def complete_step(state: TrainingState, loss: Callable[[nn.Module, Batch], Losses], taken: Taken) -> None:
    """Make sure that the step counts, and count it. The device has the optimizer's work left to do meanwhile."""
    _check(state, loss, taken)
    state.optimizer.zero_grad(set_to_none=True)
    state.step += 1
    state.update_average()


def _check(state: TrainingState, loss: Callable[[nn.Module, Batch], Losses], taken: Taken) -> None:
    if taken.verdict.is_bad():
        diagnosis.raise_diverged(
            state, loss, taken.micro_batches, taken.gradient_norm, loss_is_bad=bool(taken.bad_loss)
        )


def _log(state: TrainingState, monitor: Monitor, watch: Stopwatch, taken: Taken) -> None:
    """Write the means since the last line, over steps and ranks, and where the time went."""
    values = {**state.meters.means(), "learning_rate": taken.rate, "gradient_norm": float(taken.gradient_norm)}
    if state.scaler.is_enabled():
        values["gradient_scale"] = state.scaler.get_scale()  # falls with every step that float16 had to skip
    timing = watch.lap(state.settings.total_steps - state.step)
    state.run.log("train", state.step, state.step / state.settings.steps_per_epoch, values)
    state.run.time(state.step, timing)
    monitor.show("train", state.step, {**values, **{k: timing[k] for k in ("images_per_second", "data_wait")}})


def _look_around(evaluate: Evaluate | None, state: TrainingState, stop: StopFlag, monitor: Monitor) -> dict[str, float]:
    """Draw after the current step if that is due, and evaluate if there is something to evaluate with."""
    if state.settings.draw is not None and state.settings.drawing_due(state.step):
        monitor.phase("drawing")
        _look(state.settings.draw, state, stop)
    metrics: dict[str, float] = {}
    if evaluate is not None:
        monitor.phase("evaluating")
        metrics = _look(evaluate, state, stop)
    monitor.phase("")
    if metrics:
        state.run.log("val", state.step, state.step / state.settings.steps_per_epoch, metrics)
        monitor.show("val", state.step, metrics)
    return metrics


def _look(look: Callable[..., Any], state: TrainingState, stop: StopFlag) -> Any:
    """Call what looks at the network after the current step: in evaluation mode, without gradients. A look that is
    interrupted is simply done again."""
    started = time.perf_counter()

    def check_stop() -> None:
        if bool(max_over_ranks(torch.tensor(float(stop.asked)))):
            _stop(state, stop)

    state.begin_evaluation()
    average = state.evaluation_model()
    was_training = average.training
    average.eval()
    try:
        with torch.no_grad(), state.autocast(), finite_outputs(average, state.step, state.run.device):
            seen = look(average, state.step, check_stop)
    except DataError:
        if world_size() == 1:  # saving takes all ranks, and only this one may have met the file
            state.save(must=False)
        raise
    average.train(was_training)
    state.run.time(state.step, {"seconds": round(time.perf_counter() - started, 4), "evaluation": 1})
    return seen


def _stop(state: TrainingState, stop: StopFlag) -> None:
    state.save(must=True)
    reason = stop.reason or "another rank's signal"
    raise StopRequested(
        f"stopped by {reason} after step {state.step} of {state.settings.total_steps}; the state is saved: go on with\n"
        f"    {resume_command(state.run.package, state.run.dir)}"
    )
