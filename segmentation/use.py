"""`python -m segmentation predict|evaluate RUN ...`: label maps and pictures of one's own images, and the metrics of a
run on another data set."""

import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image as Picture
from torch import nn

from engine import use
from engine.distributed import pick_device
from engine.errors import ConfigError
from engine.run import checkpoint, storage
from engine.training.state import PRECISIONS
from segmentation.check import check_pairs, judge, refuse
from segmentation.config import SegmentationConfig
from segmentation.data import make_pairs
from segmentation.evaluation import Scores
from segmentation.evaluation import evaluate as evaluate_pairs
from segmentation.labels import classes_in, described
from segmentation.layout import find_validation
from segmentation.mmseg_adapter import build_segmentor, evaluation_pipeline
from segmentation.panels import draw_panel, predict_labels

log = logging.getLogger("mim")


def load_run(run_dir: Path) -> tuple[nn.Module, SegmentationConfig]:
    """The segmentor of a run with its newest checkpoint, in evaluation mode on this machine's device, and the
    configuration.

    Raises:
        ConfigError: the folder holds no segmentation run.
        CheckpointError: it holds no checkpoint, or none that is intact.
    """
    config = use.stored_config(run_dir, "segmentation", SegmentationConfig)
    return load_segmentor(run_dir, config), config


def load_segmentor(run_dir: Path, config: SegmentationConfig) -> nn.Module:
    """The segmentor of a configuration with a run's newest checkpoint; says so where it is not the last.

    Raises:
        CheckpointError: there is no checkpoint, or none that is intact.
    """
    state, step = checkpoint.load_model_state(run_dir)
    if not (run_dir / "finished.json").is_file():
        log.warning("%s has not finished: these are the weights after step %d", run_dir, step)
    segmentor = build_segmentor(config)
    segmentor.load_state_dict(state)
    return segmentor.to(pick_device()).eval()


def predict(asked: use.Predict) -> None:
    """Write a label map (PNG, in the labels of the data set) and a picture of every image, and classes.json.

    Photos with an EXIF orientation are turned upright, unless the run reads them as stored.

    Raises:
        ConfigError, CheckpointError: RUN is no trained segmentation run.
        DataError: an image cannot be read; the others have been predicted.
    """
    segmentor, config = load_run(asked.run)
    data = config.data
    if data.exif == "stop":  # because of label maps drawn either way, which there are none of here
        data = dataclasses.replace(data, exif="apply")
    config = dataclasses.replace(config, data=asked.as_asked(data))
    classes = classes_in(config.data)
    labels = {classes.text_of([label]).split()[1]: classes.names[number] for label, number in classes.of_label.items()}
    with storage.storage_errors(asked.out.parent):
        asked.out.mkdir(parents=True, exist_ok=True)
        (asked.out / "classes.json").write_text(json.dumps(labels, indent=1) + "\n")

    def predict_one(image: use.Image) -> None:
        predicted = predict_labels(segmentor, config, image.path)
        path = asked.out / "labels" / f"{image.name}.png"
        with storage.storage_errors(asked.out):
            path.parent.mkdir(parents=True, exist_ok=True)
            Picture.fromarray(classes.to_stored(predicted)).save(path)
            if asked.pictures:
                draw_panel(config, image.path, predicted, asked.out / "pictures" / f"{image.name}.png")

    count = use.predict_each(asked.images, predict_one, asked.options)
    pictures = f", pictures in {asked.out / 'pictures'}" if asked.pictures else ""
    print(
        f"{use.counted(count, 'label map')} in {asked.out / 'labels'}{pictures}, labels in {asked.out / 'classes.json'}"
    )


def evaluate(asked: use.Evaluate) -> dict[str, float]:
    """mIoU, aAcc and mAcc over the validation pairs of a data set, after a table of the classes on standard output.

    Raises:
        ConfigError: RUN is no segmentation run, or the classes are other ones than it was trained for.
        DataError: the data set has faults.
    """
    config: SegmentationConfig = asked.config
    trained = described(use.stored_config(asked.run, "segmentation", SegmentationConfig).data)
    classes = classes_in(config.data)
    if (asked_for := described(config.data)).names != trained.names:
        raise ConfigError(
            f"data.classes: {', '.join(asked_for.names[:5])}, ...: {asked.run} was trained for "
            f"{', '.join(trained.names[:5])}, ..., in this order; only their labels may be other ones"
        )
    found = check_pairs(find_validation(config.data), classes, config.data)
    refuse(found.faults, {"validation": found}, classes, config.data)
    judge({"validation": found}, classes, config.data)
    segmentor: Any = load_segmentor(asked.run, config)
    device, dtype = pick_device(), PRECISIONS[config.precision]
    if segmentor.backbone.encoder.is_cnn:  # as the run evaluated it: rounding depends on it
        segmentor.to(memory_format=torch.channels_last)
    with torch.no_grad(), torch.autocast(device.type, dtype, enabled=dtype is not torch.float32):
        scores = evaluate_pairs(
            segmentor,
            make_pairs(config, "validation", evaluation_pipeline(config)),
            batch_size=config.data.evaluation_batch_size,
            num_workers=config.data.num_workers,
            device=device,
            check_stop=lambda: None,
        )
    print(table(scores, classes.names))
    return scores.means()


def table(scores: Scores, names: tuple[str, ...]) -> str:
    """IoU and accuracy in percent of the classes that occur, best first."""
    rows: list[tuple[str, Any, Any]] = [
        (name, iou, accuracy)
        for name, iou, accuracy in zip(names, scores.iou, scores.accuracy, strict=True)
        if not np.isnan(iou)
    ]
    rows.sort(key=lambda row: -row[1])
    width = max(len(name) for name, _, _ in rows)
    lines = [f"{name:{width}}  {iou:6.2f}  {accuracy:6.2f}" for name, iou, accuracy in rows]
    return "\n".join([f"{'class':{width}}     IoU     Acc", *lines])
