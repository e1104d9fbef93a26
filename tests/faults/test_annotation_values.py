"""COCO files as people have them: every value is checked before training; what is plainly meant is read and counted."""

import json
import os
from dataclasses import replace

import pytest

from detection.coco import read_split
from detection.config import DataConfig
from detection.evaluation import coco_numbers
from engine.errors import DataError
from tests.detection.folders import make_coco, read, write

NAN, INF, HUGE = float("nan"), float("inf"), 2**70


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return make_coco(tmp_path_factory.mktemp("coco"), num_train=4, num_val=4)


@pytest.fixture
def root(good, tmp_path):
    """The same images under annotations of their own."""
    for split in ("train", "val"):
        (tmp_path / f"{split}2017").symlink_to(good / f"{split}2017")
        write(tmp_path, split, read(good, split))
    return tmp_path


def split_of(root, name="train"):
    return read_split(DataConfig(root=str(root)), name, training=name == "train", masks=True)


def first(**values):
    return lambda document: document["annotations"][0].update(values)


def every(change):
    return lambda document: [change(entry) for entry in document["annotations"]]


def image(**values):
    return lambda document: document["images"][0].update(values)


def category(**values):
    return lambda document: document["categories"][0].update(values)


def polygons(change):
    """Change every polygon."""

    def apply(entry):
        if isinstance(entry["segmentation"], list):
            entry["segmentation"] = [change(polygon) for polygon in entry["segmentation"]]

    return every(apply)


def points(polygon):
    return [polygon[i : i + 2] for i in range(0, len(polygon), 2)]


def runs(counts):
    return lambda document: document["annotations"][0].update(segmentation={"size": [48, 64], "counts": counts})


def scale(share):
    return every(lambda entry: entry.update(bbox=[value * share for value in entry["bbox"]]))


def without_objects(document):
    document["annotations"] = [entry for entry in document["annotations"] if entry["iscrowd"]]


