"""F23: what is wrong with annotations is found before training, named by image and annotation, or counted."""

import numpy as np
import pytest
from PIL import Image

from detection.coco import Records, check_image_sizes, check_same_categories
from engine.errors import DataError
from tests.detection.folders import CATEGORIES, make_coco, read, read_split, write


@pytest.fixture
def root(tmp_path):
    return make_coco(tmp_path, num_train=6, num_val=3)


def train_split(root, **options):
    return read_split(root, "train", **{"training": True, "masks": True, **options})


def edit(root, change, split="train"):
    """Change the annotation file in place; `change` gets the document."""
    document = read(root, split)
    change(document)
    write(root, split, document)


def test_a_good_split_is_read_whole(root):
    split, document = train_split(root), read(root, "train")
    assert len(split) == 6
    assert split.category_ids == tuple(CATEGORIES)
    assert split.category_names == tuple(CATEGORIES.values())
    objects = [entry for entry in document["annotations"] if not entry["iscrowd"]]
    assert split.counts["objects"] == len(objects)
    assert split.counts["crowds"] == 1
    by_id = {entry["id"]: entry for entry in objects}
    for position in range(6):
        record = split.records[position]
        assert record["file_name"] == split.index.paths[position]
        assert split.is_wide[position] == (record["width"] > record["height"])
        for annotation in record["annotations"]:
            given = by_id.pop(annotation["id"])
            assert annotation["bbox"] == given["bbox"]
            assert split.category_ids[annotation["label"]] == given["category_id"]
            assert annotation["segmentation"] == given["segmentation"]
    assert not by_id


def test_records_give_back_what_they_were_given():
    given = [{"image_id": 3, "file_name": "ü.jpg", "annotations": []}, {"image_id": 1, "x": [0.1, 2]}]
    records = Records(given)
    assert list(records) == given
    assert records[-1] == given[1]
    assert records[:1] == given[:1]
    with pytest.raises(IndexError):
        records[2]


def test_an_image_without_objects_is_left_out_of_training_and_counted_but_evaluated(root):
    def empty(document):
        document["annotations"] = [entry for entry in document["annotations"] if entry["image_id"] not in (2, 3)]

    edit(root, empty)
    edit(root, empty, "val")
    split = train_split(root)
    assert (len(split), split.counts["images_without_objects"]) == (4, 2)
    val = read_split(root, "val", training=False, masks=True)
    assert len(val) == len(val.ground_truth()["images"]) == 3


def test_an_image_that_holds_only_a_crowd_is_left_out_of_training(root):
    def only_crowd(document):
        document["annotations"] = [e for e in document["annotations"] if e["iscrowd"] or e["image_id"] != 1]

    edit(root, only_crowd)
    split = train_split(root)
    assert (len(split), split.counts["crowds"], split.counts["images_without_objects"]) == (5, 1, 1)


def test_a_box_without_area_and_a_mask_without_polygon_are_dropped_and_counted(root):
    before = train_split(root).counts["objects"]

    def spoil(document):
        document["annotations"][0]["bbox"][2] = 0
        document["annotations"][1]["segmentation"] = [[1, 1, 2, 2]]

    edit(root, spoil)
    counts = train_split(root).counts
    assert (counts["objects"], counts["boxes_without_area"], counts["masks_without_polygon"]) == (before - 2, 1, 1)
    assert train_split(root, masks=False).counts["objects"] == before - 1


def set_on_first(**values):
    return lambda document: document["annotations"][0].update(values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_on_first(category_id=7), "image 1, annotation 1: there is no category 7"),
        (set_on_first(image_id=99), "image 99, annotation 1: there is no such image"),
        (set_on_first(bbox=[60, 2, 30, 5]), r"annotation 1: its box \[60, 2, 30, 5\] lies outside the 64x48 image"),
        (set_on_first(bbox=[-9, 2, 10, 5]), "annotation 1: its box .* lies outside"),
        (set_on_first(bbox=[3, 2, -1, 5]), "annotation 1: its box .* has a negative side"),
        (set_on_first(bbox=[3, 2, float("nan"), 5]), "annotation 1: its box .* is not four finite numbers"),
        (set_on_first(bbox=None), "annotation 1: its box None is not four finite numbers"),
        (set_on_first(segmentation=None), "image 1, annotation 1: it has no outline"),
        (set_on_first(id=2), "annotation 2: this annotation id is used twice"),
        (lambda document: document["images"][0].update(id=2), "image 2: this id is used twice"),
        (lambda document: document["images"][0].update(file_name="none.jpg"), "image 1: .*none.jpg is missing"),
        (lambda document: document["images"][0].update(width=0), "image 1: its size 0x48 is none"),
        (lambda document: document["categories"].append({"id": 2, "name": "again"}), "4 categories with 3 different"),
    ],
)
def test_a_wrong_annotation_stops_the_run_with_its_ids(root, change, message):
    edit(root, change)
    with pytest.raises(DataError, match=message) as error:
        train_split(root)
    assert error.value.exit_code == 3


