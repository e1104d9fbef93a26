"""The words every task has for a trained run: which images are meant, which options, and what is said when it fails."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from classification.config import ClassificationConfig
from classification.recipes import demo
from engine import use
from engine.config import to_dict
from engine.data.options import ImageOptions
from engine.errors import ConfigError, DataError
from engine.run import storage
from tests.helpers import ROOT, environment


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4)).save(path)
    return path


def test_images_are_files_and_everything_in_folders_under_names_of_their_own(tmp_path):
    folder = tmp_path / "photos"
    for name in ("a.jpg", "deep/b.png", "deep/b.jpg"):
        picture(folder / name)
    single = picture(tmp_path / "c.jpg")
    found = use.find_images([folder, single, single])
    assert [(image.path, image.name) for image in found] == [
        (folder / "a.jpg", "a"),
        (folder / "deep/b.jpg", "deep/b.jpg"),
        (folder / "deep/b.png", "deep/b.png"),
        (single, "c"),
    ]
    with pytest.raises(DataError, match="no such image or folder"):
        use.find_images([tmp_path / "nowhere.jpg"])
    twice = use.find_images([single, picture(tmp_path / "other" / "c.jpg")])
    assert [image.name for image in twice] == ["c", "other/c"]


def test_the_command_line_of_predict(tmp_path):
    image = picture(tmp_path / "a.jpg")
    asked = use.predict_command("classification", ["runs/x", str(image)])
    assert (asked.run, asked.out, asked.pictures) == (Path("runs/x"), Path("predictions"), True)
    asked = use.predict_command("classification", ["runs/x", str(image), "--out", "o", "--no-pictures"])
    assert (asked.out, asked.pictures) == (Path("o"), False)
    with pytest.raises(SystemExit):
        use.predict_command("classification", ["runs/x"])


def test_predict_takes_what_a_run_takes_about_image_files(tmp_path, caplog):
    for name in ("a.png", "b.png", "c.png", ".hidden.png"):
        picture(tmp_path / "p" / name)
    (tmp_path / "list.txt").write_text("p/b.png\n")
    words = ["runs/x", str(tmp_path / "p"), "--data.exclude", str(tmp_path / "list.txt"), "--data.max-pixels", "9"]
    asked = use.predict_command("detection", [*words, "--data.exif", "apply"])
    assert [image.name for image in asked.images] == ["a", "c"]
    assert "1 file looks like an image" in caplog.text
    run = replace(demo("test_resnet").data, root="x", exif="stop", unreadable="skip")
    assert asked.as_asked(run) == replace(run, exif="apply", max_pixels=9)
    with pytest.raises(DataError, match=r"list\.txt excludes all images that are given"):
        use.predict_command("detection", ["runs/x", str(tmp_path / "p/b.png"), *words[2:]])
    with pytest.raises(ConfigError, match="max_pixels is 0; allowed: 1 to"):
        use.predict_command("detection", ["runs/x", str(tmp_path / "p"), "--data.max-pixels", "0"])


def test_evaluate_takes_the_runs_configuration_with_other_data(tmp_path):
    content = {"format": 1, "package": "classification", "recipe": "demo", "config": to_dict(demo("test_resnet"))}
    storage.write_json(tmp_path / "config.json", {**content, "config": {**content["config"], "init": "none"}})
    arguments = [str(tmp_path), "--data.root", "/other", "--data.num-workers", "0"]
    asked = use.evaluate_command("classification", arguments, ClassificationConfig)
    assert (asked.config.data.root, asked.config.data.num_workers, asked.config.model) == ("/other", 0, "test_resnet")
    with pytest.raises(ConfigError, match=r"there is no option --data\.rot; nearest: --data\.root"):
        use.evaluate_command("classification", [str(tmp_path), "--data.rot", "x"], ClassificationConfig)
    with pytest.raises(ConfigError, match=r"data\.num_workers"):
        use.evaluate_command("classification", [*arguments[:-1], "-1"], ClassificationConfig)
    with pytest.raises(ConfigError, match="holds a classification run, not one of segmentation"):
        use.stored_config(tmp_path, "segmentation", ClassificationConfig)
    with pytest.raises(SystemExit) as left:
        use.evaluate_command("classification", [], ClassificationConfig)
    assert left.value.code == 2


def test_an_unreadable_image_does_not_keep_the_others_from_being_predicted(tmp_path):
    done = []

    def predict(image):
        if image.name == "b":
            raise DataError(f"{image.path}: not an image")
        done.append(image.name)

    images = [use.Image(tmp_path / f"{name}.jpg", name) for name in "abc"]
    with pytest.raises(DataError, match=r"1 of 3 images could not be read, the first: .*b\.jpg: not an image"):
        use.predict_each(images, predict)
    assert done == ["a", "c"]
    assert use.predict_each(images, predict, ImageOptions(unreadable="skip", max_unreadable=1)) == 2
    with pytest.raises(DataError, match=r"1 of 3 .*, more than --data.max-unreadable 0.3, the first"):
        use.predict_each(images, predict, ImageOptions(unreadable="skip", max_unreadable=0.3))


@pytest.mark.parametrize(
    ("package", "says"),
    [
        (None, "is no folder of a run"),
        ("", r"holds no run \(no config.json\)"),
        ("pretrain", r"its encoder is a start of one \(python -m detection own --init .*run ...\)"),
        ("segmentation", "holds a segmentation run, not one of detection"),
    ],
)
def test_what_is_no_run_of_the_task_is_said_with_what_it_is(tmp_path, package, says):
    run = tmp_path / "run"
    if package is not None:
        run.mkdir()
    if package:
        storage.write_json(run / "config.json", {"format": 1, "package": package, "recipe": "demo", "config": {}})
    with pytest.raises(ConfigError, match=says):
        use.stored_config(run, "detection", ClassificationConfig)


@pytest.mark.parametrize("package", ["classification", "detection", "segmentation"])
def test_help_into_a_pipe_that_closes_is_no_error(package):
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", package, "--help"]
    done = subprocess.run(
        command, stdout=write, stderr=subprocess.PIPE, cwd=ROOT, env=environment(), timeout=60, check=False
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")