REFUSED = {
    "area as a word": (first(area="large"), "annotation 1: its area 'large'"),
    "area null": (first(area=None), "annotation 1: its area None"),
    "area a list": (first(area=[9]), r"annotation 1: its area \[9\]"),
    "area negative": (first(area=-1), "annotation 1: its area -1"),
    "area not a number": (first(area=NAN), "annotation 1: its area nan"),
    "area infinite": (first(area=INF), "annotation 1: its area inf"),
    "area true": (first(area=True), "annotation 1: its area True"),
    "area of another picture": (first(area=1e6), "annotation 1: its area 1000000.0 is larger than its 64x48 image"),
    "areas relative": (every(lambda e: e.update(area=e["area"] / 3072)), "objects have their area below one pixel"),
    "crowd 2": (first(iscrowd=2), "annotation 1: its iscrowd 2"),
    "crowd a word": (first(iscrowd="no"), "annotation 1: its iscrowd 'no'"),
    "crowd null": (first(iscrowd=None), "annotation 1: its iscrowd None"),
    "crowd a list": (first(iscrowd=[0]), r"annotation 1: its iscrowd \[0\]"),
    "id empty": (first(id=" "), r"annotations, entry 0 \(id ' ', image_id 1\): its id ' ' is no whole number"),
    "image_id no image's": (first(image_id="b"), "its image_id 'b' is the id of none of the images: correct it"),
    "category_id no category's": (first(category_id="b"), "its category_id 'b' is the id of none of the categories"),
    "id a fraction": (first(id=1.5), "its id 1.5 is no whole number"),
    "id true": (first(id=True), "its id True is no whole number"),
    "id inexact": (first(id=2.0**60), "its id .* is no whole number"),
    "id null": (first(id=None), "its id None is no whole number"),
    "image_id a list": (first(image_id=[1]), r"its image_id \[1\] is no whole number"),
    "image_id unknown": (first(image_id=77), "image 77, annotation 1: there is no such image"),
    "category_id false": (first(category_id=False), "annotation 1: its category_id False is no whole number"),
    "category_id unknown": (first(category_id=1), "annotation 1: there is no category 1"),
    "box of three": (first(bbox=[1, 2, 3]), r"annotation 1: its box \[1, 2, 3\]"),
    "box nested": (first(bbox=[[1, 2, 3, 4]]), "annotation 1: its box .* is not four finite numbers"),
    "box as names": (first(bbox={"x": 1, "y": 1, "w": 2, "h": 2}), "annotation 1: its box .* is not four finite"),
    "box with null": (first(bbox=[1, None, 3, 4]), "annotation 1: its box .* is not four finite numbers"),
    "box with true": (first(bbox=[1, True, 3, 4]), "annotation 1: its box .* is not four finite numbers"),
    "box not a number": (first(bbox=[1, 1, NAN, 4]), "annotation 1: its box .* is not four finite numbers"),
    "box infinite": (first(bbox=[-INF, 1, INF, 4]), "annotation 1: its box .* is not four finite numbers"),
    "box of hundreds of digits": (first(bbox=[1, 1, 10**400, 4]), "annotation 1: its box .* is not four finite"),
    "box text": (first(bbox="1 2 3 4"), "annotation 1: its box '1 2 3 4' is not four finite numbers"),
    "box of corners": (first(bbox=[20, 20, 60, 47]), r"annotation 1: its box .* outside .*x1, y1, x2, y2\?"),
    "box negative": (first(bbox=[9, 9, -4, 4]), "annotation 1: its box .* has a negative side"),
    "boxes relative": (scale(1 / 64), "objects have their bbox within one pixel"),
    "boxes of another size": (scale(0.3), "objects have their bbox elsewhere than the outlines"),
    "polygon text": (first(segmentation="1,1,9,1,9,9"), "annotation 1: it has no outline.*'1,1,9,1,9,9'"),
    "polygon of words": (first(segmentation=[["a", "b", 9, 1, 9, 9]]), "annotation 1: .*'a' is no finite number"),
    "polygon not nested": (first(segmentation=[1, 1, 9, 1, 9, 9]), "annotation 1: it has no outline.* 1 is no list"),
    "polygon not a number": (polygons(lambda p: [NAN, *p[1:]]), "annotation 1: it has no outline.*nan is no finite"),
    "polygon infinite": (polygons(lambda p: [INF, *p[1:]]), "annotation 1: .*inf is no finite number"),
    "polygon of null": (polygons(lambda p: [None, *p[1:]]), "annotation 1: .*None is no finite number"),
    "polygon far away": (polygons(lambda p: [2e8, *p[1:]]), "annotation 1: .*point at 200000000.0, outside the 64x48"),
    "polygon of digits": (polygons(lambda p: [10**400, *p[1:]]), "annotation 1: it has no outline"),
    "polygon odd": (polygons(lambda p: p[:-1]), "annotation 1: .*has 7 values, not pairs of x and y"),
    "polygon true": (polygons(lambda p: [True, *p[1:]]), "annotation 1: .*True is no finite number"),
    "polygons relative": (polygons(lambda p: [v / 64 for v in p]), "objects have their segmentation within one pixel"),
    "outline null": (first(segmentation=None), "annotation 1: it has no outline"),
    "outline a number": (first(segmentation=3), "annotation 1: it has no outline"),
    "outline of other names": (first(segmentation={"rle": "x"}), "annotation 1: it has no outline.*rle"),
    "runs short": (runs([10, 20]), "annotation 1: the run lengths .* add up to 30 pixels, its image has 3,072"),
    "runs long": (runs([3072, 3072]), "annotation 1: the run lengths .* add up to 6,144"),
    "runs negative": (runs([-1, 3073]), r"annotation 1: the counts of its mask are \[-1, 3073\], no run lengths"),
    "runs fractions": (runs([0.5, 3071.5]), "annotation 1: the counts of its mask"),
    "runs pairs": (runs([[0, 3072]]), "annotation 1: the counts of its mask"),
    "runs null": (runs(None), "annotation 1: the counts of its mask are None"),
    "runs garbage": (runs("no run lengths!"), "annotation 1: the counts of its mask are 'no run lengths!'"),
    "runs empty": (runs(""), "annotation 1: the counts of its mask are ''"),
    "runs other text": (runs("00"), "annotation 1: the run lengths"),
    "runs turned": (
        first(segmentation={"size": [64, 48], "counts": [0, 3072]}),
        r"annotation 1: its mask has size \[64, 48\], its image \[48, 64\]",
    ),
    "width a word": (image(width="wide"), "images, entry 0 .*its width 'wide' is no whole number"),
    "height zero": (image(height=0), "image 1: its size 64x0 is none"),
    "width negative": (image(width=-64), "image 1: its size -64x48 is none"),
    "file name null": (image(file_name=None), "images, entry 0 .*its file_name None is no text"),
    "file name a number": (image(file_name=1), "images, entry 0 .*its file_name 1 is no text"),
    "file name above": (image(file_name="../train2017/1.jpg"), "image 1: its file_name .* leads out of"),
    "file name elsewhere": (image(file_name="other.jpg"), "image 1: .*other.jpg is missing"),
    "file name too long": (image(file_name="x" * 9999), "image 1: its file_name 'xxx.* cannot be looked for in"),
    "file name in other letters": (image(file_name="000000000001.JPG"), "image 1: .*there is 000000000001.jpg"),
    "image twice": (lambda d: d["images"].append(d["images"][0]), "image 1: this id is used twice"),
    "annotation twice": (first(id=2), "annotation 2: this annotation id is used twice"),
    "category id another word": (category(id="red"), r"annotation \d+: there is no category 2"),
    "category name null": (category(name=None), "categories, entry 0 .*its name None is no text"),
    "category name empty": (category(name=" "), "categories, entry 0 .*its name ' ' is no text"),
    "category twice": (category(id=5), "3 categories with 2 different ids"),
    "no categories": (lambda document: document["categories"].clear(), "its list of categories is empty"),
    "no images": (lambda document: document["images"].clear(), "there is no such image"),
    "no annotations": (lambda document: document["annotations"].clear(), "no image is left with an object"),
    "crowds alone": (without_objects, "no image is left with an object"),
    "null among the annotations": (lambda d: d["annotations"].insert(0, None), "annotations, entry 0: None is not an"),
}  # fmt: skip


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("name", REFUSED)
def test_a_value_that_means_nothing_is_refused_by_file_annotation_field_and_value(root, name, split):
    change, message = REFUSED[name]
    document = read(root, split)
    change(document)
    write(root, split, document)
    with pytest.raises(DataError, match=message) as error:
        split_of(root, split)
    assert error.value.exit_code == 3
    assert f"instances_{split}2017.json" in str(error.value)


