"""Average precision on COCO: every image predicted exactly once on any number of ranks, then COCO's twelve numbers.

During training faster-coco-eval computes them, at the end pycocotools; both give the same numbers, the first sooner.
"""

import contextlib
import io
from collections.abc import Callable
from typing import Any

import faster_coco_eval
import pycocotools.coco
import pycocotools.cocoeval
from torch import nn
from torch.utils.data import Dataset

from detection.frameworks.contract import Predictor, Result
from detection.numbering import numbered
from detection.samples import as_list
from engine import distributed
from engine.data.rounds import in_order, rounds

NUMBERS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
"""In COCO's order: average precision over IoU 0.5 to 0.95, at 0.5, at 0.75, of small (below 32 x 32 pixels), medium and
large (above 96 x 96) objects; average recall with 1, 10 and 100 detections an image, and of the same sizes."""
KINDS = {"box": "bbox", "mask": "segm"}


def predict_all(
    predictor: Predictor,
    model: nn.Module,
    dataset: Dataset[Any],
    *,
    batch_size: int,
    num_workers: int,
    check_stop: Callable[[], None],
) -> list[Result]:
    """The detections in every image of `dataset`, on every rank, in the order of the images.

    Args:
        predictor: a framework's.
        model: the detector, in evaluation mode.
        dataset: `dataset[SampleKey]` -> a sample; sized.
        batch_size: images per batch, on each rank.
        num_workers: reader processes.
        check_stop: called equally often on every rank, between batches; raises to end the evaluation.
    """
    batches = in_order(len(dataset), batch_size)  # type: ignore[arg-type]
    found = [
        [result for batch in mine for result in predictor(model, batch)]
        for mine in rounds(dataset, batches, check_stop, num_workers=num_workers, collate=as_list)
    ]
    by_rank = distributed.gather_objects(found)
    return [result for number in range(len(found)) for part in by_rank for result in part[number]]


def with_category_ids(results: list[Result], category_ids: tuple[int, ...]) -> list[Result]:
    """The results with the data set's category_id in place of the label."""
    named = []
    for result in results:
        rest = {name: value for name, value in result.items() if name not in ("image_id", "label")}
        named.append({"image_id": result["image_id"], "category_id": category_ids[result["label"]], **rest})
    return named


def coco_numbers(
    document: dict[str, Any], results: list[Result], kinds: tuple[str, ...] = ("box", "mask"), *, official: bool
) -> dict[str, float]:
    """COCO's twelve numbers for boxes and masks, in percent: box_AP, box_AP50, ..., mask_ARl.

    A number that is not defined, for there are no objects of that size, is left out.

    Args:
        document: the annotations of exactly the images that were predicted.
        results: with category_id.
        kinds: of "box" and "mask".
        official: pycocotools instead of faster-coco-eval.
    """
    truth = numbered(document)
    document, results = truth.document, truth.results(results)
    numbers: dict[str, float] = {}
    for kind in kinds:
        stats = _statistics(document, results, KINDS[kind], official=official)
        numbers |= {f"{kind}_{name}": 100 * stat for name, stat in zip(NUMBERS, stats, strict=True) if stat >= 0}
    return numbers


def _statistics(document: dict[str, Any], results: list[Result], iou_type: str, *, official: bool) -> list[float]:
    library = pycocotools.coco if official else faster_coco_eval
    evaluator = pycocotools.cocoeval.COCOeval if official else faster_coco_eval.COCOeval_faster
    with contextlib.redirect_stdout(io.StringIO()):
        # COCO changes the documents it is given.
        truth = _coco(library, {**document, "annotations": [dict(entry) for entry in document["annotations"]]})
        found = (
            truth.loadRes([_of_kind(result, iou_type) for result in results])
            if results
            else _coco(library, {**document, "annotations": []})
        )
        evaluation = evaluator(truth, found, iou_type)
        evaluation.params.imgIds = sorted(image["id"] for image in document["images"])
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [float(value) for value in evaluation.stats[: len(NUMBERS)]]


def _of_kind(result: Result, iou_type: str) -> Result:
    """A copy with the box or the mask alone: given both, COCO would measure a mask's size by its box."""
    other = "segmentation" if iou_type == "bbox" else "bbox"
    return {name: value for name, value in result.items() if name != other}


def _coco(library: Any, document: dict[str, Any]) -> Any:
    coco = library.COCO()
    coco.dataset = document
    coco.createIndex()
    return coco
