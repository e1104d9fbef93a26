"""Assembly of a detection run: images, encoder, detector, optimizer and evaluation, handed to engine/loop.py."""

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import nn

from backbones import load_weights
from detection.coco import CocoSplit, check_image_sizes, check_same_categories, read_split
from detection.config import DetectionConfig
from detection.encoder import C4Encoder, Encoder, build_encoder
from detection.evaluation import coco_numbers, predict_all, with_category_ids
from detection.frameworks.contract import Framework, Result, load_framework
from detection.grouping import GroupedPlan
from detection.optimizer import layer_scales, parameter_groups
from detection.pins import pin_annotations
from detection.precise_bn import PreciseStatistics
from detection.samples import as_list
from detection.visualize import save_panels
from engine import task
from engine.after import After, python_module
from engine.data.images import count_unreadable
from engine.data.loader import make_batches
from engine.distributed import gather_objects
from engine.run import checkpoint, storage
from engine.run.keep import last_weights
from engine.run.open import Run
from engine.task import Assembly, Task
from engine.training.state import seed_step
from engine.training.transfer import to_device


def assemble(run: Run, config: DetectionConfig) -> Assembly:
    """The parts of a detection run, which leaves its detections in the validation images in predictions.json.

    Its metrics are COCO's numbers in percent, box_AP, mask_AP and so on, by pycocotools.
    """
    new = checkpoint.newest(run.dir) is None
    train_set, val_set = open_data(config, check_sizes=new)
    run.pin_data("train images", train_set.index)
    run.pin_data("val images", val_set.index)
    pin_annotations(run, train_set, val_set)
    plan = GroupedPlan(train_set.is_wide, config.batch_size, config.seed, config.data.group_size)

    framework = load_framework(config.framework)
    backbone = build_encoder(config)
    task.begin(run, config.init, lambda source: load_weights(backbone, source))
    scales = layer_scales(backbone, config.optimizer.layer_decay) if config.optimizer.layer_decay < 1 else None
    detector = framework.build(config, backbone, len(train_set.category_ids)).to(run.device)
    _compile_encoder(detector, config)
    samples = framework.samples(train_set, config, True, run.dir)

    def batches(steps: range) -> Iterator[list[Any]]:
        return make_batches(samples, plan.batch, steps, task.loader_options(config, plan, run.device, as_list))

    evaluation = Evaluation(run, config, framework, val_set, batches)

    def finish(metrics: dict[str, float]) -> tuple[dict[str, float], dict[str, Any]]:
        return metrics, {
            "framework": framework.name,
            "framework_version": framework.version,
            "evaluator": evaluation.own_numbers,
            "train": train_set.counts,
            "val": val_set.counts,
            "num_train": len(train_set),
            "num_val": len(val_set),
            "unreadable": count_unreadable(run.dir),
        }

    return Assembly(
        model=detector,
        groups=parameter_groups(detector, config, scales),
        dataset=samples,
        plan=plan,
        files=train_set.index.path,
        collate=as_list,
        loss=framework.losses,
        settings={"channels_last": backbone.is_cnn, "compile": False},
        evaluate=evaluation,
        finish=finish,
        notes={
            "framework": f"{framework.name} {framework.version}",
            "published_batch": config.optimizer.base_batch,
            "milestones": [config.steps(milestone) for milestone in config.schedule.milestones],
        },
    )


def _compile_encoder(detector: nn.Module, config: DetectionConfig) -> None:
    """The encoder alone: what comes after it depends on the number of objects."""
    if config.compile:
        for module in detector.modules():
            if isinstance(module, Encoder | C4Encoder):
                module.compile()


def _packages(config: DetectionConfig) -> tuple[str, ...]:
    return ("pycocotools", "faster-coco-eval", *(["detectron2"] if config.framework == "detectron2" else []))


def after(run_dir: Path, config: DetectionConfig) -> After:
    """The detector, and its boxes for the validation images."""
    return After(
        weights=last_weights(run_dir),
        python=(
            "import mim_benchmark as mim",
            f"detector = mim.load_model({str(run_dir)!r})",
            "print(detector.names)",
        ),
        command=python_module("detection", "predict", run_dir, config.data.images("val")),
    )


