"""What becomes of a batch that does not fit, and the largest of a pre-training step that does, found by doubling."""

import gc
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.scenes.demo_data import write_demo_data
from benchmarks.speed.gpu.part import Part
from benchmarks.speed.gpu.runs import quick, start
from benchmarks.speed.gpu.speed import method_steps
from benchmarks.speed.step import Steps

FIRST = 64
ROOM = 0.97  # of the card's memory; the rest is the libraries' and what lies between tensors
SECONDS = 10  # that a try may take
LEFT_BYTES = 24 * 10**9  # of the card's memory, for a step of 64 images of 1024 pixels, which takes about 70
MOST_TRIES = 3


def run(part: Part) -> None:
    """The stop, then A2MIM on every network, at 224 pixels; two steps each, the second with the optimizer's moments."""
    if part.small:
        part.record.add("out of memory", note="needs a GPU")
    else:
        with part.record.attempt("out of memory"):
            _stop(part, write_demo_data(part.folder / "data", num_train=64, num_val=10, num_workers=8))
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


def _stop(part: Part, data: Path) -> None:
    """A batch that cannot fit in what this process leaves of the card, then what the error advises until it does."""
    free, _ = torch.cuda.mem_get_info()
    occupied = torch.empty(max(free - LEFT_BYTES, 0), dtype=torch.uint8, device=part.device)
    options: tuple[str, ...] = ("--image-size", "1024", "--mask.cell-size", "32", "--batch-size", "64", "--epochs", "1")
    options = (*options, "--visualize-every-epochs", "0", *quick(part))
    pieces, tries = 1, 0
    while True:
        more = ("--accumulation", str(pieces)) if pieces > 1 else ()
        started = start(part, data, "pretrain", f"memory{pieces}", *options, *more)
        code, tries = started.end(part.left()), tries + 1
        if pieces == 1:
            part.record.equal("a batch that cannot fit: exit code", code, 6, started.said())
        if code != 6 or tries == MOST_TRIES:
            part.record.equal(f"with --accumulation {pieces}, as advised: exit code", code, 0, started.said())
            break
        advised = re.search(r"--accumulation (\d+)", started.said())
        if advised is None:
            raise RuntimeError(f"no advice in {started.said()}")
        pieces = int(advised[1])
    del occupied
    torch.cuda.empty_cache()
