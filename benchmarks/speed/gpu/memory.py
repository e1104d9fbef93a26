"""The largest batch of a pre-training step that fits, found by doubling."""

import gc

import torch

from benchmarks.speed.gpu.part import Part
from benchmarks.speed.gpu.speed import method_steps

LARGEST = 8192


def run(part: Part) -> None:
    """A2MIM on every network, at 224 pixels; two steps each, the second with the optimizer's moments."""
    for model in part.models:
        with part.record.attempt(model):
            _largest(part, model)


def _largest(part: Part, model: str) -> None:
    fits, batch_size, note = 0, 2 if part.small else 256, ""
    while batch_size <= (4 if part.small else LARGEST) and part.left() > 8:
        if not part.small:
            torch.cuda.reset_peak_memory_stats()
        try:
            steps = method_steps(part, model, "a2mim", batch_size)
            steps.step()
            steps.step()
        except torch.OutOfMemoryError:
            break
        finally:
            steps = None  # type: ignore[assignment]
            gc.collect()
            if not part.small:
                torch.cuda.empty_cache()
        fits, batch_size = batch_size, 2 * batch_size
        if not part.small:
            note = f"{torch.cuda.max_memory_allocated() / 1e9:.3g} GB of {torch.cuda.mem_get_info()[1] / 1e9:.3g}"
    part.record.add(f"a2mim {model}: largest batch, bfloat16", fits, "images", note=note)
