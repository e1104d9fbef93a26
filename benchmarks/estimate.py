"""What a benchmark says before it starts: which runs, how long they take on this machine, and lengths that fit it."""

import os
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks import cost, pace, progress
from benchmarks.graph import State, advance
from benchmarks.pace import Kind, Pace
from benchmarks.pipeline import threads_of_each
from benchmarks.plan import PRETRAINING, Stage
from engine.data.survey import IMAGE_SIZES
from engine.run import checkpoint

_LONG = 5400.0
"""Seconds, from which on shorter lengths are proposed for a CPU; those take about _WANTED."""
_WANTED = 3600.0
_FEWEST = {True: 300, False: 100}
"""Steps that are proposed at least, of pre-training and of fine-tuning."""
_BUSY = 1.5
"""Times as long, from which on it is said that the machine is at work on other things."""
_WORTH = 1 / 3
"""Of the steps, below which smaller images are the better way to be quicker."""


@dataclass(frozen=True)
class Load:
    """What a benchmark does on this machine.

    Args:
        stages: all runs, in order.
        left: the share of each unfinished run that is to be done.
        paces: of each kind of run.
        lanes: runs at once.
    """

    stages: Sequence[Stage]
    left: Mapping[str, float]
    paces: Mapping[Kind, Pace]
    lanes: int

    def seconds(self, change: Callable[[Stage, Pace], Pace] = lambda stage, pace: pace) -> float:
        """Until the last run has finished, if each is as fast as measured, or as `change` makes it."""
        times = {
            stage.name: change(stage, self.paces[pace.kind_of(stage)]).seconds(self.left[stage.name])
            for stage in self.stages
            if stage.name in self.left
        }
        return finished_after(times, {stage.name: stage.needs for stage in self.stages}, self.lanes)


def finished_after(seconds: Mapping[str, float], needs: Mapping[str, Sequence[str]], lanes: int) -> float:
    """When the last of the runs ends, started by the rule of the pipeline.

    Args:
        seconds: of each run that is to be done.
        needs: of each run, the runs before it.
        lanes: how many at once.
    """
    states: dict[str, State] = {name: "pending" for name in needs if name in seconds}
    wanted = {name: needs[name] for name in states}
    running: dict[str, float] = {}
    now = 0.0
    while True:
        changes = advance(wanted, states, room=lanes - len(running))
        states |= changes
        running |= {name: now + seconds[name] for name in changes}
        if not running:
            return now
        name = min(running, key=lambda name: running[name])
        now = running.pop(name)
        states[name] = "finished"


def outline(stages: Sequence[Stage], runs_dir: Path) -> str:
    """How many runs of each kind there will be."""
    kinds = Counter((stage.package, stage.config.epochs, stage.config.image_size) for stage in stages)
    lines = [
        f"  {number} x {package}, {epochs:,} epochs at {size} pixels"
        for (package, epochs, size), number in kinds.items()
    ]
    return "\n".join([f"{len(stages)} runs under {runs_dir}:", *lines])


def tell(stages: Sequence[Stage], runs_dir: Path, lanes: int) -> str:
    """How long the unfinished runs take, measured here; on a CPU also what a GPU would need, and for long ones what
    would fit. Empty where nothing is left to do.

    Raises:
        SuiteError: what a run would end with at its start.
    """
    on_gpu = torch.cuda.is_available()
    todo = [stage for stage in stages if not progress.is_finished(stage.folder(runs_dir))]
    done = {stage.name: checkpoint.last_step(stage.folder(runs_dir)) for stage in todo}
    if not todo:
        return ""
    print("timing some steps of each kind of run here ...", flush=True)
    kinds = list(dict.fromkeys(map(pace.kind_of, todo)))
    lanes = min(lanes, len(todo))
    try:
        found = dict(zip(kinds, pace.measure(kinds, at_once=lanes, threads=threads_of_each(lanes)), strict=True))
    except RuntimeError as error:
        return f"how long it takes could not be measured: {error}"
    left = {stage.name: 1 - done[stage.name] / found[pace.kind_of(stage)].steps for stage in todo}
    load = Load(stages, left, found, lanes)
    seconds = load.seconds()
    where = f"this machine's {'GPU' if on_gpu else 'processor'}"
    lines = [
        f"  {' '.join([package, *filter(None, [getattr(config, 'method', '')])])}: {speed.steps:,} steps of "
        f"{speed.batch_size} images, {speed.images_per_second:,.0f} images/s, {duration(speed.seconds())}"
        for (package, config), speed in found.items()
    ]
    lines.append(f"in all {duration(seconds)} on {where}, {lanes} at once (measured just now)")
    if (busy := statistics.median(speed.busy for speed in found.values())) > _BUSY:
        lines[-1] += f", and {busy:.0f} times as long while it is as busy as now (load {os.getloadavg()[0]:.1f})"
    if not on_gpu:
        lines[-1] += f"; {_on_a_gpu(todo, found)}"
        if seconds > _LONG and len(todo) == len(stages) and not any(done.values()):  # else it would be another run
            lines.append(proposal(load))
    return "\n".join(lines)


