"""torch.compile of whole methods without a graph break, equal to eager, and what it gains."""

import os
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from benchmarks.speed.gpu.part import Part
from benchmarks.speed.gpu.speed import bare_steps, method_steps
from benchmarks.speed.isolated import isolated
from benchmarks.speed.timing import Contender, compare, timing

WAVES = (("a2mim",), ("bare", "simmim"))  # compiled at once
WAVE_S, TIMING_S = 60, 25  # what a wave takes at least on a GPU, and its timings
COMPILING = "TORCHINDUCTOR_COMPILE_THREADS"


def run(part: Part) -> None:
    """Compile a wave of networks at once, in processes of their own beside eager ones; time them in pairs, alone."""
    batch_size = 2 if part.small else 64
    for wave in WAVES[:1] if part.small else WAVES:
        if part.left() > (0 if part.small else WAVE_S):
            _wave(part, wave[:1] if part.small else wave, batch_size)


def _wave(part: Part, kinds: tuple[str, ...], batch_size: int) -> None:
    quiet: Any = replace(part, record=None)  # type: ignore[arg-type]  # what a process is given is pickled
    names = [(kind, model) for model in part.models for kind in kinds]
    os.environ[COMPILING] = str(max((os.cpu_count() or 1) // len(names), 1))  # of each of these processes
    makers = {
        (*name, compiled): partial(contender, quiet, *name, batch_size, compiled)
        for name in names
        for compiled in (True, False)
    }
    with ExitStack() as processes, ThreadPoolExecutor(len(makers)) as pool:
        contexts = {key: isolated(make, keep_memory=False) for key, make in makers.items()}
        entered = {key: pool.submit(_enter, context) for key, context in contexts.items()}
        for context in contexts.values():
            processes.push(context)
        wait(entered.values(), timeout=max(part.left() - TIMING_S, 1))
        for kind, model in names:
            name = f"{kind} {model}, batch {batch_size}"
            if not all(entered[kind, model, compiled].done() for compiled in (True, False)):
                part.record.add(f"{name}, compiled", note="it was still compiling when the time was needed for others")
                continue
            with part.record.attempt(f"{name}, compiled"):
                _pair(part, name, *(entered[kind, model, compiled].result() for compiled in (True, False)))


def _enter(context: AbstractContextManager[Contender]) -> Contender:
    return context.__enter__()


def _pair(part: Part, name: str, compiled: Contender, eager: Contender) -> None:
    found = compare(name, compiled, eager, pairs=1 if part.small else 5).row()
    ratio = f"{found['speed_a_over_b']:.3f} times eager, {found['quartile_1']:.3f} to {found['quartile_3']:.3f}"
    part.record.add(f"{name}, compiled", found["images_per_second_a"], "images/s", note=ratio)


def contender(part: Any, kind: str, model: str, batch_size: int, compiled: bool) -> Contender:
    """A step of a method or a bare encoder in this process, warmed up; a graph break is an error."""
    steps: Any = method_steps(part, model, "a2mim" if kind == "bare" else kind, batch_size)
    if kind == "bare":
        steps = bare_steps(steps)
    name = "encoder" if kind == "bare" else "model"
    if compiled:
        backend = "inductor" if part.device.type == "cuda" else "aot_eager"  # the graph alone, to try it on a CPU
        setattr(steps, name, torch.compile(getattr(steps, name), fullgraph=True, backend=backend))
    steps.step()
    run = timing(steps.step, num_images=batch_size, device=part.device)
    run()
    if part.device.type == "cuda":
        torch.cuda.empty_cache()
    return Contender(name=f"{kind} {'compiled' if compiled else 'eager'}", run=run)
