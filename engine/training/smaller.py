"""A step did not fit in the device's memory: which smaller pieces do, found by trying them."""

import gc
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from engine.distributed import world_size
from engine.training.state import TrainingState


@contextmanager
def smaller_pieces_tried(
    state: TrainingState, loss: Callable[[nn.Module, Any], dict[str, Tensor]], micro_batches: list[Any]
) -> Iterator[None]:
    """In the block is a step; if it does not fit, its torch.OutOfMemoryError gets `pieces`: how many fit, or None."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        error.pieces = _pieces_that_fit(error, state, loss, micro_batches)  # type: ignore[attr-defined]
        raise


def _pieces_that_fit(
    error: BaseException,
    state: TrainingState,
    loss: Callable[[nn.Module, Any], dict[str, Tensor]],
    micro_batches: list[Any],
) -> int | None:
    """The smallest number of pieces of the step whose first piece went forward and backward here, beside the
    optimizer's state; None if it was not tried (other ranks would have to take part, or every size be compiled) or none
    fits. The run ends with this: statistics have moved, gradients are gone, the tensors of the error's frames too."""
    if world_size() > 1 or state.settings.compile:
        return None
    count, size = len(micro_batches), state.settings.batch_size // len(micro_batches)
    tried = 1
    for pieces in (n for n in range(2, size + 1) if size % n == 0):
        if pieces < 2 * tried:
            continue
        tried = pieces
        traceback.clear_frames(error.__traceback__)
        _free(state)
        try:
            _try(state, loss, _first(micro_batches[0], size, size // pieces))
        except torch.OutOfMemoryError as again:
            error = again
        except Exception:  # what needs more images, such as batch norm
            return None
        else:
            return pieces * count
    return None


def _try(state: TrainingState, loss: Callable[[nn.Module, Any], dict[str, Tensor]], batch: Any) -> None:
    parameters = [p for p in state.model.parameters() if p.requires_grad]
    # Two moments, as AdamW and LAMB keep them; the first step has yet to make them.
    room = [] if state.optimizer.state else [torch.empty_like(p) for p in parameters for _ in range(2)]
    with state.autocast():
        losses = loss(state.forward, batch)
    torch.stack([value.float() for value in losses.values()]).sum().backward()  # type: ignore[no-untyped-call]
    room.clear()


def _free(state: TrainingState) -> None:
    state.optimizer.zero_grad(set_to_none=True)
    gc.collect()
    if state.run.device.type == "cuda":
        torch.cuda.empty_cache()


def _first(batch: Any, size: int, wanted: int) -> Any:
    """The first `wanted` images of a nested micro-batch of `size` of them."""
    if isinstance(batch, dict):
        return {key: _first(value, size, wanted) for key, value in batch.items()}
    if isinstance(batch, Tensor):
        return batch[:wanted] if batch.ndim and len(batch) == size else batch
    if isinstance(batch, list | tuple):
        return batch[:wanted] if len(batch) == size else type(batch)(_first(value, size, wanted) for value in batch)
    return batch
