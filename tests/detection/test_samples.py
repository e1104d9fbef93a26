"""One sample: size, flip, boxes and masks belong together and depend on nothing but seed and key."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as run_lengths

from detection.samples import DetectionImages, decode_mask, resized_shape
from engine.data.order import SampleKey
from engine.errors import DataError
from tests.detection.folders import make_coco, read, read_split, tiny_config, write


@pytest.fixture
def root(tmp_path):
    return make_coco(tmp_path, num_train=4, num_val=2)


def images(root, training=True, **changes):
    split = read_split(root, "train" if training else "val", training=training, masks=True)
    config = tiny_config(root)
    config = replace(config, image_size=48, seed=5, data=replace(config.data, **changes))
    return DetectionImages(split, config, training)


@pytest.mark.parametrize(
    ("height", "width", "expected"), [(480, 640, (800, 1067)), (480, 960, (667, 1333)), (375, 500, (800, 1067))]
)
def test_images_are_resized_by_the_short_side_unless_the_long_one_is_too_long(height, width, expected):
    assert resized_shape(np.zeros((height, width, 3), np.uint8), 800, 1333) == expected


def test_the_same_key_gives_the_same_sample_and_another_epoch_another(root):
    data = images(root)
    first, again = data[SampleKey(0, 1)], data[SampleKey(0, 1)]
    assert first.keys() == again.keys()
    assert all(torch.equal(torch.as_tensor(first[name]), torch.as_tensor(again[name])) for name in first)
    others = [data[SampleKey(epoch, 1)]["image"] for epoch in range(1, 8)]
    assert any(other.shape != first["image"].shape or not torch.equal(other, first["image"]) for other in others)


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_boxes_and_masks_lie_on_the_object_after_resizing_and_flipping(root, flip):
    data = images(root, short_sides=(96,), max_side=128, flip=flip)
    for index in range(4):
        sample = data[SampleKey(0, index)]
        record = data.split.records[index]
        assert min(sample["image"].shape[1:]) == 96
        for annotation, box, mask, label in zip(
            record["annotations"], sample["boxes"], sample["masks"], sample["labels"], strict=True
        ):
            assert label == annotation["label"] + 1  # 0 is the background
            x, y, width, height = annotation["bbox"]
            scale = 96 / min(record["height"], record["width"])
            left = (record["width"] - x - width if flip else x) * scale
            expected = [left, y * scale, left + width * scale, (y + height) * scale]
            assert box.tolist() == pytest.approx(expected, abs=0.01)
            rows, columns = torch.nonzero(mask, as_tuple=True)
            found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert [int(value) for value in found] == pytest.approx(expected, abs=1.5)


def test_the_picture_is_flipped_with_its_boxes(root):
    straight, flipped = (
        images(root, short_sides=(48,), max_side=64, flip=flip)[SampleKey(0, 0)] for flip in (0.0, 1.0)
    )
    assert torch.equal(straight["image"].flip(2), flipped["image"])
    assert torch.equal(straight["masks"].flip(2), flipped["masks"])


def test_an_evaluation_sample_has_the_evaluation_size_and_no_targets(root):
    sample = images(root, training=False)[SampleKey(0, 0)]
    assert min(sample["image"].shape[1:]) == 48
    assert (sample["height"], sample["width"], sample["image_id"]) == (48, 64, 1)
    assert "boxes" not in sample


def test_run_lengths_and_polygons_of_one_object_give_one_mask(root):
    document = read(root, "train")
    entry = document["annotations"][0]
    image = next(image for image in document["images"] if image["id"] == entry["image_id"])
    mask = decode_mask(entry["segmentation"], image["height"], image["width"])
    coded = run_lengths.encode(np.asfortranarray(mask))
    entry["segmentation"] = {"size": coded["size"], "counts": coded["counts"].decode()}
    straight = {"short_sides": (48,), "max_side": 64, "flip": 0.0}
    before = images(root, **straight)[SampleKey(0, 0)]["masks"]
    write(root, "train", document)
    changed = images(root, **straight)
    assert changed.split.has_run_lengths
    assert torch.equal(changed[SampleKey(0, 0)]["masks"], before)


def test_an_image_that_changed_its_size_after_the_check_is_named(root):
    data = images(root)
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(root / "train2017" / f"{1:012d}.jpg")
    with pytest.raises(DataError, match=r"image 1, annotation 1: .* is 20x20 pixels, the annotations say 64x48"):
        data[SampleKey(0, 0)]


def test_a_truncated_image_stops_the_run_or_is_replaced_by_choice(root, tmp_path):
    data = images(root)
    path = root / "train2017" / f"{1:012d}.jpg"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(DataError, match=r"000000000001\.jpg.*--data\.unreadable skip"):
        data[SampleKey(0, 0)]
    data.unreadable, data.run_dir = "skip", tmp_path
    with pytest.raises(DataError, match=r"more than --data\.max-unreadable 0\.001"):  # of four images, one is too many
        data[SampleKey(0, 0)]
    assert str(path) in (tmp_path / "unreadable.txt").read_text()
