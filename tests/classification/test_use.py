"""A finished run is used: timm loads its classifier, it predicts images and is measured on another data set."""

import csv
import json
import re
import shutil

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from classification.__main__ import main
from classification.augment import evaluation_transform, normalise
from classification.build import build_network
from classification.classifier import export_classifier, load_classifier
from classification.recipes import vit_ft
from classification.train import train
from engine.errors import ConfigError, DataError
from tests.classification.folders import make_folder, tiny_config


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("data") / "images")


@pytest.fixture(scope="module")
def run(root, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MIM_TRACKERS", "")
        train(tiny_config(root, epochs=2), folder)
    return folder


def run_command(*arguments):
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    return left.value.code


def test_timm_loads_the_classifier_with_names_and_preprocessing(run, root):
    network = timm.create_model(f"local-dir:{run}/timm", pretrained=True).eval()
    ours = load_classifier(run)
    image = Image.open(next((root / "val" / "red").iterdir()))
    batch = normalise(evaluation_transform(ours.augment)(image)[None])
    with torch.no_grad():
        assert torch.equal(network(batch), ours.network(batch))
    assert network.pretrained_cfg["label_names"] == list(ours.classes) == ["blue", "green", "red"]
    settings = timm.data.resolve_data_config({}, model=network)
    assert (tuple(settings["input_size"]), settings["crop_pct"]) == ((3, 32, 32), 0.875)
    theirs = timm.data.create_transform(**settings)(image)
    assert (theirs - batch[0]).mean().abs() < 0.02  # it resizes to a side of one pixel less


@pytest.mark.parametrize("model", ["deit_s", "swin_t"])
def test_timm_builds_the_published_networks_with_their_options(model, tmp_path):
    config = vit_ft(model)
    network = build_network(config, 3).eval()
    export_classifier(tmp_path, config, network.state_dict(), ("a", "b", "c"), {})
    theirs = timm.create_model(f"local-dir:{tmp_path}/timm", pretrained=True).eval()
    images = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        assert torch.equal(network(images), theirs(images))
    shutil.rmtree(tmp_path)  # hundreds of MB


def test_predict_prints_a_table_and_writes_csv_and_pictures(run, root, tmp_path, capsys):
    assert run_command("predict", run, root / "val", "--out", tmp_path / "out") == 0
    shown = capsys.readouterr().out
    assert re.search(r"val/blue/000\.jpg +(blue|green|red) +\d+\.\d %", shown)
    assert "all of 12 images with their 3 best classes in" in shown
    with (tmp_path / "out" / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12
    right = [row["class_1"] in row["image"] for row in rows]
    assert np.mean(right) == pytest.approx(
        json.loads((run / "finished.json").read_text())["metrics"]["top1_last"] / 100
    )
    assert all(abs(sum(float(row[f"probability_{i}"]) for i in (1, 2, 3)) - 1) < 1e-5 for row in rows)
    picture = np.array(Image.open(tmp_path / "out" / "pictures" / "0000.png").convert("RGB"))
    assert picture.shape[0] > 300


def test_predict_needs_the_file_alone_and_names_what_it_cannot_read(run, root, tmp_path, capsys):
    shutil.copy(run / "classifier.safetensors", tmp_path / "mine.safetensors")
    (tmp_path / "broken.jpg").write_bytes(b"<html>")
    good = root / "val" / "red" / "000.jpg"
    command = (
        "predict",
        tmp_path / "mine.safetensors",
        tmp_path / "broken.jpg",
        good,
        "--out",
        tmp_path,
        "--no-pictures",
    )
    assert run_command(*command) == 3
    shown = capsys.readouterr()
    assert str(good) in shown.out
    assert "1 of 2 images could not be read" in shown.err
    assert run_command(*command, "--data.unreadable", "skip", "--data.max-unreadable", 1) == 0
    shown = capsys.readouterr()
    assert "all of 1 image with its 3 best classes in" in shown.out
    assert len((tmp_path / "predictions.csv").read_text().splitlines()) == 2


def test_a_picture_shows_any_name_and_reads_as_it_was_asked_to(run, root, tmp_path, recwarn):
    photo, exif = tmp_path / "x$\\foo$ \u65e5.jpg", Image.Exif()  # no formula, and a letter that the font lacks
    exif[0x0112] = 6
    Image.open(root / "val" / "red" / "000.jpg").resize((60, 30)).save(photo, exif=exif)
    read = load_classifier(run).augment
    for name, options in (("stored", []), ("turned", ["--data.exif", "apply"])):
        assert run_command("predict", run, photo, "--out", tmp_path / name, *options) == 0
    sheets = [np.array(Image.open(tmp_path / name / "pictures" / "0000.png")) for name in ("stored", "turned")]
    assert (sheets[0] != sheets[1]).any()
    assert not [warning for warning in recwarn if "Glyph" in str(warning.message)]
    assert run_command("predict", run, photo, "--out", photo) == 5
    assert read == load_classifier(run).augment


def test_evaluate_measures_another_data_set_of_the_same_classes(run, root, tmp_path, capsys):
    assert run_command("evaluate", run, "--data.root", root) == 0
    measured = json.loads(capsys.readouterr().out)
    finished = json.loads((run / "finished.json").read_text())["metrics"]
    assert (measured["top1"], measured["num_images"]) == (finished["top1_last"], 12)
    shutil.copy(run / "classifier.safetensors", tmp_path / "mine.safetensors")  # the file alone, as `import` makes them
    assert run_command("evaluate", tmp_path / "mine.safetensors", "--data.root", root, "--data.num-workers", 0) == 0
    assert json.loads(capsys.readouterr().out) == measured
    shutil.copytree(root / "val" / "red", tmp_path / "other" / "red")
    assert run_command("evaluate", run, "--data.root", tmp_path / "other") == 0
    assert json.loads(capsys.readouterr().out)["num_images"] == 4
    shutil.copytree(root / "val" / "red", tmp_path / "other" / "purple")
    assert run_command("evaluate", run, "--data.root", tmp_path / "other") == DataError.exit_code
    assert "no classes of this run: purple; it knows blue, green, red" in capsys.readouterr().err


def test_a_run_without_a_classifier_is_refused_with_the_command_that_finishes_it(run, tmp_path):
    shutil.copy(run / "config.json", tmp_path)
    with pytest.raises(ConfigError, match=r"holds no classifier\.safetensors, which .* --run-dir \S+ --resume$"):
        load_classifier(tmp_path)
