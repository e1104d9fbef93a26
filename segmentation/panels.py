"""What a segmentor predicts as pictures: image, truth and prediction side by side, with a legend.

H W image size.
"""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from mmengine.dataset import Compose, pseudo_collate
from torch import nn

from engine.data.images import read_image
from engine.figures import save_png
from segmentation.config import SegmentationConfig
from segmentation.data import Pairs
from segmentation.labels import IGNORED, Classes, classes_in, read_label_map
from segmentation.mmseg_adapter import evaluation_pipeline, mmseg_scope

logging.getLogger("matplotlib").setLevel(logging.WARNING)  # it reports its font cache
Labels = npt.NDArray[np.uint8]
_NUM_NAMED = 12  # classes in a legend
_FONT_PT = 13  # pages show the figure at a third to a half of its size


def draw_panels(segmentor: nn.Module, config: SegmentationConfig, pairs: Pairs, folder: Path) -> list[Path]:
    """Draw the first images of a validation set, `evaluation.num_panels` of them.

    Args:
        segmentor: in evaluation mode.
        config: of the run.
        pairs: the validation set.
        folder: where the PNG files go, named like the images.
    """
    paths = []
    for i in range(min(config.evaluation.num_panels, len(pairs))):
        info = pairs.source.get_data_info(pairs.kept[i])
        image, truth = Path(info["img_path"]), Path(info["seg_map_path"])
        predicted = predict_labels(segmentor, config, image)
        paths.append(draw_panel(config, image, predicted, folder / f"{image.stem}.png", truth))
    return paths


def draw_panel(
    config: SegmentationConfig, image: Path, predicted_hw: Labels, path: Path, truth: Path | None = None
) -> Path:
    """Draw one image with the classes predicted for it, and the truth if there is a label map of it, into `path`."""
    classes = classes_in(config.data)
    known = None if truth is None else classes.to_classes(read_label_map(truth, coloured=classes.coloured))
    figure = panel(read_image(image, config.data), predicted_hw, known, classes, image.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_png(figure, path)
    return path


@torch.no_grad()
def predict_labels(segmentor: nn.Module, config: SegmentationConfig, image_path: Path) -> Labels:
    """The class of every pixel, (H, W), at the size of the image and in float32 throughout."""
    with mmseg_scope():
        pipeline = Compose(evaluation_pipeline(config, labels=False))
    packed = pipeline({"img_path": str(image_path)})
    sample: Any = segmentor.test_step(pseudo_collate([packed]))[0]  # type: ignore[operator]
    labels: Labels = sample.pred_sem_seg.data[0].cpu().numpy().astype(np.uint8)
    return labels


def panel(
    image_hw3: npt.NDArray[np.uint8], predicted_hw: Labels, truth_hw: Labels | None, classes: Classes, title: str
) -> Figure:
    """The figure: image, truth and prediction, and the largest classes of both with their share of the pixels.

    Args:
        image_hw3: RGB.
        predicted_hw: class of each pixel.
        truth_hw: the same, 255 where nothing is labelled; None for no truth.
        classes: their names and colours.
        title: above the image.
    """
    shown = [(title, image_hw3)]
    if truth_hw is not None:
        known = truth_hw != IGNORED
        share = f"{100 * np.mean(predicted_hw[known] == truth_hw[known]):.1f} % right" if known.any() else "no labels"
        shown += [("truth", colour(truth_hw, classes)), (f"prediction ({share})", colour(predicted_hw, classes))]
    else:
        shown += [("prediction", colour(predicted_hw, classes))]
    height = min(4.0 * image_hw3.shape[0] / image_hw3.shape[1], 12.0)
    figure = Figure(figsize=(4.0 * len(shown) + 3.0, max(height, 3.2) + 0.4), layout="constrained")
    for i, (name, picture) in enumerate(shown, start=1):
        axes = figure.add_subplot(1, len(shown), i)
        axes.imshow(picture, interpolation="nearest")
        axes.set_title(name, fontsize=_FONT_PT)
        axes.axis("off")
    heading = "pixels in the prediction" if truth_hw is None else "pixels in truth / prediction"
    figure.legend(
        handles=_legend(predicted_hw, truth_hw, classes),
        title=heading,
        loc="outside right center",
        fontsize=_FONT_PT,
        title_fontsize=_FONT_PT,
        frameon=False,
    )
    return figure


def colour(labels_hw: Labels, classes: Classes) -> npt.NDArray[np.uint8]:
    """The colours (H, W, 3) of the classes; black where nothing is labelled."""
    number = len(classes.names)
    colours: npt.NDArray[np.uint8] = np.vstack([classes.palette, np.zeros((1, 3), np.uint8)])[
        np.minimum(labels_hw, number)
    ]
    return colours


def _legend(predicted_hw: Labels, truth_hw: Labels | None, classes: Classes) -> list[Patch]:
    maps = [predicted_hw] if truth_hw is None else [truth_hw, predicted_hw]
    number = len(classes.names)
    shares = [np.bincount(labels.ravel(), minlength=256)[:number] / labels.size for labels in maps]
    order = np.argsort(-np.max(shares, axis=0), kind="stable")
    present = [int(label) for label in order if any(share[label] > 0 for share in shares)]
    entries = [
        Patch(
            facecolor=classes.palette[label] / 255,
            edgecolor="0.5",
            label=f"{classes.names[label]}  {' / '.join(f'{100 * share[label]:.0f}' for share in shares)} %",
        )
        for label in present[:_NUM_NAMED]
    ]
    if len(present) > _NUM_NAMED:
        entries.append(Patch(facecolor="none", edgecolor="none", label=f"and {len(present) - _NUM_NAMED} more"))
    if truth_hw is not None and (unlabelled := np.mean(truth_hw == IGNORED)):
        entries.append(Patch(facecolor="black", edgecolor="0.5", label=f"unlabelled  {100 * unlabelled:.0f} %"))
    return entries