AS_MEANT = {
    "area as text": (every(lambda e: e.update(area=str(e["area"]))), "area"),
    "crowd as text": (every(lambda e: e.update(iscrowd=str(e["iscrowd"]))), "iscrowd"),
    "crowd as text in half": (
        lambda d: [e.update(iscrowd=str(e["iscrowd"])) for e in d["annotations"][::2]],
        "iscrowd",
    ),
    "crowd with a point": (every(lambda e: e.update(iscrowd=float(e["iscrowd"]))), "iscrowd"),
    "crowd as truth": (every(lambda e: e.update(iscrowd=bool(e["iscrowd"]))), "iscrowd"),
    "crowd as a word of truth": (every(lambda e: e.update(iscrowd="true" if e["iscrowd"] else "false")), "iscrowd"),
    "ids as text": (every(lambda e: e.update(image_id=str(e["image_id"]))), "image_id"),
    "ids with a point": (every(lambda e: e.update(category_id=float(e["category_id"]))), "category_id"),
    "box as text": (every(lambda e: e.update(bbox=[str(value) for value in e["bbox"]])), "bbox"),
    "ids of annotations as words": (every(lambda e: e.update(id=f"{e['id']:04}-uuid")), "ids_that_are_words"),
    "sizes as text": (lambda d: [i.update(width=str(i["width"])) for i in d["images"]], "width"),
    "polygons of points": (polygons(points), "segmentation"),
    "one polygon of points": (
        every(lambda e: isinstance(e["segmentation"], list) and e.update(segmentation=points(e["segmentation"][0]))),
        "segmentation",
    ),
    "polygons of text": (polygons(lambda polygon: [str(value) for value in polygon]), "segmentation"),
    "names with ./": (lambda d: [i.update(file_name="./" + i["file_name"]) for i in d["images"]], "file_name"),
    "names with \\": (lambda d: [i.update(file_name="images\\" + i["file_name"]) for i in d["images"]], "file_name"),
    "whole paths": (lambda d: [i.update(file_name="/home/me/" + i["file_name"]) for i in d["images"]], "file_name"),
    "runs as text": (every(lambda e: isinstance(e["segmentation"], dict) and e["segmentation"].update(
        counts=[str(count) for count in e["segmentation"]["counts"]])), "segmentation"),
    "no crowd flag": (lambda d: [e.pop("iscrowd") for e in d["annotations"] if not e["iscrowd"]], "missing_iscrowd"),
    "no area": (every(lambda e: e.pop("area")), "missing_area"),
}  # fmt: skip


def without_ids(split):
    """What is learnt and measured: the records, without the ids that the annotations themselves have."""
    records = list(split.records)
    entries = [entry for record in records for entry in record["annotations"]]
    assert len({entry.pop("id") for entry in entries}) == len(entries)
    return records


@pytest.mark.parametrize("name", AS_MEANT)
def test_what_is_plainly_meant_gives_the_same_targets_and_numbers_and_is_counted(good, root, name):
    change, counted = AS_MEANT[name]
    for split in ("train", "val"):
        document = read(root, split)
        change(document)
        write(root, split, document)
    if not counted.startswith("missing") and name != "runs as text":  # a crowd is no target
        found = split_of(root)
        assert without_ids(found) == without_ids(split_of(good))
        assert found.counts[f"read_as_meant_{counted}"] > 0
    before, after = split_of(good, "val"), split_of(root, "val")
    assert after.counts[f"read_as_meant_{counted}"] > 0
    assert without_ids(after) == without_ids(before)
    detections = [
        {"image_id": e["image_id"], "category_id": e["category_id"], "bbox": e["bbox"], "score": 1 / e["id"]}
        for e in read(good, "val")["annotations"][::2]
    ]
    numbers = [coco_numbers(split.ground_truth(), detections, ("box",), official=True) for split in (before, after)]
    assert numbers[0] == numbers[1]


