"""Assembly of a segmentation run: MMSegmentation's model, data and metric, handed to engine/loop.py."""

import dataclasses
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from backbones import load_weights
from engine.data.sampler import LoaderOptions, SamplePlan, make_batches, micro_batches
from engine.distributed import rank, world_size
from engine.errors import ConfigError
from engine.loop import train as run_loop
from engine.run import checkpoint, storage
from engine.run.open import Run, open_run
from engine.training.optim import Schedule
from engine.training.state import LoopSettings
from segmentation.config import SegmentationConfig
from segmentation.data import Pairs, Sets, collate_training, open_data
from segmentation.evaluation import Scores, evaluate
from segmentation.framework import DISTRIBUTIONS, FRAMEWORK, framework_version
from segmentation.labels import classes_in, spell_out
from segmentation.mmseg_adapter import build_segmentor
from segmentation.optimizer import build_optimizer
from segmentation.panels import draw_panels

log = logging.getLogger("mim")


def train(
    config: SegmentationConfig,
    run_dir: Path,
    *,
    recipe: str = "custom",
    resume: bool = False,
    accept_divergence: bool = False,
) -> dict[str, float]:
    """Train a segmentor; beside the metrics, evaluations/ holds the IoU of every class and panels/ a few pictures.

    Args:
        config: what to run; recipes.py makes them.
        run_dir: new or empty, or a run to continue with `resume`.
        recipe: name under which the run is recorded.
        resume: continue what the folder holds.
        accept_divergence: continue a run that diverged.

    Returns:
        mIoU, aAcc and mAcc in percent of the last evaluation, mIoU_best over all, and with multi-scale evaluation
        mIoU_ms, aAcc_ms and mAcc_ms. Empty on ranks other than the main one.

    Raises:
        engine.errors.SuiteError: with the exit code of what went wrong.
    """
    options = dataclasses.replace(config.data, classes=spell_out(config.data.classes))
    config = dataclasses.replace(config, data=options)  # a run folder does not depend on a file elsewhere
    classes_in(options)
    with open_run(
        run_dir,
        config,
        package="segmentation",
        recipe=recipe,
        resume=resume,
        accept_divergence=accept_divergence,
        packages=DISTRIBUTIONS,
    ) as run:
        finished = run.finished()
        return finished if finished is not None else _run(run, config)


def _run(run: Run, config: SegmentationConfig) -> dict[str, float]:
    segmentor: Any = build_segmentor(config)
    if not run.resumed or checkpoint.newest(run.dir) is None:  # else the checkpoint holds what init became
        start_from(segmentor, config.init, run.dir if run.main else None)
    sets = open_data(config, run)
    plan = SamplePlan(len(sets.train), config.batch_size, config.seed)
    options = loader_options(config, plan, run.device)
    settings = loop_settings(config, plan, channels_last=segmentor.backbone.encoder.is_cnn, files=sets.train.path)
    segmentor.to(run.device)
    _announce(run, config, settings)
    run_loop(
        run,
        segmentor,
        optimizer=build_optimizer(segmentor, config),
        batches=lambda first: make_batches(sets.train, plan.batch, range(first, config.iterations), options),
        loss=loss_function(segmentor),
        settings=settings,
        evaluate=_evaluation(config, run, sets),
    )
    if not run.main:
        return {}
    draw_panels(segmentor.eval(), config, sets.val, run.dir / "panels")
    metrics = summary(run.read_metrics("val"))
    run.finish(
        metrics,
        framework=FRAMEWORK,
        framework_version=framework_version(),
        num_train=len(sets.train),
        num_val=len(sets.val),
        num_classes=len(sets.val.source.classes.names),
        unreadable=sets.num_unreadable,
        constant_mIoU=_read_evaluation(run.dir, config.iterations)["constant_mIoU"],
    )
    return metrics


def start_from(segmentor: nn.Module, init: str, run_dir: Path | None = None) -> None:
    """Load the whole encoder; what was loaded, renamed and left out is printed and stored in initialisation.json.

    Args:
        segmentor: its backbone is a SuiteEncoder.
        init: "none", a weight file, or a run folder with a backbone.safetensors.
        run_dir: where to store the report; None for nowhere.

    Raises:
        WeightsError: the weights do not fit, or leave a tensor of the encoder without value; nothing is changed.
    """
    record: dict[str, Any] = {"source": "none"}
    if init != "none":
        report = load_weights(segmentor.backbone.encoder, init)  # type: ignore[union-attr, arg-type]
        log.info("start from %s", report)
        record = dataclasses.asdict(report)
    if run_dir is not None:
        storage.write_json(run_dir / "initialisation.json", record)


