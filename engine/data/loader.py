"""The processes that read batches: a batch is cut into ranks and micro-batches, and workers that die are named."""

import atexit
import ctypes
import functools
import logging
import multiprocessing.queues
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch._utils import ExceptionWrapper
from torch.utils.data import DataLoader, Dataset, Sampler
from torch.utils.data.dataloader import _BaseDataLoaderIter

from engine.cores import allowed_cores
from engine.data.order import SampleKey
from engine.errors import ConfigError, DataError
from engine.processes import READERS

log = logging.getLogger("mim")

STOP_SIGNALS = {signal.SIGTERM, signal.SIGUSR2, signal.SIGINT}
_SET_SIGNAL_AT_PARENTS_DEATH = 1  # PR_SET_PDEATHSIG


_ERROR_NAME = re.compile(r"^(?:\w+\.)+\w*Error: ", re.MULTILINE)  # where the text of an error begins in a traceback


@dataclass(frozen=True, kw_only=True)
class LoaderOptions:
    """How a rank reads its part of each batch."""

    num_workers: int = 0
    accumulation: int = 1
    rank: int = 0
    world_size: int = 1
    pin_memory: bool = False
    collate: Callable[[list[Any]], Any] | None = None


def micro_batches(keys: list[SampleKey], options: LoaderOptions) -> list[list[SampleKey]]:
    """This rank's part of a global batch, as one list per accumulation step.

    Raises:
        ConfigError: the batch does not divide by ranks times accumulation.
    """
    parts = options.world_size * options.accumulation
    if len(keys) % parts:
        raise ConfigError(
            f"batch_size {len(keys)} does not divide into {options.world_size} ranks x {options.accumulation} "
            f"accumulation steps: use a multiple of {parts}"
        )
    size = len(keys) // parts
    mine = keys[options.rank * size * options.accumulation : (options.rank + 1) * size * options.accumulation]
    return [mine[i * size : (i + 1) * size] for i in range(options.accumulation)]


class _StepSampler(Sampler[list[SampleKey]]):
    """Yields the micro-batches of steps first_step..last_step-1, flattened."""

    def __init__(self, batch: Callable[[int], list[SampleKey]], steps: range, options: LoaderOptions) -> None:
        self.batch, self.steps, self.options = batch, steps, options

    def __iter__(self) -> Iterator[list[SampleKey]]:
        for step in self.steps:
            yield from micro_batches(self.batch(step), self.options)

    def __len__(self) -> int:
        return len(self.steps) * self.options.accumulation


def make_batches(
    dataset: Dataset[Any], batch: Callable[[int], list[SampleKey]], steps: range, options: LoaderOptions
) -> Iterator[list[Any]]:
    """Read the steps' batches in order; each item is one optimizer step's list of micro-batches.

    Args:
        dataset: map-style, `dataset[SampleKey]`.
        batch: a plan's `batch` method: step -> global batch.
        steps: which steps, starting where the run stands.
        options: workers, rank, accumulation.
    """
    num_workers = worker_processes(options.num_workers)
    loader = DataLoader(
        dataset,
        batch_sampler=_StepSampler(batch, steps, options),
        num_workers=num_workers,
        multiprocessing_context=READERS if num_workers else None,
        collate_fn=options.collate,
        pin_memory=options.pin_memory,
        worker_init_fn=_quiet_worker if num_workers else None,
        # Without a generator of its own, making the iterator would draw from torch's global one.
        generator=torch.Generator().manual_seed(0),
    )
    micro = _start_workers(loader)
    # The traceback of the error that ends a run keeps this generator alive, often beyond the interpreter's last chance.
    stop = functools.partial(_stop_workers, micro)
    atexit.register(stop)
    try:
        while True:
            group = [item for _, item in zip(range(options.accumulation), micro, strict=False)]
            if not group:
                return
            yield group
    except (RuntimeError, EOFError, OSError) as error:
        if num_workers and (death := _death_of_worker(error)):
            raise death from error
        raise
    except DataError as error:  # a worker's error arrives with the worker's traceback as its text
        raise DataError(_ERROR_NAME.split(str(error))[-1].strip()) from None
    finally:
        atexit.unregister(stop)
        stop()


