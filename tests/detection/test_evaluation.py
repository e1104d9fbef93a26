"""COCO's numbers: two libraries agree, perfect and absent detections, every image once on any number of ranks."""

import json

import numpy as np
import pytest
from pycocotools import mask as run_lengths

from detection.evaluation import NUMBERS, coco_numbers, with_category_ids
from detection.samples import decode_mask
from tests.detection.evaluate_on_ranks import PREDICTED_IMAGES, predict_images
from tests.detection.folders import make_coco, read_split
from tests.forked import run_module


@pytest.fixture(scope="module")
def val(tmp_path_factory):
    return read_split(make_coco(tmp_path_factory.mktemp("coco"), num_val=30), "val", training=False, masks=True)


def detections(document, *, jitter=0.0, num_extra=0, seed=0):
    """The annotated objects as detections, moved by up to `jitter` pixels, and some that are not there."""
    source = np.random.default_rng(seed)
    results = []
    for entry in document["annotations"]:
        if entry["iscrowd"]:
            continue
        image = next(image for image in document["images"] if image["id"] == entry["image_id"])
        for _ in range(1 + num_extra):
            x, y, w, h = np.array(entry["bbox"]) + source.uniform(-jitter, jitter, 4)
            polygon = [[x, y, x + w, y, x + w, y + h, x, y + h]]
            coded = run_lengths.encode(np.asfortranarray(decode_mask(polygon, image["height"], image["width"])))
            label = entry["category_id"] if source.random() < 0.8 else int(source.choice([2, 5, 9]))
            results.append(
                {
                    "image_id": entry["image_id"],
                    "category_id": label if jitter else entry["category_id"],
                    "bbox": [float(value) for value in (x, y, w, h)],
                    "score": float(source.random()),
                    "segmentation": {"size": coded["size"], "counts": coded["counts"].decode()},
                }
            )
    return results


def test_both_libraries_give_the_same_numbers_with_crowds_and_wrong_detections(val):
    document = val.ground_truth()
    results = detections(document, jitter=6.0, num_extra=3)
    fast = coco_numbers(document, results, official=False)
    official = coco_numbers(document, results, official=True)
    assert fast.keys() == official.keys()
    assert fast == pytest.approx(official, abs=1e-9)
    assert 1 < official["box_AP"] < 90
    assert 1 < official["mask_AP"] < 90


def test_perfect_detections_have_100_percent_in_every_number_there_is(val):
    document = val.ground_truth()
    numbers = coco_numbers(document, detections(document), official=True)
    always = {f"{kind}_{name}" for kind in ("box", "mask") for name in NUMBERS}
    absent = {f"{kind}_{name}" for kind in ("box", "mask") for name in ("APm", "APl", "ARm", "ARl")}
    assert numbers.keys() == always - absent  # all objects are smaller than 32 x 32
    assert {name: value for name, value in numbers.items() if "AR1" not in name} == pytest.approx(
        {name: 100.0 for name in numbers if "AR1" not in name}
    )


@pytest.mark.parametrize("official", [True, False])
def test_no_detections_are_zero_percent(val, official):
    numbers = coco_numbers(val.ground_truth(), [], official=official)
    assert set(numbers.values()) == {0.0}


def test_the_evaluation_leaves_annotations_and_results_as_they_were(val):
    document = val.ground_truth()
    results = detections(document, jitter=3.0)
    before = json.dumps([document, results])
    for official in (True, False):
        coco_numbers(document, results, official=official)
    assert json.dumps([document, results]) == before


def test_labels_become_the_data_sets_category_ids():
    results = [{"image_id": 4, "label": 2, "bbox": [0, 0, 1, 1], "score": 0.5}]
    assert with_category_ids(results, (2, 5, 9)) == [
        {"image_id": 4, "category_id": 9, "bbox": [0, 0, 1, 1], "score": 0.5}
    ]


def test_two_ranks_predict_each_image_once_and_know_all_results(tmp_path):
    alone = predict_images()
    assert [result["image_id"] for result in alone] == list(range(PREDICTED_IMAGES))
    done = run_module("tests.detection.evaluate_on_ranks", tmp_path, ranks=2)
    assert done.returncode == 0, done.stderr
    for rank in (0, 1):
        assert json.loads((tmp_path / f"{rank}.json").read_text()) == alone
