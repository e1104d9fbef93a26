"""Ranks: start and end of torch.distributed, sums over ranks. With one process every function is the identity."""

import contextlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from engine.errors import ConfigError, RankLostError
from engine.run import lock

_DEFAULT_TIMEOUT_S = 600.0
_LONGEST_TIMEOUT_S = 30 * 24 * 3600.0
_FAILED = re.compile(r"gloo|NCCL|ProcessGroup|TCPStore|[Cc]onnection (closed|reset|refused)|Broken pipe")

_everyone: list[dict[str, Any]] = []  # the ranks' processes (engine.run.lock.identity), to find out which one is gone


def rank() -> int:
    """This process's number, 0 to world_size() - 1."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """Whether this rank writes the run folder."""
    return rank() == 0


def check_environment() -> None:
    """Refuse the variables that torchrun or Slurm would have set, and our own, where they make no sense: left over from
    another shell, empty, or misspelt.

    Raises:
        ConfigError: naming the variable, its value and what to do.
    """
    ranks = _whole_number("WORLD_SIZE", 1, least=1)
    _whole_number("LOCAL_RANK", 0, least=0)
    _timeout_s()
    if ranks == 1:
        return
    remedy = f"start all {ranks} processes with torchrun, or `unset WORLD_SIZE` for a single one"
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        if not os.environ.get(name):
            raise ConfigError(f"WORLD_SIZE is {ranks}, but {name} is not set: {remedy}")
    _whole_number("RANK", 0, least=0, most=ranks - 1)
    _whole_number("MASTER_PORT", 0, least=1, most=65535)


def _whole_number(name: str, default: int, *, least: int, most: int | None = None) -> int:
    text = os.environ.get(name)
    if text is None:
        return default
    # isdecimal: int() takes "1_0" and Arabic digits too, and the libraries that read the same variable do not
    if text.isascii() and text.isdecimal() and int(text) >= least and (most is None or int(text) <= most):
        return int(text)
    allowed = f"{least} or more" if most is None else f"{least} to {most}"
    raise ConfigError(f"the environment variable {name} is {text!r}; allowed: a whole number, {allowed} (unset {name})")


def _timeout_s() -> float:
    text = os.environ.get("MIM_TIMEOUT_S")
    if text is None:
        return _DEFAULT_TIMEOUT_S
    with contextlib.suppress(ValueError):
        if 0 < float(text) <= _LONGEST_TIMEOUT_S:
            return float(text)
    raise ConfigError(
        f"the environment variable MIM_TIMEOUT_S is {text!r}; allowed: seconds, a number above 0 and at most "
        f"{_LONGEST_TIMEOUT_S:.0f}, such as MIM_TIMEOUT_S={_DEFAULT_TIMEOUT_S:.0f}"
    )


def pick_device() -> torch.device:
    """This rank's device: its GPU if there are any, else the CPU. MIM_DEVICE=cpu|cuda overrides.

    Raises:
        ConfigError: a GPU is asked for and there is none, there are more local ranks than GPUs, or a variable of the
            environment makes no sense (`check_environment`).
    """
    check_environment()
    wanted = os.environ.get("MIM_DEVICE", "cuda" if torch.cuda.is_available() else "cpu")
    if wanted == "cpu":
        return torch.device("cpu")
    if wanted != "cuda" or not torch.cuda.is_available():
        raise ConfigError(f"MIM_DEVICE={wanted}: this machine offers cpu{' and cuda' * torch.cuda.is_available()}")
    local_rank = _whole_number("LOCAL_RANK", 0, least=0)
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

    Raises:
        ConfigError: the variables make no sense, or the other ranks did not come.
        RankLostError: another rank was lost in the block.
    """
    check_environment()
    ranks = _whole_number("WORLD_SIZE", 1, least=1)
    if ranks == 1 or dist.is_initialized():
        yield
        return
    seconds = _timeout_s()
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"  # flags need not pass through a busy GPU
    try:
        dist.init_process_group(backend, timeout=timedelta(seconds=seconds))
        _everyone[:] = gather_objects(lock.identity())
    except (ValueError, RuntimeError) as error:
        with contextlib.suppress(Exception):
            dist.destroy_process_group()
        where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise ConfigError(
            f"the {ranks} ranks that WORLD_SIZE announces did not meet at {where} (MASTER_ADDR, MASTER_PORT) within "
            f"{seconds:.0f} s: start them with torchrun, or `unset WORLD_SIZE` for a single process "
            f"({_first_line(error)})"
        ) from error
    try:
        yield
    except Exception as error:
        lost = lost_rank(error)
        if lost is None:
            raise
        raise lost from error
    finally:
        with contextlib.suppress(RuntimeError):  # with a rank gone it may fail too, and is not what went wrong
            dist.destroy_process_group()
        _everyone.clear()


def lost_rank(error: BaseException) -> RankLostError | None:
    """An error of the communication between ranks, said so that it can be acted on; None for any other error."""
    failed = isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and _FAILED.search(str(error)))
    if world_size() == 1 or not failed:
        return None
    gone = [
        f"rank {i} (process {who['pid']} on {who['host']})" for i, who in enumerate(_everyone) if not lock.alive(who)
    ]
    if gone:
        what = f"{' and '.join(gone)} {'is' if len(gone) == 1 else 'are'} gone; what ended it stands in its own log"
    else:
        what = "a rank on another machine was lost, or one did not answer in time (MIM_TIMEOUT_S)"
    return RankLostError(
        f"rank {rank()} of {world_size()} cannot go on: {what}. --resume continues the run from its last checkpoint "
        f"({_first_line(error)})"
    )


def _first_line(error: BaseException) -> str:
    text = str(error).strip().splitlines() or [type(error).__name__]
    return re.sub(r"^\[[^\]]*\] ?", "", text[0])[:200]  # without the place in gloo's sources


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