def worker_processes(asked: int) -> int:
    """Reader processes of a rank: as many as asked for, but no more than its share of the cores.

    What is read, and in which order, does not depend on their number. More than the cores only cost memory and time to
    start: recipes ask for what feeds a GPU, and a laptop has not got so many. Says so once where it takes fewer.
    """
    ranks = os.environ.get("LOCAL_WORLD_SIZE", "")
    share = max(allowed_cores() // (int(ranks) if ranks.isdecimal() and int(ranks) else 1), 1)
    if asked > share:
        _say_fewer(asked, share)
    return min(asked, share)


@functools.cache  # once, not at every evaluation
def _say_fewer(asked: int, share: int) -> None:
    log.info("reader processes: %d, one for each core that is to be had (%d asked for)", share, asked)


def _start_workers(loader: DataLoader[Any]) -> Iterator[Any]:
    """Start the workers with the stop signals blocked, so that a signal to the whole process group cannot kill one
    before it ignores them (engine/training/stop.py handles them in the parent).

    torch's SIGCHLD handler is taken out again: it raises wherever the process is when a worker dies, in the middle of a
    step and on one rank only. The loader finds the death within five seconds when it waits for the worker's batch, and
    there all ranks save and stop together.
    """
    if loader.num_workers == 0:
        return iter(loader)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    on_child = signal.getsignal(signal.SIGCHLD) or signal.SIG_DFL
    try:
        return iter(loader)
    except OSError as error:  # a semaphore in /dev/shm, a pipe, a process that could not be had
        for frame, _ in traceback.walk_tb(error.__traceback__):
            half_made = frame.f_locals.get("self")
            if isinstance(half_made, _BaseDataLoaderIter):
                half_made._shutdown = True  # type: ignore[attr-defined]  # it would complain when it is collected
        raise DataError(f"the loader's workers cannot be started ({error}){_shared_memory()}: {_REMEDY}") from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGCHLD, on_child)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _stop_workers(batches: Iterator[Any]) -> None:
    """End the workers while their queues still work. Left to the garbage collector, the queue may be closed before the
    worker is told to end, and torch's last resort is SIGTERM, which a quiet worker ignores: the process would never
    exit."""
    if hasattr(batches, "_shutdown_workers"):
        batches._shutdown_workers()


def _quiet_worker(worker_id: int) -> None:
    torch.set_num_threads(1)
    if sys.platform == "linux":
        # A worker whose parent was killed would wait for ever to get rid of what it has read, and keep its memory.
        ctypes.CDLL(None).prctl(_SET_SIGNAL_AT_PARENTS_DEATH, signal.SIGKILL)
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    # A batch that cannot be handed over would only be printed, and the run wait for it for ever.
    multiprocessing.queues.Queue._on_queue_feeder_error = _hand_over_error  # type: ignore[attr-defined]


def _hand_over_error(queue: Any, error: Exception, item: Any) -> None:
    """Send the error in place of the batch `item`, a pair of its number and its content."""
    shown = ExceptionWrapper((type(error), error, error.__traceback__), "in a loader worker")  # type: ignore[no-untyped-call]
    queue.put((item[0], shown))


_REMEDY = "use fewer (--data.num-workers) or none (--data.num-workers 0), then --resume"
_NO_SHARED_MEMORY = re.compile(
    r"unable to [^\n]*</torch_[^\n]*"
    r"|[^\n]*Too many open files[^\n]*|received 0 items of ancdata"
)


def _death_of_worker(error: Exception) -> DataError | None:
    text = str(error)
    if starved := _NO_SHARED_MEMORY.search(text):
        return DataError(f"a loader worker cannot pass its batch on ({starved.group()}){_shared_memory()}: {_REMEDY}")
    missed = "DataLoader worker" in text and ("exited unexpectedly" in text or "killed by signal" in text)
    # Its batch was announced, but it was gone when the batch's memory was to be handed over: to this process, or to the
    # thread that pins memory.
    gone = isinstance(error, EOFError | ConnectionError) and not text.startswith("Caught ")
    if not (missed or gone or text == "Pin memory thread exited unexpectedly"):
        return None
    what = (text or type(error).__name__).splitlines()[0]
    if "Segmentation fault" in what or "Aborted" in what:
        return DataError(
            f"a loader worker crashed ({what}) in a library that reads the data; without workers "
            "(--data.num-workers 0) the run ends at the same file. Then --resume"
        )
    where = _shared_memory() if "Bus error" in what else ""
    return DataError(
        f"a loader worker died ({what}){where}. The kernel kills one when memory runs out (dmesg says so); {_REMEDY}"
    )


def _shared_memory() -> str:
    """How much room /dev/shm has, through which workers hand over their batches."""
    try:
        room = os.statvfs("/dev/shm")
    except OSError as error:
        return f"; /dev/shm cannot be used ({error.strerror})"
    total, free = (blocks * room.f_frsize / 2**20 for blocks in (room.f_blocks, room.f_bavail))
    return f"; /dev/shm, through which batches go, has {free:.1f} of {total:.1f} MiB free (Docker: --shm-size)"