TASK = Task(name="detection", assemble=assemble, packages=_packages, after=after)
train = TASK.train


def open_data(config: DetectionConfig, *, check_sizes: bool = True) -> tuple[CocoSplit, CocoSplit]:
    """The training and validation annotations under data.root, checked.

    Args:
        config: which images.
        check_sizes: also open every image's header; a resumed run has done so.

    Raises:
        DataError: see coco.py.
    """
    train_set = read_split(config.data, "train", training=True, masks=config.has_masks)
    val_set = read_split(config.data, "val", training=False, masks=config.has_masks)
    check_same_categories(train_set, val_set)
    if check_sizes:
        check_image_sizes(train_set)
        check_image_sizes(val_set)
    return train_set, val_set


@dataclasses.dataclass
class Evaluation:
    """What the loop calls for COCO's numbers; at the last step it also leaves the files a reader wants.

    Args:
        run: the run folder: predictions.json, panels/, categories.json, precise_bn.safetensors.
        config: of the run.
        framework: whose detector it is.
        val_set: the images to predict.
        batches: steps -> their training batches, for BatchNorm statistics.
    """

    run: Run
    config: DetectionConfig
    framework: Framework
    val_set: CocoSplit
    batches: Callable[[range], Iterator[list[Any]]]
    own_numbers: dict[str, float] = dataclasses.field(default_factory=dict)
    """What the framework's own evaluator says at the last step."""

    def __call__(self, model: nn.Module, step: int, check_stop: Callable[[], None]) -> dict[str, float]:
        """COCO's numbers of `model` in evaluation mode, the same on every rank."""
        last = step == self.config.steps(self.config.iterations)
        data, precise = self.config.data, PreciseStatistics(model)
        seed_step(self.config.seed, step)
        self._measure(precise, model, step, check_stop)

        def check_stop_as_trained() -> None:
            with precise.as_trained():  # a stop saves the model
                check_stop()

        predictor = self.framework.predictor(self.config, self.val_set if last else None)
        with precise.in_place():
            results = predict_all(
                predictor,
                model,
                self.framework.samples(self.val_set, self.config, False, None),
                batch_size=data.evaluation_batch_size,
                num_workers=data.num_workers,
                check_stop=check_stop_as_trained,
            )
        results = with_category_ids(results, self.val_set.category_ids)
        metrics = self._numbers(results, official=last) if self.run.main else {}
        if last:
            self.own_numbers = predictor.own_numbers()
            self._leave_files(results, precise)
        return dict(gather_objects(metrics)[0])

    def _measure(self, precise: PreciseStatistics, model: nn.Module, step: int, check_stop: Callable[[], None]) -> None:
        """Average the BatchNorm statistics over the training batches that follow `step`."""
        num_batches = self.config.precise_bn
        if not num_batches:
            return
        parts = (part for group in self.batches(range(step, step + num_batches)) for part in group)
        precise.measure(parts, lambda part: self.framework.losses(model, to_device(part, self.run.device)), check_stop)

    def _numbers(self, results: list[Result], *, official: bool) -> dict[str, float]:
        kinds = ("box", "mask") if self.config.has_masks else ("box",)
        return coco_numbers(self.val_set.ground_truth(), results, kinds, official=official)

    def _leave_files(self, results: list[Result], precise: PreciseStatistics) -> None:
        if not self.run.main:
            return
        val, folder = self.val_set, self.run.dir
        names = zip(val.category_ids, val.category_names, strict=True)
        with storage.storage_errors(folder):
            storage.write_json(folder / "categories.json", [{"id": number, "name": name} for number, name in names])
            storage.write_atomic(folder / "predictions.json", json.dumps(results))
            if self.config.precise_bn and precise.statistics():
                statistics = {name: value.cpu() for name, value in precise.statistics().items()}
                storage.write_atomic(folder / "precise_bn.safetensors", safetensors.torch.save(statistics))
            if self.config.num_panels:
                save_panels(folder / "panels", val, results, self.config.num_panels)
