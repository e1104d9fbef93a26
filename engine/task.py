"""What a task is, and the one way in which every task is run: claim the folder, assemble, train, leave the results.

A task package says how a configuration becomes the parts that engine/loop.py trains (its train.py: `assemble`), and
what it leaves at the end. Everything that runs share stands here.
"""

import contextlib
import dataclasses
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from engine.after import After
from engine.data.loader import LoaderOptions, make_batches, micro_batches
from engine.distributed import rank, world_size
from engine.errors import SuiteError
from engine.groups import EpochRun, IterationRun
from engine.loop import Batch, Evaluate, Losses, run_loop
from engine.run import checkpoint, storage
from engine.run.keep import keep_weights
from engine.run.open import Run, open_run
from engine.training import optim
from engine.training.optim import Schedule
from engine.training.state import LoopSettings

log = logging.getLogger("mim")
Metrics = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Assembly:
    """The parts of one run."""

    model: nn.Module
    """What is trained and saved."""
    groups: list[dict[str, Any]]
    """Its trainable parameters, as optim.group_parameters makes them."""
    dataset: Any
    """The training samples: `dataset[SampleKey]`."""
    plan: Any
    """Which of them are in a batch: engine.data.order.SamplePlan or one like it."""
    files: Callable[[int], str]
    """Position in the data set -> file, to name the images of a step that went wrong."""
    collate: Callable[[list[Any]], Batch] | None = None
    """Samples -> micro-batch; by default torch's."""
    loss: Callable[[nn.Module, Batch], Losses]
    """(model, micro-batch) -> named scalars, whose sum is minimised."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Fields of LoopSettings that the task has of its own, or sets otherwise than `loop_settings`."""
    evaluate: Evaluate | None = None
    """(model, step, check_stop) -> metrics."""
    finish: Callable[[Metrics], tuple[Metrics, dict[str, Any]]]
    """Called on the main rank with the last evaluation's metrics once all steps are taken: writes what the run leaves,
    and gives the metrics and further facts of finished.json."""
    notes: dict[str, Any] = field(default_factory=dict)
    """What follows from configuration and machine beside `announcement`, printed and stored in environment.json."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """A task: `python -m <name>`."""

    name: str
    """Of its package."""
    assemble: Callable[[Run, Any], Assembly]
    """From a claimed run folder and a checked configuration to the parts."""
    packages: Callable[[Any], Sequence[str]] = lambda config: ()
    """Distributions that a configuration stands on, whose versions environment.json holds beside those of every run."""
    prepare: Callable[[Any], Any] = lambda config: config
    """Before the folder is claimed: the configuration without what depends on files elsewhere."""
    after: Callable[[Path, Any], After] | None = None
    """(run folder, configuration) -> what a person is told when the run has finished."""

    def train(
        self,
        config: Any,
        run_dir: Path,
        *,
        recipe: str = "custom",
        resume: bool = False,
        accept_divergence: bool = False,
        keep_all: bool = False,
    ) -> Metrics:
        """Run a configuration to its end, from wherever the folder stands.

        Args:
            config: what to run; the package's recipes.py makes them.
            run_dir: new or empty, or a run to continue with `resume`.
            recipe: name under which the run is recorded.
            resume: continue what the folder holds.
            accept_divergence: continue a run that diverged.
            keep_all: once finished, keep the optimizer's state, too, with which the run can be made longer.

        Returns:
            The metrics of finished.json; empty on ranks other than the main one.

        Raises:
            SuiteError: with the exit code of what went wrong.
        """
        config = self.prepare(config)
        with open_run(
            run_dir,
            config,
            package=self.name,
            recipe=recipe,
            resume=resume,
            accept_divergence=accept_divergence,
            packages=tuple(self.packages(config)),
        ) as run:
            metrics = run.finished()
            if metrics is None:
                metrics = self._run(run, config)
                if run.main and not keep_all:
                    keep_weights(run.dir)
            if run.main and self.after is not None:
                with contextlib.suppress(SuiteError, OSError):  # a run is finished wherever its data set is by now
                    log.info("%s", self.after(run.dir, config))
            return metrics

    def _run(self, run: Run, config: Any) -> Metrics:
        parts = self.assemble(run, config)
        metrics = train_parts(run, config, parts)
        if not run.main:
            return {}
        metrics, facts = parts.finish(metrics)
        run.finish(metrics, **facts)
        return metrics


class Prepared(NamedTuple):
    """What follows from the parts of a run and its configuration."""

    optimizer: torch.optim.Optimizer
    batches: Callable[[int], Iterator[list[Batch]]]
    """First step -> the steps' lists of micro-batches."""
    settings: LoopSettings


def prepare(run: Run, config: Any, parts: Assembly) -> Prepared:
    """Optimizer, batches and the schedule in steps.

    Raises:
        ConfigError: the batch does not divide into ranks and accumulation steps.
    """
    options = loader_options(config, parts.plan, run.device, parts.collate)
    settings = loop_settings(config, parts.plan, parts.files, **parts.settings)

    def batches(first: int) -> Iterator[list[Batch]]:
        return make_batches(parts.dataset, parts.plan.batch, range(first, settings.total_steps), options)

    return Prepared(optim.build(config.optimizer, parts.groups, config.learning_rate), batches, settings)


