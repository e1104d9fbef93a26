"""Full GPU memory, said so that it can be acted on."""

from collections.abc import Mapping
from typing import Any

import torch

from engine.errors import MemoryExhaustedError


def explain(error: BaseException, settings: Mapping[str, Any] | None = None) -> BaseException:
    """An error as people should see it: torch's full memory becomes one of ours, others stay what they are.

    Args:
        error: any.
        settings: the configuration of the run it happened in, of which batch, image size and accumulation are named.
    """
    if not isinstance(error, torch.OutOfMemoryError):
        return error
    peak = torch.cuda.max_memory_allocated() / 1e9 if torch.cuda.is_available() else 0.0
    known = settings or {}
    names = ("batch_size", "image_size", "accumulation")
    where = "".join(f", {name} {known[name]}" for name in names if known.get(name) is not None)
    pieces = 2 * (known.get("accumulation") or 1)
    reason = str(error).split(". ")[0]
    return MemoryExhaustedError(
        f"out of memory ({reason}; peak {peak:.1f} GB{where}). The batch is not made smaller for you, "
        f"for that would change the result: start again in another run folder with --accumulation {pieces} or more, "
        "which computes the same global batch in smaller pieces"
    )
