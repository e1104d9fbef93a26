"""The largest batch of a pre-training step that fits, found by doubling."""

import gc
import math
from dataclasses import replace
from typing import Any

import torch

from benchmarks.speed.gpu.part import Part
from benchmarks.speed.gpu.speed import method_steps
from benchmarks.speed.step import Steps

FIRST = 64
ROOM = 0.97  # of the card's memory; the rest is the libraries' and what lies between tensors
SECONDS = 10  # that a try may take


def run(part: Part) -> None:
    """A2MIM on every network, at 224 pixels; two steps each, the second with the optimizer's moments."""
    for model in part.models:
        with part.record.attempt(model):
            _largest(part, model)


def _largest(part: Part, model: str) -> None:
    """From what a small batch takes follows the power of two to begin with; it counts only once it ran."""
    smallest = 2 if part.small else FIRST
    steps: Any = method_steps(part, model, "a2mim", smallest)
    peak = _try(steps, smallest)
    if peak is None:
        raise RuntimeError(f"not even {smallest} images fit")
    fits, too_many, batch_size, total = smallest, None, 2 * smallest, 0
    if not part.small:
        kept, total = torch.cuda.memory_allocated(), torch.cuda.mem_get_info()[1]
        likely = (ROOM * total - kept) / ((peak - kept) / smallest)
        batch_size = max(2 ** math.floor(math.log2(likely)), batch_size)
    while too_many != batch_size and fits < batch_size and part.left() > SECONDS:
        found = _try(steps, batch_size)
        if found is None:
            too_many, batch_size = batch_size, batch_size // 2
        else:
            fits, peak, batch_size = batch_size, found, batch_size if part.small else 2 * batch_size
    note = "" if part.small else f"{peak / 1e9:.3g} GB of {total / 1e9:.3g}; "
    note += f"{too_many} did not fit" if too_many else "more was not tried"
    part.record.add(f"a2mim {model}: largest batch, bfloat16", fits, "images", note=note)


def _try(steps: Steps, batch_size: int) -> int | None:
    """The most memory that two steps took; None if they did not fit."""
    on_gpu, settings = steps.settings.device.type == "cuda", replace(steps.settings, batch_size=batch_size)
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    try:
        tried = Steps(steps.config, steps.model, steps.optimizer, settings)
        tried.step()
        tried.step()
    except torch.OutOfMemoryError:
        return None
    finally:
        tried = None  # type: ignore[assignment]
        steps.optimizer.zero_grad(set_to_none=True)
        gc.collect()
        if on_gpu:
            torch.cuda.empty_cache()
    return torch.cuda.max_memory_allocated() if on_gpu else 0
