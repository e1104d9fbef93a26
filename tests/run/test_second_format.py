"""Run folders of the second format of config.json, in which every task spelt shared settings its own way: they resume
to the numbers that the version which wrote them came to, are collected, and run again.

tests/data/unfinished2 holds a run of each task stopped on its way, their data, and in expected/ the metrics of the same
runs left alone, all written by the last version of that format.
"""

import importlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from engine import config, formats
from engine.cli import parse
from results.runs.collect import collect
from tests.helpers import ROOT
from tests.run.tiny_network import register

FOLDER = ROOT / "tests/data/unfinished2"
NEW = {
    "pretrain": {"schedule.milestones": (2,), "schedule.power": 1.0, "accumulation": 1},
    "classification": {
        "schedule.min_rate": 1e-5,
        "schedule.warmup_epochs": 1.0,
        "augment.flip": 0.25,
        "augment.crop_scale": (0.5, 1.0),
        "augment.crop_ratio": (0.9, 1.1),
        "optimizer.eps": None,
    },
    "detection": {"schedule.milestones": (3,), "schedule.min_rate": 0.0},
    "segmentation": {"schedule.min_rate": 1e-4, "schedule.kind": "poly", "schedule.milestones": ()},
}
"""What each now calls what it had, and what it did not say then."""


@pytest.fixture(params=NEW)
def package(request, tmp_path, monkeypatch):
    """A task, with a copy of its run folder and data in the present folder."""
    if request.param == "segmentation":
        pytest.importorskip("mmseg")
        from segmentation.framework import import_mmsegmentation

        import_mmsegmentation()
    register()
    for name in (request.param, "images", "coco", "ade"):
        shutil.copytree(FOLDER / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MIM_TRACKERS", "")
    return request.param


def value(group, name):
    for part in name.split("."):
        group = getattr(group, part)
    return group


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_it_resumes_to_the_same_numbers_and_is_collected(package):
    assert json.loads(Path(package, "config.json").read_text())["format"] == 2
    recipes = importlib.import_module(f"{package}.recipes").RECIPES
    command = parse(package, recipes, [f"{package}/config.json", "--run-dir", package])
    assert {name: value(command.config, name) for name in NEW[package]} == NEW[package]
    importlib.import_module(f"{package}.train").train(command.config, Path(package), recipe="demo", resume=True)
    found, expected = lines(Path(package, "metrics.jsonl")), lines(FOLDER / "expected" / f"{package}.jsonl")
    assert [(row["step"], row["split"]) for row in found] == [(row["step"], row["split"]) for row in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.pop("split") == other.pop("split")
        assert one == pytest.approx(other, rel=1e-3)
    assert json.loads(Path(package, "config.json").read_text())["format"] == formats.current()
    record = json.loads(Path(package, "environment.json").read_text())
    assert [entry["changed"] for entry in record["resumes"]] == [{}], "a respelling is no change"
    frame, rejected = collect([package])
    assert (set(frame["run"]), rejected) == ({package}, [])


def test_a_run_of_before_and_one_of_today_are_seeds_of_one_row(tmp_path, monkeypatch):
    register()
    for name in ("classification", "images"):
        shutil.copytree(FOLDER / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MIM_TRACKERS", "")
    module = importlib.import_module("classification.train")
    old = json.loads(Path("classification/config.json").read_text())
    recipes = importlib.import_module("classification.recipes").RECIPES
    wanted = parse("classification", recipes, ["classification/config.json", "--run-dir", "x"]).config
    module.train(wanted, Path("classification"), recipe="demo", resume=True)
    module.train(replace(wanted, seed=1), Path("again"), recipe="demo")
    summary = json.loads(Path("classification/finished.json").read_text())
    Path("classification/finished.json").unlink()
    from engine.run import storage

    sealed = storage.sealed({**summary, "config_hash": config.config_hash(old["config"])})  # as it finished then
    Path("classification/finished.json").write_text(json.dumps(sealed))
    Path("classification/config.json").write_text(json.dumps(old))
    frame, rejected = collect(["classification", "again"])
    assert rejected == []
    assert len(frame["run"].unique()) == 2
    spelt = ("rate", "scale", "flip", "eps", "power", "milestones", "warmup", "step_factor", "final")
    assert not any(word in variant for variant in frame["variant"] for word in spelt), set(frame["variant"])
