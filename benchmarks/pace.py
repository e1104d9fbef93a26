"""How long a kind of run takes on this machine: a few of its training steps, taken and timed.

They are taken in as many processes at once as there will be runs at once, which then get in each other's way as runs
do, each process with the threads of a run.
"""

import contextlib
import importlib
import logging
import multiprocessing
import os
import signal
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks.plan import Stage
from benchmarks.speed.timing import seconds_of
from engine.errors import SuiteError
from engine.loop import complete_step, take_step
from engine.run import storage
from engine.run.folder import Run
from engine.run.open import open_run
from engine.task import Assembly, Prepared, prepare
from engine.training.state import TrainingState, set_backends

log = logging.getLogger("mim")
Kind = tuple[str, Any]
"""What runs must have in common to be equally fast: the package, and the configuration without start, seed, labels."""

_SECONDS = 3.0  # of the timed steps of one kind, or five of them
_STEPS = 5
_IMAGES = 16  # of a step on a CPU, whose time is proportional to them
_FORWARD = 1 / 3  # of a training step


@dataclass(frozen=True, kw_only=True)
class Pace:
    """What a kind of run costs here.

    Args:
        steps: of the run.
        batch_size: images of a step.
        computing: seconds for an image in a training step.
        reading: seconds for an image to be read, decoded and cropped, by as many cores as the run has.
        overlap: whether images are read while a device computes.
        evaluated: images that all its evaluations look at.
        beginning: seconds before the first step.
        busy: how many times longer everything takes with what else the machine is doing now.
    """

    steps: int
    batch_size: int
    computing: float
    reading: float
    overlap: bool
    evaluated: int
    beginning: float
    busy: float = 1.0

    @property
    def images_per_second(self) -> float:
        """In training, on a machine that does nothing else."""
        return 1 / self._image(self.computing)

    def seconds(self, left: float = 1.0) -> float:
        """Of a run, or of the share of it that is left, on a machine that does nothing else."""
        evaluating = self.evaluated * self._image(self.computing * _FORWARD)
        return self.beginning + left * (self.steps * self.batch_size * self._image(self.computing) + evaluating)

    def _image(self, computing: float) -> float:
        return max(computing, self.reading) if self.overlap else computing + self.reading

    def at(self, *, area: float = 1.0, length: float = 1.0) -> "Pace":
        """Of runs on images of another area, and of another length, each relative to this one's."""
        return replace(
            self,
            steps=max(round(self.steps * length), 1),
            evaluated=round(self.evaluated * length),
            computing=self.computing * area,
        )


def kind_of(stage: Stage) -> Kind:
    """What makes a run as fast as another."""
    config = replace(stage.config, seed=0, **({"init": "none"} if hasattr(stage.config, "init") else {}))
    if hasattr(config.data, "train_fraction"):  # of fewer images an epoch has as many steps
        config = replace(config, data=replace(config.data, train_fraction=1.0))
    return stage.package, config


def measure_here(kind: Kind, threads: int | None = None) -> Pace:
    """Take some steps of a kind of run in this process.

    Args:
        kind: of `kind_of`.
        threads: to compute with; None for what a run takes by itself.

    Raises:
        SuiteError: the run itself would end so.
    """
    package, config = kind
    alone = replace(config, data=replace(config.data, num_workers=0))
    task = importlib.import_module(f"{package}.train").TASK
    began = time.perf_counter()
    with TemporaryDirectory() as folder, open_run(Path(folder) / "run", alone, package=package, recipe="custom") as run:
        if threads is not None:
            torch.set_num_threads(threads)
        parts = task.assemble(run, alone)
        ready = prepare(run, alone, parts)
        beginning = time.perf_counter() - began
        return _take_steps(run, config, parts, ready, beginning)