def remove_from_first(*names):
    return lambda document: [document["annotations"][0].pop(name) for name in names]


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (remove_from_first("id"), r"annotations, entry 0 \(image_id 1\): it has no id"),
        (remove_from_first("bbox", "image_id"), r"annotations, entry 0 \(id 1\): it has no image_id, bbox"),
        (set_on_first(category_id="two"), "image 1, annotation 1: its category_id 'two' is the id of none"),
        (lambda document: document["images"][0].update(height="48 px"), "images, entry 0 .*height '48 px' is no whole"),
        (lambda document: document["images"][1].pop("file_name"), "images, entry 1 .*it has no file_name"),
        (lambda document: document["categories"][0].pop("name"), "categories, entry 0 .*it has no name"),
        (lambda document: document["annotations"].append(7), "7 is not an object with fields"),
        (set_on_first(bbox=["a", 2, 3, 4]), "is not four finite numbers"),
        (set_on_first(segmentation=[3, 3, 9, 3, 9, 9]), "it has no outline"),
        (
            set_on_first(segmentation={"size": [9, 9], "counts": [0, 81]}),
            r"its mask has size \[9, 9\], its image \[48, 64\]",
        ),
    ],
)
def test_a_malformed_entry_of_either_split_is_named(root, split, change, message):
    edit(root, change, split)
    with pytest.raises(DataError, match=message):
        read_split(root, split, training=split == "train", masks=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_on_first(segmentation=[]), "begins with no polygon"),
        (set_on_first(segmentation=[[1, 1, 2, 2]]), "begins with no polygon"),
        (lambda document: document["annotations"][-1].pop("segmentation"), "it has no outline"),  # the crowd's
    ],
)
def test_what_only_the_evaluation_needs_is_found_before_training_too(root, change, message):
    edit(root, change)
    train_split(root)
    edit(root, change, "val")
    with pytest.raises(DataError, match=message):
        read_split(root, "val", training=False, masks=True)


def test_all_problems_are_counted_and_the_first_five_named(root):
    edit(root, lambda document: [entry.update(category_id=7) for entry in document["annotations"]])
    number = len(read(root, "train")["annotations"])
    with pytest.raises(DataError, match=rf"{number} problems:") as error:
        train_split(root)
    assert str(error.value).count("there is no category 7") == 5
    assert f"and {number - 5} more" in str(error.value)


def test_a_box_may_overshoot_its_image_by_rounding(root):
    edit(root, set_on_first(bbox=[54.3, 30, 9.9, 18.4]))
    assert train_split(root).counts["objects"] > 0


def test_an_image_of_another_size_than_annotated_is_found_before_training(root):
    Image.fromarray(np.zeros((50, 64, 3), np.uint8)).save(root / "train2017" / f"{2:012d}.jpg")
    split = train_split(root)
    with pytest.raises(DataError, match=r"image 2, annotation \d+: .* is 64x50 pixels, the annotations say 64x48"):
        check_image_sizes(split)


def test_an_unreadable_image_is_left_to_the_reader(root):
    (root / "train2017" / f"{2:012d}.jpg").write_bytes(b"<html>")
    check_image_sizes(train_split(root))


def test_different_categories_in_training_and_validation_are_refused(root):
    edit(root, lambda document: document["categories"][1].update(name="other"), "val")
    val = read_split(root, "val", training=False, masks=True)
    with pytest.raises(DataError, match="differ in 2 categories: 5 'blue', 5 'other'"):
        check_same_categories(train_split(root), val)


@pytest.mark.parametrize(
    ("text", "message"),
    [(None, "no such file; --data.root wants"), ("{", "not JSON"), ('{"images": []}', "no list of annotations")],
)
def test_a_file_that_is_no_coco_file_is_refused(root, text, message):
    path = root / "annotations" / "instances_train2017.json"
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(DataError, match=message):
        train_split(root)


def test_a_folder_without_images_is_refused(root):
    for path in (root / "val2017").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="no images found"):
        read_split(root, "val", training=False, masks=True)


def test_the_first_validation_images_can_be_evaluated_alone(root):
    split = read_split(root, "val", training=False, masks=True, num_val=2)
    document = split.ground_truth()
    assert [image["id"] for image in document["images"]] == [1, 2]
    assert {entry["image_id"] for entry in document["annotations"]} == {1, 2}
    assert any(entry["iscrowd"] for entry in document["annotations"])


def test_a_changed_box_is_another_data_set_and_a_changed_area_is_not(root):
    before = train_split(root).digest
    edit(root, set_on_first(area=1, note="corrected"))
    assert train_split(root).digest == before
    edit(root, set_on_first(bbox=[1, 1, 9, 9]))
    assert train_split(root).digest != before
