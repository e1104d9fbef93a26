"""Photos with an EXIF orientation: boxes and masks lie on the objects, or the run does not start and says why."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from detection.coco import check_image_sizes
from detection.frameworks.contract import load_framework
from engine.data.order import SampleKey
from engine.errors import DataError
from tests.detection.folders import FRAMEWORKS, make_coco, needs_detectron2, read_split, tiny_config

TURNED_BACK = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # orientation -> Pillow's transposition that undoes it


def turn(root, orientation, split="train"):
    """Store every photo turned, with the tag that says so; what is to be seen stays as it was."""
    for path in sorted((root / f"{split}2017").iterdir()):
        with Image.open(path) as image:
            stored = image.transpose(TURNED_BACK[orientation])
        exif = Image.Exif()
        exif[0x0112] = orientation
        stored.save(path, quality=95, exif=exif)


def samples(root, framework, **data):
    config = tiny_config(root, framework=framework)
    config = replace(config, data=replace(config.data, short_sides=(48,), flip=0.0, **data))
    split = read_split(root, "train", training=True, masks=True, **data)
    return split, load_framework(framework).samples(split, config, True, None)


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("orientation", TURNED_BACK)
def test_objects_lie_where_they_were_drawn_on_the_upright_photo(tmp_path, framework, orientation):
    _, plain = samples(make_coco(tmp_path / "plain", num_train=3, num_val=1), framework)
    root = make_coco(tmp_path / "turned", num_train=3, num_val=1)
    turn(root, orientation)
    split, turned = samples(root, framework)
    check_image_sizes(split)
    for index in range(3):
        expected, found = plain[SampleKey(0, index)], turned[SampleKey(0, index)]
        assert found["image"].shape == expected["image"].shape
        assert (found["image"].float() - expected["image"].float()).abs().mean() < 6  # JPEG, twice
        if framework == "torchvision":
            assert torch.equal(found["boxes"], expected["boxes"])
            assert torch.equal(found["masks"], expected["masks"])
        else:
            assert torch.equal(found["instances"].gt_boxes.tensor, expected["instances"].gt_boxes.tensor)


@pytest.mark.parametrize("orientation", [3, 6])
def test_pixels_as_stored_can_be_asked_for(tmp_path, orientation):
    root = make_coco(tmp_path, num_train=2, num_val=1)
    path = root / "train2017" / f"{1:012d}.jpg"
    exif = Image.Exif()
    exif[0x0112] = orientation
    with Image.open(path) as image:
        pixels = np.asarray(image).astype(int)
        image.save(path, quality=95, exif=exif)  # the annotator saw what is stored
    split, data = samples(root, "torchvision", exif="ignore")
    check_image_sizes(split)
    found = data[SampleKey(0, 0)]["image"].permute(1, 2, 0).numpy().astype(int)
    assert np.abs(found - pixels).mean() < 6


@pytest.mark.parametrize(
    ("orientation", "exif", "says"),
    [
        (6, "ignore", "48x64 pixels as stored, 64x48 upright; .* 64x48, as upright: set --data.exif apply"),
        (3, "stop", "64x48 pixels as stored, 64x48 upright; .* fits both: set --data.exif apply .* or .*ignore"),
        (6, "stop", ".*the annotations say 64x48, as upright: set --data.exif apply"),
    ],
)  # fmt: skip
def test_a_photo_that_does_not_fit_is_refused_with_its_orientation_and_what_to_do(tmp_path, orientation, exif, says):
    root = make_coco(tmp_path, num_train=2, num_val=1)
    turn(root, orientation)
    split = read_split(root, "train", training=True, masks=True, exif=exif)
    with pytest.raises(DataError, match=rf"image 1, annotation 1: .*EXIF orientation {orientation}: {says}"):
        check_image_sizes(split)


def test_boxes_drawn_on_stored_pixels_are_refused_by_default(tmp_path):
    root = make_coco(tmp_path, num_train=2, num_val=1)
    path = root / "train2017" / f"{1:012d}.jpg"
    exif = Image.Exif()
    exif[0x0112] = 8
    with Image.open(path) as image:
        image.save(path, exif=exif)
    with pytest.raises(DataError, match=r"the annotations say 64x48, as stored: set --data\.exif ignore"):
        check_image_sizes(read_split(root, "train", training=True, masks=True))


@pytest.mark.parametrize("flip", [pytest.param(flip, marks=needs_detectron2) for flip in (0.0, 1.0)])
def test_detectron2s_samples_are_its_dataset_mappers(tmp_path, flip):
    from detectron2.data import DatasetMapper, transforms
    from detectron2.structures import BoxMode

    root = make_coco(tmp_path, num_train=4, num_val=1)
    config = tiny_config(root, framework="detectron2")
    config = replace(config, data=replace(config.data, short_sides=(40,), flip=flip))
    split = read_split(root, "train", training=True, masks=True)
    ours = load_framework("detectron2").samples(split, config, True, None)
    chosen = [transforms.ResizeShortestEdge((40,), 64, sample_style="choice"), transforms.RandomFlip(prob=flip)]
    theirs = DatasetMapper(is_train=True, augmentations=chosen, image_format="RGB", use_instance_mask=True)
    for index in range(4):
        record = split.records[index]
        entries = [
            {**entry, "bbox_mode": BoxMode.XYWH_ABS, "category_id": entry["label"], "iscrowd": 0}
            for entry in record["annotations"]
        ]
        found = ours[SampleKey(0, index)]
        expected = theirs({**record, "annotations": entries, "file_name": split.index.path(index)})
        assert torch.equal(found["image"], expected["image"])
        assert (found["height"], found["width"]) == (expected["height"], expected["width"])
        a, b = found["instances"], expected["instances"]
        assert torch.equal(a.gt_boxes.tensor, b.gt_boxes.tensor)
        assert torch.equal(a.gt_classes, b.gt_classes)
        for mine, other in zip(a.gt_masks.polygons, b.gt_masks.polygons, strict=True):
            assert all(np.array_equal(x, y) for x, y in zip(mine, other, strict=True))