def loader_options(config: SegmentationConfig, plan: SamplePlan, device: torch.device) -> LoaderOptions:
    """How this rank reads its part of each batch.

    Raises:
        ConfigError: the batch does not divide into ranks and accumulation steps, or into too small parts.
    """
    options = LoaderOptions(
        num_workers=config.data.num_workers,
        accumulation=config.accumulation,
        rank=rank(),
        world_size=world_size(),
        pin_memory=device.type == "cuda",
        collate=collate_training,
    )
    size = len(micro_batches(plan.batch(0), options)[0])
    synchronised = device.type == "cuda" and world_size() > 1
    if size < 2 and not synchronised:
        raise ConfigError(
            f"batch_size {config.batch_size} over {world_size()} ranks x {config.accumulation} accumulation steps "
            "makes 1 image each, of which batch norm cannot take statistics: use a larger batch or fewer parts"
        )
    return options


def loop_settings(
    config: SegmentationConfig, plan: SamplePlan, *, channels_last: bool, files: Callable[[int], str]
) -> LoopSettings:
    """The configuration as the loop takes it."""
    schedule = config.schedule
    return LoopSettings(
        total_steps=config.iterations,
        steps_per_epoch=plan.steps_per_epoch,
        batch_size=config.batch_size,
        schedule=Schedule(
            kind="poly",
            total_steps=config.iterations,
            warmup_steps=schedule.warmup_iterations,
            warmup_start=schedule.warmup_start,
            min_rate=schedule.min_learning_rate,
            power=schedule.power,
        ),
        seed=config.seed,
        checkpoint_every=config.checkpoint_every,
        precision=config.precision,
        compile=config.compile,
        channels_last=channels_last,
        clip_grad=config.optimizer.clip_grad,
        log_every=config.log_every,
        evaluate_every=config.evaluate_every,
        deterministic=config.deterministic,
        name_batch=lambda step: [files(key.index) for key in plan.batch(step)],
    )


def loss_function(
    segmentor: nn.Module,
) -> Callable[[nn.Module, dict[str, list[Tensor]]], dict[str, Tensor]]:
    """(model, {"image", "label"}) -> the losses of the decoder and the auxiliary head.

    As in MMSegmentation, ignored pixels contribute nothing but count in the mean.
    """
    preprocessor: Any = segmentor.data_preprocessor

    def loss(model: nn.Module, batch: dict[str, list[Tensor]]) -> dict[str, Tensor]:
        samples = [SegDataSample(gt_sem_seg=PixelData(data=label.long())) for label in batch["label"]]
        data = preprocessor({"inputs": batch["image"], "data_samples": samples}, training=True)
        values: dict[str, Tensor] = model(data["inputs"], data["data_samples"], mode="loss")
        return {name: value for name, value in values.items() if "loss" in name}  # it adds accuracies

    return loss


def summary(evaluations: list[dict[str, Any]]) -> dict[str, float]:
    """The metrics of a run from its evaluations, lines of metrics.jsonl in order."""
    last = {name: value for name, value in evaluations[-1].items() if name not in ("step", "epoch", "split")}
    return {**last, "mIoU_best": max(row["mIoU"] for row in evaluations)}


def _evaluation(
    config: SegmentationConfig, run: Run, sets: Sets
) -> Callable[[nn.Module, int, Callable[[], None]], dict[str, float]]:
    """What the loop calls for the metrics over the validation set."""

    def scores(model: nn.Module, pairs: Pairs, check_stop: Callable[[], None]) -> Scores:
        return evaluate(
            model,
            pairs,
            batch_size=config.data.evaluation_batch_size,
            num_workers=config.data.num_workers,
            device=run.device,
            check_stop=check_stop,
        )

    def run_evaluation(model: nn.Module, step: int, check_stop: Callable[[], None]) -> dict[str, float]:
        single = scores(model, sets.val, check_stop)
        metrics = single.means()
        names = sets.val.source.classes.names
        record = {**metrics, "constant_mIoU": single.constant, "classes": single.per_class(names)}
        if sets.multi_scale is not None and step == config.iterations:
            multi = scores(model, sets.multi_scale, check_stop)
            metrics |= {f"{name}_ms": value for name, value in multi.means().items()}
            record |= {**metrics, "classes_ms": multi.per_class(names)}
        if run.main:
            with storage.storage_errors(run.dir):
                path = _evaluation_path(run.dir, step)
                path.parent.mkdir(exist_ok=True)
                storage.write_json(path, record)
        return metrics

    return run_evaluation


def _evaluation_path(run_dir: Path, step: int) -> Path:
    return run_dir / "evaluations" / f"{step:08d}.json"


def _read_evaluation(run_dir: Path, step: int) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(_evaluation_path(run_dir, step).read_text())
    return record


def _announce(run: Run, config: SegmentationConfig, settings: LoopSettings) -> None:
    run.note(
        framework=f"{FRAMEWORK} {framework_version()}",
        global_batch=config.batch_size,
        ranks=world_size(),
        accumulation=config.accumulation,
        images_per_forward=config.batch_size // (world_size() * config.accumulation),
        peak_learning_rate=config.learning_rate,
        steps=settings.total_steps,
        steps_per_epoch=settings.steps_per_epoch,
    )