def _take_steps(run: Run, config: Any, parts: Assembly, ready: Prepared, beginning: float) -> Pace:
    on_cpu, settings = run.device.type == "cpu", ready.settings
    state = TrainingState(run, parts.model, ready.optimizer, settings)
    state.forward.train()
    batches = ready.batches(0)
    cores = torch.get_num_threads() if on_cpu else max(config.data.num_workers, 1)
    clock = time.process_time if on_cpu else time.perf_counter
    reading = min(_timed_read(batches, clock) for _ in range(2))  # the first one finds nothing in memory
    whole = next(batches)
    pieces = [_first(batch, _IMAGES) for batch in whole[:1]] if on_cpu else whole

    def step() -> None:
        set_backends(settings.precision, run.device, deterministic=settings.deterministic)
        complete_step(state, parts.loss, take_step(state, parts.loss, state.transfer.start(pieces)))

    step()
    seconds: list[float] = []
    quiet: list[float] = []
    while len(seconds) < _STEPS and sum(seconds) < _SECONDS:
        before = time.process_time()
        seconds.append(seconds_of(step, 1, run.device))
        quiet.append((time.process_time() - before) / cores if on_cpu else seconds[-1])
    images = min(_IMAGES, config.batch_size // config.accumulation) if on_cpu else config.batch_size
    evaluations = len(settings.evaluations_due(settings.total_steps)) if parts.evaluate is not None else 0
    validation = storage.read_object(run.dir / "data.json").get("val", {}).get("num_images", 0)
    return Pace(
        steps=settings.total_steps,
        batch_size=config.batch_size,
        computing=statistics.median(quiet) / images,
        reading=reading / config.batch_size / cores,
        overlap=not on_cpu,
        evaluated=evaluations * validation,
        beginning=beginning,
        busy=max(sum(seconds) / sum(quiet), 1.0),
    )


def _timed_read(batches: Iterator[Any], clock: Callable[[], float]) -> float:
    started = clock()
    next(batches)
    return clock() - started


def _first(batch: Any, number: int) -> Any:
    """The first samples of a nested batch."""
    if isinstance(batch, dict):
        return {name: _first(value, number) for name, value in batch.items()}
    return batch[:number]


def measure(kinds: Sequence[Kind], *, at_once: int, threads: int | None) -> list[Pace]:
    """Measure kinds of runs in processes of their own, which then let go of the memory and the device.

    Args:
        kinds: of `kind_of`.
        at_once: processes.
        threads: of each.

    Raises:
        SuiteError: the run itself would end so.
        RuntimeError: a process ended by itself.
    """
    context = multiprocessing.get_context("spawn")
    processes, answers = [], []
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # Ctrl-C is for this process, which ends them
    began = time.monotonic()
    try:
        for _ in range(at_once):
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(target=_serve, args=(theirs, kinds, threads), daemon=True)
            process.start()
            theirs.close()
            processes.append(process)
            answers.append(ours)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        found = [_answer(ours, began) for ours in answers]
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        for process in processes:
            process.kill()
            process.join()
    return [_mean(paces) for paces in zip(*found, strict=True)]


def _answer(ours: Connection, began: float) -> list[Pace]:
    try:
        started, found = ours.recv()
    except EOFError as error:
        raise RuntimeError("a measuring process ended by itself (often: not enough memory)") from error
    if isinstance(found, Exception):
        raise found
    return [replace(pace, beginning=pace.beginning + started - began) for pace in found]


def _mean(paces: Sequence[Pace]) -> Pace:
    return replace(
        paces[0],
        computing=statistics.mean(pace.computing for pace in paces),
        reading=statistics.mean(pace.reading for pace in paces),
        beginning=statistics.mean(pace.beginning for pace in paces),
        busy=statistics.mean(pace.busy for pace in paces),
    )


def _serve(theirs: Connection, kinds: Sequence[Kind], threads: int | None) -> None:
    started = time.monotonic()  # packages are imported by now, as a run imports them
    logging.disable(logging.CRITICAL)  # what a run says at its start, it will say
    os.environ["MIM_TRACKERS"] = ""
    if threads is not None:
        os.environ["OMP_NUM_THREADS"] = str(threads)
    try:
        answer: Any = [measure_here(kind, threads) for kind in kinds]
    except SuiteError as error:
        answer = error
    except Exception as error:
        answer = RuntimeError(f"{type(error).__name__}: {error}")
    with contextlib.suppress(OSError):
        theirs.send((started, answer))
