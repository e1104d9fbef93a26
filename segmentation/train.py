"""Assembly of a segmentation run: MMSegmentation's model, data and metric, handed to engine/loop.py."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from backbones import load_weights
from engine import task
from engine.after import After, python_module
from engine.data.order import SamplePlan
from engine.distributed import world_size
from engine.errors import ConfigError
from engine.run import storage
from engine.run.keep import last_weights
from engine.run.open import Run
from engine.task import Assembly, Task
from segmentation.config import SegmentationConfig
from segmentation.data import Pairs, Sets, collate_training, open_data
from segmentation.evaluation import Scores, evaluate
from segmentation.framework import DISTRIBUTIONS, FRAMEWORK, framework_version
from segmentation.labels import classes_in, spell_out
from segmentation.layout import find_validation
from segmentation.mmseg_adapter import build_segmentor
from segmentation.optimizer import parameter_groups
from segmentation.panels import draw_panels


def assemble(run: Run, config: SegmentationConfig) -> Assembly:
    """The parts of a segmentation run; evaluations/ holds the IoU of every class and panels/ a few pictures.

    Its metrics are mIoU, aAcc and mAcc in percent of the last evaluation, mIoU_best over all, and with multi-scale
    evaluation mIoU_ms, aAcc_ms and mAcc_ms.
    """
    segmentor: Any = build_segmentor(config)
    task.begin(run, config.init, lambda source: load_weights(segmentor.backbone.encoder, source))
    return assembly_of(run, config, segmentor)


def assembly_of(
    run: Run, config: SegmentationConfig, segmentor: Any, tell: Callable[[Scores], None] = lambda scores: None
) -> Assembly:
    """The parts of a run around a segmentor that has its first weights; `tell` is called with the result of each
    evaluation at a single scale."""
    sets = open_data(config, run)
    plan = SamplePlan(len(sets.train), config.batch_size, config.seed)
    size, told = task.images_at_once(config, plan, run.device)
    if size < 2 and not (run.device.type == "cuda" and world_size() > 1):  # where it is not synchronised
        raise ConfigError(f"{told}, of which batch norm cannot take statistics: use a larger batch or fewer parts")
    segmentor.to(run.device)

    def finish(_: dict[str, float]) -> tuple[dict[str, float], dict[str, Any]]:
        draw_panels(segmentor.eval(), config, sets.val, run.dir / "panels")
        classes = sets.val.source.classes.names
        with storage.storage_errors(run.dir):
            storage.write_json(run.dir / "classes.json", list(classes))
        return summary(run.read_metrics("val")), {
            "framework": FRAMEWORK,
            "framework_version": framework_version(),
            "num_train": len(sets.train),
            "num_val": len(sets.val),
            "num_classes": len(classes),
            "unreadable": sets.num_unreadable,
            "constant_mIoU": _read_evaluation(run.dir, config.iterations)["constant_mIoU"],
        }

    return Assembly(
        model=segmentor,
        groups=parameter_groups(segmentor, config.optimizer, config.learning_rate),
        dataset=sets.train,
        plan=plan,
        files=sets.train.path,
        collate=collate_training,
        loss=loss_function(segmentor),
        settings={"channels_last": segmentor.backbone.encoder.is_cnn},
        evaluate=_evaluation(config, run, sets, tell),
        finish=finish,
        notes={"framework": f"{FRAMEWORK} {framework_version()}"},
    )


def _prepare(config: SegmentationConfig) -> SegmentationConfig:
    """A run folder does not depend on a file of class names elsewhere."""
    options = dataclasses.replace(config.data, classes=spell_out(config.data.classes))
    classes_in(options)
    return dataclasses.replace(config, data=options)


def after(run_dir: Path, config: SegmentationConfig) -> After:
    """The segmentor, and its label maps for the validation images."""
    return After(
        weights=last_weights(run_dir),
        python=(
            "import mim_benchmark as mim",
            f"segmentor = mim.load_model({str(run_dir)!r})",
            "print(sum(p.numel() for p in segmentor.parameters()))",
        ),
        command=python_module("segmentation", "predict", run_dir, find_validation(config.data).images.root),
    )


TASK = Task(
    name="segmentation",
    assemble=assemble,
    packages=lambda config: DISTRIBUTIONS,
    prepare=_prepare,
    after=after,
)
train = TASK.train


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
    config: SegmentationConfig, run: Run, sets: Sets, tell: Callable[[Scores], None]
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
        tell(single)
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
