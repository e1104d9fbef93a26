"""What a finished run is for: detections in any images, numbers on another set, COCO's result files, an export."""

import json
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import mim_benchmark as mim
from detection.__main__ import main
from detection.train import train
from detection.use import images_of
from engine.errors import DataError
from tests.closing import listening, told
from tests.detection.folders import CATEGORIES, make_coco, needs_detectron2, read, tiny_config


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_coco(tmp_path_factory.mktemp("coco"))


@pytest.fixture(scope="module")
def finished(root, tmp_path_factory):
    """A finished run, and what it said at its end."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    config = tiny_config(root)
    data = replace(config.data, evaluation_batch_size=1)
    with listening() as said:
        train(replace(config, heads=replace(config.heads, score_threshold=0.01), data=data), folder)
    return folder, said[-1]


@pytest.fixture(scope="module")
def run(finished):
    return finished[0]


def call(*arguments):
    """A command to its end: the exit code."""
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    return left.value.code


def metrics_of(folder):
    return json.loads((folder / "finished.json").read_text())["metrics"]


def test_the_lines_that_a_run_ends_with_load_it_and_its_command_detects(finished, tmp_path, monkeypatch):
    folder, text = finished
    weights, names, words = told(text)
    assert (folder, names["detector"].names) == (Path(weights).parents[2], CATEGORIES)
    assert load_file(weights)
    monkeypatch.chdir(tmp_path)
    assert words[:3] == ["python", "-m", "detection"]
    assert call(*words[3:]) == 0
    assert len(json.loads((tmp_path / "predictions" / "detections.json").read_text())["images"]) == 6


def test_evaluating_on_the_run_s_own_set_gives_the_run_s_own_numbers(run, root, capsys):
    assert call("evaluate", run, "--data.root", root) == 0
    assert json.loads(capsys.readouterr().out) == metrics_of(run)


def test_python_evaluates_it_and_any_shape_and_any_id_are_detected_in(run, root, tmp_path):
    assert mim.evaluate(run) == metrics_of(run)
    Image.new("RGB", (2000, 2)).save(tmp_path / "thin.png")  # of which resizing leaves less than a pixel
    (tmp_path / "list.json").write_text(json.dumps({"images": [{"id": "a-1", "file_name": "thin.png"}]}))
    assert call("predict", run, tmp_path / "list.json", "--out", tmp_path / "out") == 0
    document = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert [image["id"] for image in document["images"]] == ["a-1"]


def test_a_set_with_other_ids_is_measured_by_the_names_of_its_classes(run, root, tmp_path, capsys):
    own = tmp_path / "own"
    shutil.copytree(root / "val2017", own / "photos")
    document = read(root, "val")
    new_ids = {5: 0, 9: 7, 2: 900}
    for entry in document["annotations"]:
        entry.update(category_id=new_ids[entry["category_id"]], id=entry["id"] - 1)
    for entry in document["categories"]:
        entry["id"] = new_ids[entry["id"]]
    document["categories"].append({"id": 3, "name": "nothing else"})
    (own / "labels.json").write_text(json.dumps(document))
    names = ("--data.val-annotations", "labels.json", "--data.val-images", "photos")
    assert call("evaluate", run, "--data.root", own, *names) == 0
    assert json.loads(capsys.readouterr().out) == metrics_of(run)
    document["categories"][0]["name"] = "crimson"
    (own / "labels.json").write_text(json.dumps(document))
    assert call("evaluate", run, "--data.root", own, *names) == 3
    assert "it has no category named 'red' (data.classes)" in capsys.readouterr().err


def test_a_folder_of_images_gives_coco_annotations_with_scores_and_pictures(run, root, tmp_path):
    photos = tmp_path / "photos"
    (photos / "more").mkdir(parents=True)
    for number in (1, 2, 3):
        shutil.copy(root / "val2017" / f"{number:012d}.jpg", photos / "more" / f"{number}.jpg")
    assert call("predict", run, photos, "--out", tmp_path / "out") == 0
    document = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert [image["file_name"] for image in document["images"]] == ["more/1.jpg", "more/2.jpg", "more/3.jpg"]
    assert document["categories"] == [{"id": number, "name": name} for number, name in CATEGORIES.items()]
    written = {
        (r["image_id"], r["score"], tuple(r["bbox"])) for r in json.loads((run / "predictions.json").read_text())
    }
    found = {(r["image_id"], r["score"], tuple(r["bbox"])) for r in document["annotations"]}
    assert found
    assert {image for image, _, _ in found} <= {1, 2, 3}
    assert found == {one for one in written if one[0] in (1, 2, 3)}  # as in the run's own evaluation, image by image
    assert all(entry["area"] >= 0 and entry["segmentation"]["size"] for entry in document["annotations"])
    pictures = sorted((tmp_path / "out" / "pictures" / "more").iterdir())
    assert [picture.name for picture in pictures] == ["1.png", "2.png", "3.png"]
    assert Image.open(pictures[0]).width >= 480


def test_an_unreadable_image_is_named_and_the_others_are_looked_at(run, root, tmp_path, capsys):
    (tmp_path / "bad.jpg").write_bytes(b"<html>")
    good = root / "val2017" / f"{1:012d}.jpg"
    assert call("predict", run, tmp_path / "bad.jpg", good, "--out", tmp_path / "out", "--no-pictures") == 3
    assert "1 of 2 images could not be read, the first: " in capsys.readouterr().err
    document = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert [image["file_name"] for image in document["images"]] == [good.name]


def test_a_coco_list_of_images_gives_result_files_for_its_evaluation_server(run, root, tmp_path):
    listed = tmp_path / "image_info_test-dev2017.json"
    images = [{**image, "id": image["id"] + 1000} for image in read(root, "val")["images"]]
    listed.write_text(json.dumps({"images": images, "categories": []}))
    assert (
        call("predict", run, listed, "--image-dir", root / "val2017", "--out", tmp_path / "out", "--no-pictures") == 0
    )
    for kind, field in (("bbox", "bbox"), ("segm", "segmentation")):
        name = "detections_test-dev2017_tiny_results"
        with zipfile.ZipFile(tmp_path / "out" / kind / f"{name}.zip") as archive:
            assert archive.namelist() == [f"{name}.json"]
            results = json.loads(archive.read(f"{name}.json"))
        assert results == json.loads((tmp_path / "out" / kind / f"{name}.json").read_text())
        assert {frozenset(result) for result in results} == {frozenset(("image_id", "category_id", "score", field))}
        assert {result["image_id"] for result in results} <= {image["id"] for image in images}


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("predict", "RUN"), 2, "the following arguments are required"),
        (("predict", "RUN", "none.jpg"), 3, "none.jpg: no such image or folder"),
        (("predict", "RUN", "EMPTY"), 3, "no images found"),
        (("predict", "RUN", "ROOT", "--min-score", "2"), 2, "--min-score 2 is no number from 0 to 1"),
        (("predict", "EMPTY", "ROOT"), 2, "holds no run (no config.json)"),
        (("evaluate",), 2, ""),
        (("evaluate", "RUN", "--data.rot", "EMPTY"), 2, "there is no option --data.rot; nearest: --data.root"),
        (("evaluate", "RUN", "--data.root", "EMPTY"), 3, "no such file"),
        (("export", "RUN", "x.pth"), 2, "train with --framework detectron2 to export"),
        (("export", "RUN", "x.bin"), 2, "has to end in .pth"),
    ],
)
def test_what_cannot_be_done_is_said_with_its_exit_code(run, root, tmp_path, capsys, arguments, code, says):
    (tmp_path / "empty").mkdir()
    places = {"RUN": run, "EMPTY": tmp_path / "empty", "ROOT": root}
    assert call(*(places.get(argument, argument) for argument in arguments)) == code
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("categories.json", b"{", 5),
        ("categories.json", b"[1]", 5),
        ("categories.json", b'[{"id": 1, "name": "one"}]', 5),
        ("precise_bn.safetensors", b"\x00" * 40, 5),
        ("config.json", b"{}", 2),
    ],
)
def test_a_damaged_run_folder_is_named(run, root, tmp_path, capsys, name, content, code):
    own = shutil.copytree(run, tmp_path / "run")
    (own / name).write_bytes(content)
    assert call("predict", own, root / "val2017", "--out", tmp_path / "out") == code
    assert str(own) in capsys.readouterr().err


def test_a_list_without_its_images_is_refused(tmp_path):
    (tmp_path / "list.json").write_text('{"images": [{"id": 1, "file_name": "a.jpg"}]}')
    with pytest.raises(DataError, match=r"1 of its 1 images are not in .*--image-dir DIR"):
        images_of(tmp_path / "list.json", None)


@pytest.mark.parametrize(
    "detector", [pytest.param(d, marks=needs_detectron2) for d in ("mask-rcnn-c4", "retinanet-fpn")]
)
def test_an_exported_detector_has_detectron2s_names(root, tmp_path, detector):
    config = tiny_config(root, framework="detectron2", detector=detector, model="resnet18", iterations=2, precise_bn=1)
    train(config, tmp_path / "run")
    assert call("export", tmp_path / "run", tmp_path / "detector.pth") == 0
    stored = torch.load(tmp_path / "detector.pth", weights_only=True)["model"]
    prefix = "backbone." if detector == "mask-rcnn-c4" else "backbone.bottom_up."
    assert stored[f"{prefix}stem.conv1.weight"].shape == (64, 3, 7, 7)
    assert f"{prefix}res4.1.conv2.norm.running_var" in stored
    last = "roi_heads.res5.0.shortcut.weight" if detector == "mask-rcnn-c4" else f"{prefix}res5.0.shortcut.weight"
    assert last in stored
    assert not [name for name in stored if "encoder" in name or "running_normalizer" in name]
