"""torch.compile of whole methods without a graph break, equal to eager, and what it gains."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from benchmarks.speed.gpu.part import Part
from benchmarks.speed.gpu.speed import bare_steps, method_steps
from benchmarks.speed.isolated import isolated
from benchmarks.speed.timing import Contender, compare, timing

KINDS = ("a2mim", "bare", "simmim")


def run(part: Part) -> None:
    """Compile each network's methods and bare encoder at once, in processes of their own; then time them in pairs."""
    batch_size = 2 if part.small else 64
    quiet: Any = replace(part, record=None)  # type: ignore[arg-type]  # what a process is given is pickled
    for model in part.models:
        with part.record.attempt(f"compile {model}"), ExitStack() as processes:
            makers = {
                (kind, fast): partial(contender, quiet, model, kind, batch_size, fast)
                for kind in _kinds(part)
                for fast in (True, False)
            }
            with ThreadPoolExecutor(len(makers)) as pool:
                entering = {key: isolated(make, keep_memory=False) for key, make in makers.items()}
                entered = {key: pool.submit(_enter, context) for key, context in entering.items()}
            for context in entering.values():
                processes.push(context)
            ready = {key: future.result() for key, future in entered.items()}
            for kind in _kinds(part):
                _pair(part, f"{kind} {model}, batch {batch_size}", ready[kind, True], ready[kind, False])


def _kinds(part: Part) -> tuple[str, ...]:
    return KINDS[:1] if part.small else KINDS


def _enter(context: AbstractContextManager[Contender]) -> Contender:
    return context.__enter__()


def _pair(part: Part, name: str, compiled: Contender, eager: Contender) -> None:
    found = compare(name, compiled, eager, pairs=1 if part.small else 5).row()
    ratio = f"{found['speed_a_over_b']:.3f} times eager, {found['quartile_1']:.3f} to {found['quartile_3']:.3f}"
    part.record.add(f"{name}, compiled", found["images_per_second_a"], "images/s", note=ratio)


def contender(part: Any, model: str, kind: str, batch_size: int, compiled: bool) -> Contender:
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