def _on_a_gpu(stages: Sequence[Stage], found: Mapping[Kind, Pace]) -> str:
    seconds = 0.0
    for stage in stages:
        flops, is_cnn = cost.forward_flops(stage.config.model, stage.config.image_size)
        seen = found[pace.kind_of(stage)]
        images = seen.steps * seen.batch_size + seen.evaluated / cost.BACKWARD_FACTOR
        seconds += images * cost.BACKWARD_FACTOR * flops / cost.SUSTAINED[is_cnn] + _START_S
    return f"on an A100 {duration(seconds)}, by operation counts, if it need not wait for images"


_START_S = 15  # of a run, before its first step


def proposal(load: Load) -> str:
    """Options with which a benchmark takes about an hour: the largest images with which a good part of the steps fits,
    else the smallest ones and as many steps as fit."""
    size = max(stage.config.image_size for stage in load.stages)
    smaller = [each for each in reversed(IMAGE_SIZES) if each < size]
    for side in [size, *smaller]:
        area = (side / size) ** 2
        length = _length_that_fits(load, area)
        if length >= _WORTH:
            break
    steps = {
        is_pretraining: _steps(load, is_pretraining, length)
        for is_pretraining in (True, False)
        if any((stage.package == PRETRAINING.name) == is_pretraining for stage in load.stages)
    }
    options = [f"--image-size {side}"] * (side != size)
    options += [f"--{_OPTION[is_pretraining]}-steps {number}" for is_pretraining, number in steps.items()]

    def changed(stage: Stage, speed: Pace) -> Pace:
        return speed.at(area=area, length=min(steps[stage.package == PRETRAINING.name] / speed.steps, 1))

    text = " ".join(options)
    return (
        f'{text} would take {duration(load.seconds(changed))} here (make: OPTIONS="{text}"); '
        "the answer is then about trainings of that length"
    )


_OPTION = {True: "pretrain", False: "finetune"}


def _length_that_fits(load: Load, area: float) -> float:
    """The share of all steps that fits into what is wanted, in [0, 1]."""

    def seconds(length: float) -> float:
        return load.seconds(lambda stage, speed: speed.at(area=area, length=length))

    shares = (hundredths / 100 for hundredths in (*range(100, 10, -5), *range(10, 0, -1)))
    return next((share for share in shares if seconds(share) <= _WANTED), 0.0)


def _steps(load: Load, is_pretraining: bool, length: float) -> int:
    """Of one kind at a share of its length, with two digits."""
    whole = max(
        load.paces[pace.kind_of(stage)].steps
        for stage in load.stages
        if (stage.package == PRETRAINING.name) == is_pretraining and pace.kind_of(stage) in load.paces
    )
    wanted = max(int(whole * length), min(_FEWEST[is_pretraining], whole))
    digits = int(10 ** max(len(str(wanted)) - 2, 0))
    return wanted // digits * digits


def duration(seconds: float) -> str:
    """For people: an estimate is good for two digits at most."""
    if seconds < 90:
        return f"about {max(round(seconds, -1), 10):.0f} seconds"
    if seconds < 5400:
        return f"about {seconds / 60:.0f} minutes"
    hours = seconds / 3600
    return f"about {hours / 24:.0f} days" if hours >= 48 else f"about {hours:.{int(hours < 10)}f} hours"
