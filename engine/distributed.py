"""Ranks: start and end of torch.distributed, sums over ranks. With one process every function is the identity."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from engine.errors import ConfigError


def rank() -> int:
    """This process's number, 0 to world_size() - 1."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """Whether this rank writes the run folder."""
    return rank() == 0


def pick_device() -> torch.device:
    """This rank's device: its GPU if there are any, else the CPU. MIM_DEVICE=cpu|cuda overrides.

    Raises:
        ConfigError: a GPU is asked for and there is none, or there are more local ranks than GPUs.
    """
    wanted = os.environ.get("MIM_DEVICE", "cuda" if torch.cuda.is_available() else "cpu")
    if wanted == "cpu":
        return torch.device("cpu")
    if wanted != "cuda" or not torch.cuda.is_available():
        raise ConfigError(f"MIM_DEVICE={wanted}: this machine offers cpu{' and cuda' * torch.cuda.is_available()}")
    local_rank = int(os.environ.get("LOCAL_RANK", 0))
    if local_rank >= torch.cuda.device_count():
        raise ConfigError(
            f"local rank {local_rank} has no GPU: this machine has {torch.cuda.device_count()}, "
            "start that many processes (torchrun --nproc-per-node) or set MIM_DEVICE=cpu"
        )
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Join the group that torchrun or Slurm described in the environment, if any, for the duration of a run.

    A lost rank is noticed by the others after MIM_TIMEOUT_S seconds (600 by default).
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1 or dist.is_initialized():
        yield
        return
    seconds = float(os.environ.get("MIM_TIMEOUT_S", 600))
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=timedelta(seconds=seconds))
    try:
        yield
    finally:
        dist.destroy_process_group()


def sum_over_ranks(values: torch.Tensor) -> torch.Tensor:
    """The sum of `values` (any shape) over all ranks."""
    if world_size() > 1:
        dist.all_reduce(values)
    return values


def max_over_ranks(values: torch.Tensor) -> torch.Tensor:
    """The element-wise maximum of `values` (any shape) over all ranks."""
    if world_size() > 1:
        dist.all_reduce(values, op=dist.ReduceOp.MAX)
    return values


def copy_from_main(values: torch.Tensor) -> None:
    """Overwrite `values` (any shape) with the main rank's."""
    if world_size() > 1:
        dist.broadcast(values, src=0)


def gather_objects(value: Any) -> list[Any]:
    """Every rank's small picklable `value`, in rank order, on every rank."""
    if world_size() == 1:
        return [value]
    gathered: list[Any] = [None] * world_size()
    dist.all_gather_object(gathered, value)
    return gathered


def barrier() -> None:
    """Wait until every rank is here."""
    if world_size() > 1:
        dist.barrier()
