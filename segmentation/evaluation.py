"""mIoU, aAcc, mAcc and the IoU of every class over a validation set, on any number of ranks.

The pixel counts over the ranks' batches (engine/data/rounds.py) are added up. K classes.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from mmengine.dataset import pseudo_collate
from mmseg.evaluation import IoUMetric
from torch import Tensor, nn

from engine import distributed
from engine.data.rounds import rounds
from segmentation.data import Pairs, same_size_batches
from segmentation.mmseg_adapter import mmseg_scope


class CountingMetric(IoUMetric):  # type: ignore[misc]
    """IoUMetric with its pixel counts in float64: sums of float32 lose pixels beyond 2^24, a few dozen images, and so
    depend on the order of addition and on the number of ranks."""

    @staticmethod
    def intersect_and_union(pred_label: Tensor, label: Tensor, num_classes: int, ignore_index: int) -> tuple[Any, ...]:
        """Four float64 (K,) counts: intersection, union, predicted, labelled."""
        counts = IoUMetric.intersect_and_union(pred_label, label, num_classes, ignore_index)
        return tuple(count.double() for count in counts)

    def counts(self) -> Tensor:
        """The sum over what was processed, (4, K)."""
        num_classes = len(self.dataset_meta["classes"])
        total = torch.zeros(4, num_classes, dtype=torch.float64)
        for result in self.results:
            total += torch.stack(result)
        return total


@dataclass(frozen=True)
class Scores:
    """The result of an evaluation in percent. Classes that are neither labelled nor predicted are NaN and do not count
    in the means.

    Args:
        iou: of each class, (K,).
        accuracy: of each class, the share of its pixels that are found, (K,).
        pixel_accuracy: share of all labelled pixels.
        constant: mIoU of predicting the most frequent class everywhere.
        each: of every image the pixels of each class that are both predicted and labelled, and either, (N, 2, K), in
            the order of evaluation; None on several ranks.
    """

    iou: np.ndarray
    accuracy: np.ndarray
    pixel_accuracy: float
    constant: float
    each: np.ndarray | None = None

    @classmethod
    def of_counts(cls, counts: Tensor, each: np.ndarray | None = None) -> "Scores":
        """From the four (K,) counts of CountingMetric, by IoUMetric's own formulas."""
        with np.errstate(invalid="ignore", divide="ignore"):
            found = IoUMetric.total_area_to_metrics(*counts.cpu())
        labelled = counts[3]
        constant = 100 * float(labelled.max() / labelled.sum()) / max(int((labelled > 0).sum()), 1)
        return cls(100 * found["IoU"], 100 * found["Acc"], 100 * float(found["aAcc"]), constant, each)

    def means(self) -> dict[str, float]:
        """mIoU, aAcc and mAcc."""
        return {
            "mIoU": float(np.nanmean(self.iou)),
            "aAcc": self.pixel_accuracy,
            "mAcc": float(np.nanmean(self.accuracy)),
        }

    def per_class(self, names: Sequence[str]) -> dict[str, dict[str, float | None]]:
        """{name: {"IoU", "Acc"}}, None where not defined."""
        rows = zip(names, self.iou.tolist(), self.accuracy.tolist(), strict=True)
        return {name: {"IoU": _or_none(iou), "Acc": _or_none(accuracy)} for name, iou, accuracy in rows}


def _at_all_scales(segmentor: nn.Module) -> Any:
    from mmseg.models import SegTTAModel  # here, because it imports what segmentation/framework.py has to prepare

    return SegTTAModel(segmentor)


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 4)


def evaluate(
    segmentor: nn.Module,
    pairs: Pairs,
    *,
    batch_size: int,
    num_workers: int,
    device: torch.device,
    check_stop: Callable[[], None],
) -> Scores:
    """Predict every image and compare.

    Args:
        segmentor: an EncoderDecoder in evaluation mode.
        pairs: the validation set; under multi_scale_pipeline the predictions of all scales and flips are averaged.
        batch_size: images predicted at once, of equal size.
        num_workers: reader processes.
        device: where the counts are added up over ranks.
        check_stop: called equally often on every rank, between batches; raises to end the evaluation.
    """
    plan = same_size_batches(pairs, batch_size)
    metric = CountingMetric()
    metric.dataset_meta = pairs.source.metainfo
    model: Any = _at_all_scales(segmentor) if pairs.multi_scale else segmentor
    for mine in rounds(pairs, plan, check_stop, num_workers=num_workers, collate=pseudo_collate):
        for batch in mine:
            with mmseg_scope():
                samples = model.test_step(batch)
            metric.process({}, [sample.to_dict() for sample in samples])
    each = (
        np.stack([torch.stack(result[:2]).numpy() for result in metric.results])
        if distributed.world_size() == 1
        else None
    )
    return Scores.of_counts(distributed.sum_over_ranks(metric.counts().to(device)), each)
