"""What a segmentor predicts as pictures: image, truth and prediction side by side, in ADE20K's colours, with a legend.

H W image size.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from mmengine.dataset import Compose, pseudo_collate
from mmseg.datasets.ade import ADE20KDataset
from torch import nn

from engine.data.images import read_image
from segmentation.check import read_label_map
from segmentation.config import NUM_CLASSES, SegmentationConfig
from segmentation.data import Pairs
from segmentation.mmseg_adapter import IGNORED, evaluation_pipeline, mmseg_scope

logging.getLogger("matplotlib").setLevel(logging.WARNING)  # it reports its font cache
Labels = npt.NDArray[np.uint8]
_NUM_NAMED = 16  # classes in a legend
_CLASSES: Sequence[str] = ADE20KDataset.METAINFO["classes"]
_PALETTE = np.array([*ADE20KDataset.METAINFO["palette"], [0, 0, 0]], dtype=np.uint8)  # the last one for ignored pixels


def draw_panels(segmentor: nn.Module, config: SegmentationConfig, pairs: Pairs, folder: Path) -> list[Path]:
    """Draw the first images of a validation set, `evaluation.num_panels` of them.

    Args:
        segmentor: in evaluation mode.
        config: of the run.
        pairs: the validation set.
        folder: where the PNG files go, named like the images.
    """
    images = [Path(pairs.path(i)) for i in range(min(config.evaluation.num_panels, len(pairs)))]
    return [draw_panel(segmentor, config, image, folder) for image in images]


def draw_panel(segmentor: nn.Module, config: SegmentationConfig, image_path: Path, folder: Path) -> Path:
    """Draw one image; the truth is left out where no label map stands in annotations/ as the image does in images/."""
    truth = _truth_of(image_path)
    figure = panel(read_image(image_path), predict(segmentor, config, image_path), truth, image_path.name)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{image_path.stem}.png"
    FigureCanvasAgg(figure).print_png(path, metadata={"Software": None})  # type: ignore[no-untyped-call]
    return path


@torch.no_grad()
def predict(segmentor: nn.Module, config: SegmentationConfig, image_path: Path) -> Labels:
    """The class (0 to 149) of every pixel, (H, W), at the size of the image and in float32 throughout."""
    with mmseg_scope():
        pipeline = Compose(evaluation_pipeline(config, labels=False))
    packed = pipeline({"img_path": str(image_path)})
    sample: Any = segmentor.test_step(pseudo_collate([packed]))[0]  # type: ignore[operator]
    labels: Labels = sample.pred_sem_seg.data[0].cpu().numpy().astype(np.uint8)
    return labels


def panel(image_hw3: npt.NDArray[np.uint8], predicted_hw: Labels, truth_hw: Labels | None, title: str) -> Figure:
    """The figure: image, truth and prediction, and the largest classes of both with their share of the pixels.

    Args:
        image_hw3: RGB.
        predicted_hw: class of each pixel, 0 to 149.
        truth_hw: the same, 255 where nothing is labelled; None for no truth.
        title: above the image.
    """
    shown = [(title, image_hw3)]
    if truth_hw is not None:
        known = truth_hw != IGNORED
        share = f"{100 * np.mean(predicted_hw[known] == truth_hw[known]):.1f} % right" if known.any() else "no labels"
        shown += [("truth", colour(truth_hw)), (f"prediction ({share})", colour(predicted_hw))]
    else:
        shown += [("prediction", colour(predicted_hw))]
    height = 4.0 * image_hw3.shape[0] / image_hw3.shape[1]
    figure = Figure(figsize=(4.0 * len(shown) + 3.0, max(height, 3.2) + 0.4), layout="constrained")
    for i, (name, picture) in enumerate(shown, start=1):
        axes = figure.add_subplot(1, len(shown), i)
        axes.imshow(picture, interpolation="nearest")
        axes.set_title(name, fontsize=9)
        axes.axis("off")
    heading = "pixels in the prediction" if truth_hw is None else "pixels in truth / prediction"
    figure.legend(
        handles=_legend(predicted_hw, truth_hw),
        title=heading,
        loc="outside right center",
        fontsize=8,
        title_fontsize=8,
        frameon=False,
    )
    return figure


def colour(labels_hw: Labels) -> npt.NDArray[np.uint8]:
    """ADE20K's colours (H, W, 3) of the labels; black where nothing is labelled."""
    return _PALETTE[np.minimum(labels_hw, NUM_CLASSES)]


def _legend(predicted_hw: Labels, truth_hw: Labels | None) -> list[Patch]:
    maps = [predicted_hw] if truth_hw is None else [truth_hw, predicted_hw]
    shares = [np.bincount(labels.ravel(), minlength=256)[:NUM_CLASSES] / labels.size for labels in maps]
    order = np.argsort(-np.max(shares, axis=0), kind="stable")
    present = [int(label) for label in order if any(share[label] > 0 for share in shares)]
    entries = [
        Patch(
            facecolor=_PALETTE[label] / 255,
            edgecolor="0.5",
            label=f"{_CLASSES[label].strip()}  {' / '.join(f'{100 * share[label]:.0f}' for share in shares)} %",
        )
        for label in present[:_NUM_NAMED]
    ]
    if len(present) > _NUM_NAMED:
        entries.append(Patch(facecolor="none", edgecolor="none", label=f"and {len(present) - _NUM_NAMED} more"))
    if truth_hw is not None and (unlabelled := np.mean(truth_hw == IGNORED)):
        entries.append(
            Patch(facecolor=_PALETTE[-1] / 255, edgecolor="0.5", label=f"unlabelled  {100 * unlabelled:.0f} %")
        )
    return entries


def _truth_of(image_path: Path) -> Labels | None:
    parts = list(image_path.absolute().parts)
    if "images" not in parts:
        return None
    place = len(parts) - 1 - parts[::-1].index("images")
    path = Path(*parts[:place], "annotations", *parts[place + 1 :]).with_suffix(".png")
    if not path.is_file():
        return None
    stored = read_label_map(path)
    return np.where(stored == 0, IGNORED, stored.astype(np.int16) - 1).astype(np.uint8)
