"""Data of one's own: any names of files and classes, one file for training and validation, chosen classes."""

import json
from dataclasses import replace

import pytest

from detection.coco import check_same_categories, read_split
from detection.config import DataConfig
from detection.recipes import RECIPES
from engine.config import check
from engine.errors import ConfigError, DataError
from tests.detection.folders import make_coco, read


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """photos/ and labels.json, with annotations numbered from 0."""
    folder = tmp_path_factory.mktemp("own")
    coco = make_coco(folder / "coco", num_train=10, num_val=1)
    (coco / "train2017").rename(folder / "photos")
    document = read(coco, "train")
    for entry in document["annotations"]:
        entry["id"] -= 1
    (folder / "labels.json").write_text(json.dumps(document))
    return folder


def splits(own, **changes):
    data = DataConfig(root=str(own), **{"train_annotations": "labels.json", "train_images": "photos", **changes})
    return [read_split(data, name, training=name == "train", masks=True) for name in ("train", "val")]


def names(split):
    return set(split.index.paths)


def test_a_share_of_one_file_is_kept_for_validation_always_the_same(own):
    train, val = splits(own, val_share=0.3)
    check_same_categories(train, val)
    assert (len(train), len(val)) == (7, 3)
    assert not names(train) & names(val)
    assert names(splits(own, val_share=0.3)[1]) == names(val)
    assert names(splits(own, val_share=0.5)[1]) > names(val)
    truth = val.ground_truth()
    assert {image["file_name"] for image in truth["images"]} == names(val)
    assert {entry["image_id"] for entry in truth["annotations"]} <= {image["id"] for image in truth["images"]}


def test_a_list_says_which_images_are_for_validation(own, tmp_path):
    (tmp_path / "val.txt").write_bytes(b"\xef\xbb\xbf000000000002.jpg\r\nphotos/000000000005.jpg\r\n")
    train, val = splits(own, val_list=str(tmp_path / "val.txt"))
    assert names(val) == {"000000000002.jpg", "000000000005.jpg"}
    assert (len(train), names(train) & names(val)) == (8, set())
    (tmp_path / "val.txt").write_text("000000000002.jpg\nother.jpg\n")
    with pytest.raises(
        DataError, match=r"val.txt: 1 of its 2 names are not among the images of .*labels.json, such as other"
    ):
        splits(own, val_list=str(tmp_path / "val.txt"))


def test_what_may_be_done_is_said_where_names_lack_their_folder_or_objects_their_outline(own, tmp_path):
    document = json.loads((own / "labels.json").read_text())
    (tmp_path / "photos" / "deep").mkdir(parents=True)
    for image in document["images"]:
        (tmp_path / "photos" / "deep" / image["file_name"]).symlink_to(own / "photos" / image["file_name"])
    (tmp_path / "labels.json").write_text(json.dumps(document))
    with pytest.raises(DataError, match=r"photos/0+1\.jpg is missing; there is deep/0+1\.jpg: .*--data\.train-images"):
        splits(tmp_path, val_share=0.3)
    for outline in (None, []):
        for entry in document["annotations"]:
            entry["segmentation"] = outline
        (tmp_path / "labels.json").write_text(json.dumps(document))
        with pytest.raises(DataError, match="--detector retinanet-fpn"):
            splits(tmp_path, val_share=0.3, train_images=str(own / "photos"))
    (tmp_path / "labels.json").write_bytes('{"images": "k\u00e4se"}'.encode("latin-1"))
    with pytest.raises(DataError, match=r"not JSON in UTF-8 .*: store it in that"):
        splits(tmp_path, val_share=0.3)


@pytest.mark.parametrize("share", [0.01, 0.99])
def test_a_share_that_leaves_nothing_is_refused(own, share):
    with pytest.raises(DataError, match="both training and validation need some"):
        splits(own, val_share=share)


def test_excluded_images_are_in_neither_split(own, tmp_path):
    (tmp_path / "bad.txt").write_text("000000000001.jpg\n")
    train, val = splits(own, val_share=0.3, exclude=str(tmp_path / "bad.txt"))
    assert "000000000001.jpg" not in names(train) | names(val)
    assert len(train) + len(val) == 9
    assert train.counts["images_excluded"] == 1


def test_classes_are_chosen_by_name_and_labelled_in_the_order_given(own, tmp_path):
    whole, _ = splits(own, val_share=0.3)
    chosen, val = splits(own, val_share=0.3, classes=("green", "red"))
    assert (chosen.category_ids, chosen.category_names) == ((9, 2), ("green", "red"))
    assert chosen.counts["objects"] + chosen.counts["objects_of_other_classes"] == whole.counts["objects"]
    assert [entry["name"] for entry in val.ground_truth()["categories"]] == ["red", "green"]
    assert {entry["category_id"] for entry in val.ground_truth()["annotations"]} <= {2, 9}
    (tmp_path / "names.txt").write_bytes(b"\xef\xbb\xbfgreen\r\nred\r\n")  # as editors of Windows store it
    (tmp_path / "names.json").write_text('["green", "red"]')
    for given in (str(tmp_path / "names.txt"), str(tmp_path / "names.json"), "green,red"):
        by_file, _ = splits(own, val_share=0.3, classes=(given,))
        assert list(by_file.records) == list(chosen.records)
    for record in chosen.records:
        assert {entry["label"] for entry in record["annotations"]} <= {0, 1}


@pytest.mark.parametrize(
    ("classes", "error", "says"),
    [
        (("rde",), DataError, "it has no category named 'rde' .*nearest: 'red'"),
        (("red,gren",), DataError, "it has no category named 'gren' .*nearest: 'green'"),
        (("names.txt",), DataError, r"no category named 'names.txt' \(data.classes\), and there is no such file"),
        (("red", "red"), ConfigError, "given more than once: red"),
    ],
)
def test_classes_that_are_not_there_are_refused_with_the_nearest(own, classes, error, says):
    with pytest.raises(error, match=says):
        splits(own, val_share=0.3, classes=classes)


@pytest.mark.parametrize("model", ["r50", "vit_b", "convnext_t"])
def test_the_recipe_for_own_data_is_a_valid_one(own, model):
    config = RECIPES["own"](model)
    check(replace(config, init="none", data=replace(config.data, root=str(own), val_share=0.2)))
    with pytest.raises(ConfigError, match=r"val_share is 1.0; allowed"):
        check(replace(config, init="none", data=replace(config.data, root=str(own), val_share=1.0)))
