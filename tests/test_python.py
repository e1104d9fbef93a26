"""The suite from Python: the same recipes and run folders as the commands, and errors that say what is wrong."""

import json
from pathlib import Path

import pytest
import torch

import mim_benchmark as mim
from mim_benchmark.runs import configuration, gathered
from tests.classification.folders import make_folder

SMALL = {"batch_size": 12, "precision": "float32", "image_size": 64, "settings": {"data.num_workers": 0}}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("images"))


def test_from_images_to_numbers(root, tmp_path):
    run = mim.pretrain(
        "demo", data=root, run_dir=tmp_path / "p", model="test_resnet", method="simmim", epochs=1, **SMALL
    )
    assert json.loads((tmp_path / "p/config.json").read_text())["config"]["schedule"]["warmup_epochs"] == 0.5
    assert run.pictures
    assert "data:image/png" in run._repr_html_()
    options = dict(data=root, run_dir=tmp_path / "f", model="test_resnet", init=run, epochs=1, **SMALL)
    tuned = mim.finetune("demo", **options)
    assert mim.evaluate(tuned)["top1"] == tuned.metrics["top1_last"]
    assert mim.finetune("demo", **options) == tuned, "a cell may be run again"
    with pytest.raises(mim.SuiteError, match="not empty"):
        mim.finetune("demo", resume=False, **options)
    assert mim.load_model(tuned.dir).classes == ("blue", "green", "red")
    assert mim.load_encoder(run).backbone(torch.zeros(1, 3, 64, 64)).ndim == 4
    measured = mim.evaluate(run, data=root, protocol="knn", runs_dir=tmp_path / "e", k=(3,), **{"data.num_workers": 0})
    assert 0 <= measured["top1"] <= 100
    (place, *_) = mim.export(tuned, tmp_path / "exported", "timm")
    assert (Path(place) / "config.json").is_file()
    for wrong, sentence in ((run, "no metric of its own"), (tmp_path, "not a readable configuration")):
        with pytest.raises(mim.SuiteError, match=sentence):
            mim.evaluate(wrong)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"optimizer.lr": 1.0}, "no setting optimizer.lr; nearest: optimizer"),
        ({"epochs": "many"}, "epochs: expected a whole number, found 'many'"),
        ({"epochs": 0}, "epochs is 0"),
        ({"data.crop_scale": (0.5, "a")}, r"data.crop_scale: expected .*number, found 'a'"),
        ({"precision": "half"}, "precision: expected one of 'float32', "),
    ],
)
def test_what_cannot_be_run_is_said(root, values, sentence):
    with pytest.raises(mim.SuiteError, match=sentence):
        configuration("pretrain", "demo", root, {"model": "test_resnet", **values})


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda **run: mim.finetune(task="detect", **run), "no task 'detect': classification, detection"),
        (lambda **run: mim.pretrain(**{**run, "run_dir": None}), "run_dir: expected a path, found None"),
        (lambda **run: mim.pretrain(**{**run, "data": ["a"]}), r"data: expected a path, found \['a'\]"),
        (lambda **run: mim.pretrain(settings=["epochs"], **run), "settings: expected a dictionary"),
        (lambda **run: mim.load_encoder(None), "source: expected a path"),
        (lambda **run: mim.load_model("/nowhere"), "/nowhere/config.json: .* no such folder"),
        (lambda **run: mim.evaluate("random:test_resnet", data="x", protocol="knnn"), "no protocol 'knnn': .*knn"),
        (lambda **run: mim.evaluate("random:test_resnet", data="x", protocol="knn", kk=1), "no setting kk; nearest: k"),
        (lambda **run: mim.evaluate("random:test_resnet", data="x", protocol="knn", k="a"), "k: expected a whole"),
    ],
)
def test_a_wrong_argument_is_an_error_for_people(root, tmp_path, call, sentence):
    with pytest.raises(mim.SuiteError, match=sentence):
        call(data=root, run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_values_are_what_the_command_line_takes(root):
    values = {"model": "test_resnet", "init": None, "augment": {"crop_scale": (0.5, 1.0)}}
    config = configuration("classification", "demo", Path(root), gathered(values, {"data.num_workers": 0}))
    assert (config.augment.crop_scale, config.init, config.data.num_workers) == ((0.5, 1.0), "none", 0)
    own = configuration(
        "segmentation", "own", Path(root), {"model": "resnet18", "init": "none", "data.classes": ["sky", "tree"]}
    )
    assert own.data.classes == "sky,tree"
    with pytest.raises(mim.SuiteError, match=r"no recipe 'demmo'"):
        configuration("classification", "demmo", root, {})
