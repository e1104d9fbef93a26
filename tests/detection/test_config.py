"""What a configuration refuses, all at once, and the linear rule between batch sizes."""

import sys
from dataclasses import replace

import pytest

from detection.config import DataConfig, DetectionConfig, OptimizerConfig, ScheduleConfig
from detection.frameworks.contract import load_framework
from detection.recipes import RECIPES
from detection.train import train
from engine.cli import main
from engine.config import check, from_dict, to_dict
from engine.errors import ConfigError


def good(**changes):
    return replace(
        DetectionConfig(model="r50", init="none", framework="torchvision", data=DataConfig(root="coco")), **changes
    )


def test_a_good_configuration_has_no_problem_and_survives_its_file():
    config = good()
    check(config)
    assert from_dict(DetectionConfig, to_dict(config)) == config


def test_every_problem_is_named_with_what_was_found():
    config = DetectionConfig(
        model="r50",
        framework="torchvision",
        iterations=100,
        batch_size=6,
        image_size=2000,
        accumulation=4,
        drop_path=1.0,
        data=DataConfig(short_sides=(640, 1400), flip=2.0, square=1000, group_size=4),
        optimizer=OptimizerConfig(base_learning_rate=0, layer_decay=0, betas=(0.9, 1.0)),
        schedule=ScheduleConfig(milestones=(80, 60), warmup_iterations=-1),
    )
    with pytest.raises(ConfigError) as error:
        check(config)
    for text in (
        "init is not given",
        "data.root is not given",
        "image_size is 2000; allowed: up to data.max_side 1333",
        "accumulation is 4; allowed: a divisor of batch_size 6",
        "data.group_size is 4; allowed: a divisor of batch_size 6",
        "drop_path is 1.0",
        "data.short_sides is (640, 1400)",
        "data.flip is 2.0",
        "data.square is 1000",
        "optimizer.base_learning_rate is 0",
        "optimizer.layer_decay is 0",
        "optimizer.betas",
        "schedule.milestones is (80, 60)",
        "schedule.warmup_iterations is -1; allowed: 0 or more",
    ):
        assert text in str(error.value), text


def test_milestones_after_the_end_are_refused():
    with pytest.raises(ConfigError, match=r"schedule.milestones is \(60000, 80000\); allowed: below iterations 1000"):
        check(good(iterations=1000))


@pytest.mark.parametrize(("batch_size", "steps", "rate"), [(16, 90_000, 0.02), (8, 180_000, 0.01), (64, 22_500, 0.08)])
def test_learning_rate_and_steps_follow_the_linear_rule(batch_size, steps, rate):
    config = good(batch_size=batch_size)
    assert config.steps(config.iterations) == steps
    assert config.learning_rate == pytest.approx(rate)
    assert config.steps(60_000) / steps == pytest.approx(2 / 3)


def test_torchvision_refuses_what_it_lacks():
    with pytest.raises(ConfigError, match='"torchvision" has no C4 detector'):
        check(good(detector="mask-rcnn-c4"))
    with pytest.raises(ConfigError, match=r"--heads\.box-loss l1"):
        check(good(heads=replace(good().heads, box_loss="giou")))


def test_a_missing_detectron2_is_said_with_its_page_before_a_folder_is_made(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "detectron2", None)  # importing it now fails
    arguments = ["mask-rcnn-fpn-1x", "--run-dir", str(tmp_path / "run"), "--data.root", "coco", "--init", "none"]
    with pytest.raises(SystemExit) as left:
        main("detection", RECIPES, train, arguments)
    assert left.value.code == 2
    message = capsys.readouterr().err
    for text in ("Detectron2 is not installed", "INSTALL.md", "02b5c4e2", "--framework torchvision"):
        assert text in message
    assert not (tmp_path / "run").exists()


def test_a_detectron2_that_cannot_be_imported_is_said_with_its_page(monkeypatch):
    monkeypatch.delitem(sys.modules, "detection.frameworks.detectron2", raising=False)
    monkeypatch.setitem(sys.modules, "detectron2", None)  # importing it fails, as an extension for another torch does
    with pytest.raises(ConfigError, match=r"Detectron2 cannot be imported: .*INSTALL\.md"):
        load_framework("detectron2")