def train_parts(run: Run, config: Any, parts: Assembly) -> Metrics:
    """Train what was assembled, and return the metrics of the last evaluation. Raises ConfigError as `prepare`."""
    ready = prepare(run, config, parts)
    run.note(**announcement(config, ready.settings), **parts.notes)
    return run_loop(
        run,
        parts.model,
        optimizer=ready.optimizer,
        batches=ready.batches,
        loss=parts.loss,
        settings=ready.settings,
        evaluate=parts.evaluate,
    )


def announcement(config: Any, settings: LoopSettings) -> dict[str, Any]:
    """What a person wants to know before a run starts: batch, learning rate and steps in effect."""
    accumulation = config.accumulation
    return {
        "global_batch": config.batch_size,
        "ranks": world_size(),
        "accumulation": accumulation,
        "images_per_forward": config.batch_size // (world_size() * accumulation),
        "peak_learning_rate": config.learning_rate,
        "steps": settings.total_steps,
        "steps_per_epoch": settings.steps_per_epoch,
    }


def loop_settings(
    config: EpochRun | IterationRun, plan: Any, files: Callable[[int], str] | None = None, **more: Any
) -> LoopSettings:
    """The configuration in steps; `more` are settings that a task has of its own, or replace some.

    Args:
        config: a task's configuration.
        plan: as Assembly has it.
        files: likewise; None to name no images.
        more: further fields of LoopSettings.
    """
    shared: dict[str, Any] = {
        "batch_size": config.batch_size,
        "seed": config.seed,
        "checkpoint_every": config.checkpoint_every,
        "precision": config.precision,
        "compile": config.compile,
        "clip_grad": config.optimizer.clip_grad,
        "log_every": config.log_every,
        "deterministic": config.deterministic,
    }
    if files is not None:
        shared["name_batch"] = lambda step: [files(key.index) for key in plan.batch(step)]
    if isinstance(config, IterationRun):
        shared["evaluate_every"] = config.evaluate_every
    per_epoch, options = plan.steps_per_epoch, config.schedule
    schedule = Schedule(
        kind=options.kind,
        total_steps=config.steps(config.length, per_epoch),
        warmup_steps=config.steps(options.warmup, per_epoch),
        warmup_start=options.warmup_start,
        min_rate=options.min_rate,
        milestones=tuple(config.steps(milestone, per_epoch) for milestone in options.milestones),
        step_factor=options.step_factor,
        power=options.power,
        final_weight_decay=options.final_weight_decay,
    )
    return LoopSettings(
        total_steps=schedule.total_steps, steps_per_epoch=per_epoch, schedule=schedule, **{**shared, **more}
    )


def loader_options(
    config: Any, plan: Any, device: torch.device, collate: Callable[[list[Any]], Any] | None = None
) -> LoaderOptions:
    """How this rank reads its part of each batch.

    Raises:
        ConfigError: the batch does not divide into ranks and accumulation steps.
    """
    options = LoaderOptions(
        num_workers=config.data.num_workers,
        accumulation=config.accumulation,
        rank=rank(),
        world_size=world_size(),
        pin_memory=device.type == "cuda",
        collate=collate,
    )
    micro_batches(plan.batch(0), options)  # refuses what does not divide, before anything is read
    return options


def images_at_once(config: Any, plan: Any, device: torch.device) -> tuple[int, str]:
    """How many images one forward pass gets, and how an error says that of a batch which does not fit a task.

    Raises:
        ConfigError: as loader_options.
    """
    size = len(micro_batches(plan.batch(0), loader_options(config, plan, device))[0])
    return size, (
        f"batch_size {config.batch_size} over {world_size()} ranks x {config.accumulation} accumulation steps makes "
        f"{size} image{'s' * (size != 1)} each"
    )


def begin(run: Run, init: str, load: Callable[[str], Any]) -> None:
    """Load the initial weights of a run that has taken no step; of others the checkpoint holds what they became.
    Arguments as for `start_from`."""
    if not run.resumed or checkpoint.newest(run.dir) is None:
        start_from(init, load, run.dir if run.main else None)


def start_from(init: str, load: Callable[[str], Any], run_dir: Path | None) -> None:
    """Load initial weights; what was loaded, renamed and left out is printed and stored in initialisation.json.

    Args:
        init: "none", or what `load` takes: a weight file, or a run folder with a backbone.safetensors.
        load: returns a report, a dataclass; raises where the weights do not fit.
        run_dir: where to store the report; None for nowhere.
    """
    record: dict[str, Any] = {"source": "none"}
    if init != "none":
        report = load(init)
        log.info("start from %s", report)
        record = dataclasses.asdict(report)
    if run_dir is not None:
        storage.write_json(run_dir / "initialisation.json", record)
