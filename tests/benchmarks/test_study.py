"""`python -m benchmarks study`: the pictures, the plan, and a study of a tiny network from pictures to its table."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.__main__ import main
from benchmarks.study.catalogue import STUDIES
from benchmarks.study.pictures import CLIPART_CLASSES, write_clipart, write_digits
from benchmarks.study.plan import METHODS, Part, make_stages
from classification.config import ClassificationConfig
from classification.train import train
from engine import config
from engine.errors import ConfigError, DataError
from results.runs.collect import collect

TINY = "test_resnet.r160_in1k"  # timm's own smallest ResNet, 0.5 M parameters


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "digits"
    write_digits(folder)
    return folder


def test_the_digits_are_scikit_learns_and_a_sixth_is_for_validation(digits):
    assert sum(1 for _ in digits.glob("train/*/*.png")) == 1497
    assert sum(1 for _ in digits.glob("val/*/*.png")) == 300
    with Image.open(digits / "val" / "0" / "0000.png") as image:
        assert image.size == (32, 32)
        assert 0 <= np.asarray(image).min() < 10 and np.asarray(image).max() > 230


def test_clip_art_is_squared_onto_white_and_equal_files_come_once(tmp_path):
    for name in CLIPART_CLASSES:
        (tmp_path / "png" / name / "deep").mkdir(parents=True)
        picture = Image.new("RGBA", (200, 100), (0, 0, len(name), 255))
        for file in ("a.png", "deep/same.png"):
            picture.save(tmp_path / "png" / name / file)
        picture.resize((50, 300)).save(tmp_path / "png" / name / "b.png")
    write_clipart(tmp_path / "out", tmp_path / "png")
    written = list((tmp_path / "out").glob("*/tools/*.jpg"))
    assert len(written) == 2
    for path in written:
        with Image.open(path) as image:
            assert image.size == (64, 64)
            pixels = np.asarray(image).astype(int)
        assert pixels[0, 0].min() > 240 and pixels[32, 32].max() < 30
    (tmp_path / "png" / "tools" / "b.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"b\.png: not a readable picture"):
        write_clipart(tmp_path / "other", tmp_path / "png")
    with pytest.raises(DataError, match="apt-get install openclipart-png"):
        write_clipart(tmp_path / "other", tmp_path / "nowhere")


def test_a_study_compares_every_method_with_scratch_on_equal_terms(tmp_path, digits):
    study = STUDIES["digits"]
    part = Part(models=("resnet18",), labels=study.labels, seeds=2)
    stages = {stage.name: stage for stage in make_stages(study, part, digits, tmp_path)}
    assert len(stages) == 2 * (len(METHODS) - 1 + len(METHODS) * len(study.labels))
    tuned, control = stages["resnet18-a2mim-labels0.1-s1"], stages["resnet18-scratch-labels0.1-s1"]
    assert tuned.needs == ("resnet18-a2mim-pretrain-s1",), "each seed has a pre-training of its own"
    assert stages[tuned.needs[0]].config.seed == tuned.config.seed == 1
    assert config.to_dict(tuned.config) | {"init": "none"} == config.to_dict(control.config)
    assert all(stage.config.augment.flip == 0 for stage in stages.values() if stage.package == "classification")
    other = {stage.name for stage in make_stages(study, Part(**{**vars(part), "pretrain_epochs": 3}), digits, tmp_path)}
    assert "resnet18-a2mim-3e-labels0.1-s1" in other and "resnet18-scratch-labels0.1-s1" in other


@pytest.mark.parametrize(("change", "message"), [({"methods": ("mim",)}, "no method 'mim'"), ({"seeds": 0}, "seeds 0")])
def test_what_cannot_be_studied_is_refused(tmp_path, change, message):
    part = Part(**{"models": (TINY,), "labels": (1.0,), "seeds": 1, **change})
    with pytest.raises(ConfigError, match=message):
        make_stages(STUDIES["digits"], part, tmp_path, tmp_path)


def test_the_scenes_are_not_written_beside_other_data(tmp_path):
    with pytest.raises(ConfigError, match=r"--data .*mine/imagenet"):
        STUDIES["scenes"].write(tmp_path / "mine", Path())
    assert not list(tmp_path.iterdir())


def test_a_study_ends_with_its_table_and_a_worker_computes_what_a_command_does(tmp_path, digits, capfd):
    runs = tmp_path / "runs"
    command = ["study", "digits", "--data", str(digits), "--runs-dir", str(runs), "--models", TINY, "--workers", "1"]
    command += ["--methods", "scratch", "simmim", "--labels", "0.01", "--seeds", "1", "--device", "cpu"]
    command += ["--pretrain-epochs", "1", "--finetune-epochs", "1"]
    assert main(command) == 0, capfd.readouterr()
    said = capfd.readouterr().out
    assert "one seed: no evidence" in said
    rows, rejected = collect(sorted(path.parent for path in runs.glob("*/config.json")))
    assert not rejected and set(rows["method"]) == {"scratch", "simmim"}
    assert not list(runs.rglob("checkpoints")) and len(list(runs.rglob("*.safetensors"))) == 1
    scratch = runs / f"{TINY}-scratch-labels0.01-1e-s0"
    stored = json.loads((scratch / "config.json").read_text())
    alone = config.from_dict(ClassificationConfig, stored["config"])
    environment = json.loads((scratch / "environment.json").read_text())
    assert environment["effective"]["steps"] == 1497 // 32
    assert "--resume" in environment["command"], "as the command alone would have it"
    train(alone, tmp_path / "alone")
    same = [(folder / "metrics.jsonl").read_text() for folder in (scratch, tmp_path / "alone")]
    assert same[0] == same[1]
    before = {path: path.stat().st_mtime_ns for path in runs.rglob("finished.json")}
    assert main(command) == 0
    assert before == {path: path.stat().st_mtime_ns for path in runs.rglob("finished.json")}


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_has_runs_that_can_be_made(name, tmp_path):
    study = STUDIES[name]
    stages = make_stages(study, Part(models=study.models[:1], labels=study.labels, seeds=1), tmp_path, tmp_path)
    assert {stage.package for stage in stages} == {"pretrain", "classification"}
    assert {stage.recipe for stage in stages} == {study.recipe}
    assert all(set(stage.needs) <= {other.name for other in stages} for stage in stages)