def test_ids_that_are_words_give_the_same_objects_and_numbers(good, root):
    document = read(root, "val")
    long = "a-path-that-is-as-long-as-labelling-tools-make-them/" * 2
    for entry in document["annotations"]:
        words = {name: f"{long}{entry[name]:03}{long}" for name in ("id", "image_id", "category_id")}
        entry.update(words)
    for entry in document["images"] + document["categories"]:
        entry["id"] = f"{long}{entry['id']:03}{long}"
    write(root, "val", document)
    data = DataConfig(root=str(root), val_share=0.5, train_annotations="annotations/instances_val2017.json")
    parts = [  # of one file, so that its halves are told apart by the words
        read_split(replace(data, train_images="val2017"), name, training=False, masks=True) for name in ("train", "val")
    ]
    assert sum(part.counts["objects"] for part in parts) == split_of(good, "val").counts["objects"]
    before, after = split_of(good, "val"), split_of(root, "val")
    numbers = []
    for split in (before, after):
        truth = split.ground_truth()
        found = [{**{k: e[k] for k in ("image_id", "category_id", "bbox")}, "score": 0.5} for e in truth["annotations"]]
        numbers.append(coco_numbers(truth, found[::2], ("box",), official=True))
    assert numbers[0] == numbers[1]
    assert after.category_names == before.category_names
    document["images"][0]["width"] = 0
    write(root, "val", document)
    with pytest.raises(DataError, match=rf"image {long}\d+{long}: its size 0x"):  # as the file has it
        split_of(root, "val")


def test_ids_of_any_size_give_the_same_numbers(good, root):
    document = read(root, "val")
    for entry in document["annotations"]:
        ids = {"id": entry["id"] - 1, "image_id": HUGE + entry["image_id"], "category_id": entry["category_id"] - HUGE}
        entry.update(ids)
    for entry in document["images"]:
        entry["id"] += HUGE
    for entry in document["categories"]:
        entry["id"] -= HUGE
    write(root, "val", document)
    for official in (True, False):
        numbers = []
        for folder, first_id in ((good, 0), (root, HUGE)):
            truth = split_of(folder, "val").ground_truth()
            found = [
                {"image_id": e["image_id"], "category_id": e["category_id"], "bbox": e["bbox"], "score": 0.5}
                for e in truth["annotations"]
            ]
            assert min(entry["image_id"] for entry in found) == first_id + 1
            numbers.append(coco_numbers(truth, found, ("box",), official=official))
        assert numbers[0] == numbers[1]
        assert numbers[0]["box_AP"] > 90


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_file_in_another_encoding_is_read(good, root, encoding):
    path = root / "annotations" / "instances_train2017.json"
    path.write_text(json.dumps(read(good, "train")), encoding=encoding)
    assert list(split_of(root).records) == list(split_of(good).records)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[" * 100_000, "nested thousands of levels deep"),
        (b"\xff\xfe\x00", "not JSON"),
        (b'{"images": [], "categories": []}', "no list of annotations. It lists images alone"),
        (b'[{"image_id": 1, "bbox": [1, 1, 2, 2], "score": 0.1}]', "It is a list, as files of results are"),
        (b'{"images": 3, "annotations": {}, "categories": null}', "no list of images or annotations or categories"),
    ],
)
def test_a_file_of_another_kind_is_named(root, content, message):
    (root / "annotations" / "instances_train2017.json").write_bytes(content)
    with pytest.raises(DataError, match=message):
        split_of(root)


def test_a_pipe_in_place_of_the_file_is_refused_at_once(root):
    path = root / "annotations" / "instances_train2017.json"
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(DataError, match=r"instances_train2017.json: .*pipe"):
        split_of(root)


def test_an_image_that_no_reader_takes_is_not_called_missing(root, tmp_path):
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "scan.xyz").write_bytes(b"pixels")
    (folder / "1.jpg").write_bytes(b"pixels")
    document = read(root, "train")
    document["images"] = [{**document["images"][0], "file_name": "scan.xyz"}]
    write(root, "train", document)
    with pytest.raises(DataError, match=r"scan\.xyz is there, but is not among the images that are read"):
        read_split(DataConfig(root=str(root), train_images="own"), "train", training=True, masks=True)
