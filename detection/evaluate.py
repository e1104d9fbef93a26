"""`python -m detection evaluate RUN --data.root DIR`: COCO's numbers of a finished run on another annotated set."""

import dataclasses

from detection.coco import check_image_sizes, read_split
from detection.evaluation import coco_numbers, predict_all, with_category_ids
from detection.finished import load_detector
from engine import use


def evaluate(command: use.Evaluate) -> dict[str, float]:
    """COCO's numbers in percent, by pycocotools. The classes of the set are found by their names, whatever their ids.

    Raises:
        ConfigError: the folder holds no finished run.
        DataError: the annotations cannot be used, or lack a class of the run.
    """
    detector = load_detector(command.run)
    config = detector.config
    names = tuple(detector.names.values())
    data = dataclasses.replace(command.config.data, classes=names if len(set(names)) == len(names) else ())
    split = read_split(data, "val", training=False, masks=config.has_masks)
    check_image_sizes(split)
    results = predict_all(
        detector,
        detector.model,
        detector.framework.samples(split, dataclasses.replace(config, data=data), False, None),
        batch_size=data.evaluation_batch_size,
        num_workers=data.num_workers,
        check_stop=lambda: None,
    )
    kinds = ("box", "mask") if config.has_masks else ("box",)
    found = with_category_ids(results, split.category_ids)
    return coco_numbers(split.ground_truth(), found, kinds, official=True)
