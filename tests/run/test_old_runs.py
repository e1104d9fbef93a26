"""Run folders of the first format (no number in config.json) resume, are collected and run again."""

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from classification.train import train as classify
from engine import config, formats
from engine.cli import parse
from engine.errors import ConfigError
from engine.run import storage
from pretrain.recipes import RECIPES as PRETRAINING
from pretrain.train import train as pretrain
from results.runs.collect import collect
from tests.engine.tiny_task import TinyConfig
from tests.run.make_unfinished import FOLDER, configurations
from tests.run.tiny_network import register

TRAIN = {"pretrain": pretrain, "classification": classify}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A copy of the old run folders and their images, which they name by relative paths."""
    register()
    shutil.copytree(FOLDER, tmp_path / "old")
    monkeypatch.chdir(tmp_path / "old")
    monkeypatch.setenv("MIM_TRACKERS", "")
    return tmp_path / "old"


def lines(run_dir):
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("package", ["pretrain", "classification"])
def test_an_old_run_resumes_and_runs_again_to_the_same_numbers(place, package, monkeypatch):
    _, wanted = configurations()[package]
    stored = config.read_config_file(Path(package) / "config.json")
    assert "format" not in json.loads((Path(package) / "config.json").read_text())
    assert config.from_dict(type(wanted), stored["config"]) == wanted
    TRAIN[package](wanted, Path(package), resume=True)
    TRAIN[package](wanted, Path("again"), recipe="demo")
    resumed, again = lines(Path(package)), lines(Path("again"))
    assert [row["step"] for row in resumed] == [row["step"] for row in again]
    for one, other in zip(resumed, again, strict=True):
        assert one.pop("split") == other.pop("split")
        assert one == pytest.approx(other, rel=5e-3)  # another torch wrote the first lines, in bfloat16
    record = json.loads((Path(package) / "environment.json").read_text())
    assert [(entry["changed"], entry["world_size"]) for entry in record["resumes"]] == [({}, 1)]
    assert record["resumes"][0]["step"] == {"pretrain": 4, "classification": 5}[package]
    assert json.loads((Path(package) / "config.json").read_text())["format"] == formats.current()
    frame, rejected = collect([package])
    assert (set(frame["run"]), rejected) == ({package}, [])


def test_a_finished_old_run_stays_as_it_is(place, monkeypatch):
    _, wanted = configurations()["classification"]
    classify(wanted, Path("classification"), resume=True)
    old = json.loads((FOLDER / "classification/config.json").read_text())
    del old["config"]["accumulation"]  # an even older version, which had no such setting
    summary = json.loads(Path("classification/finished.json").read_text())
    summary = {**summary, "config_hash": config.config_hash(old["config"])}
    del summary["files"], summary["sha256"]
    Path("classification/finished.json").write_text(json.dumps(summary))
    Path("classification/config.json").write_text(json.dumps(old))
    before = {path: path.read_bytes() for path in Path("classification").rglob("*") if path.is_file()}
    assert classify(wanted, Path("classification"), resume=True) == summary["metrics"]
    assert {path: path.read_bytes() for path in Path("classification").rglob("*") if path.is_file()} == before


def test_a_respelling_makes_no_other_variant_in_the_results(place):
    _, wanted = configurations()["pretrain"]
    pretrain(replace(wanted, seed=1), Path("new"), recipe="demo")
    pretrain(wanted, Path("pretrain"), resume=True)
    old = json.loads((FOLDER / "pretrain/config.json").read_text())
    summary = json.loads(Path("pretrain/finished.json").read_text())
    summary = storage.sealed({**summary, "config_hash": config.config_hash(old["config"])})
    Path("pretrain/finished.json").write_text(json.dumps(summary))
    Path("pretrain/config.json").write_text(json.dumps(old))
    frame, rejected = collect(["pretrain", "new"])
    assert rejected == []
    assert len(frame["run"].unique()) == 2
    assert not any("token" in variant or "loss" in variant or "fill" in variant for variant in frame["variant"])


def test_a_setting_that_is_not_there_takes_its_default_and_is_named(caplog):
    values = config.to_dict(TinyConfig(accumulation=2))
    del values["accumulation"], values["data"]
    with caplog.at_level(logging.INFO):
        assert config.from_dict(TinyConfig, values) == TinyConfig()
    assert "not in the stored configuration, so taken by default: accumulation 1, data" in caplog.text


def test_an_unknown_setting_is_refused_with_the_nearest_and_a_missing_one_without_default_is_named():
    values = config.to_dict(TinyConfig())
    with pytest.raises(ConfigError, match=r"no setting data.workers in this version; nearest: data.num_workers"):
        config.from_dict(TinyConfig, {**values, "data": {"workers": 2}})
    wanted = config.to_dict(PRETRAINING["demo"]("r50", "simmim"))
    del wanted["epochs"]
    with pytest.raises(ConfigError, match="epochs is missing, and has no default"):
        config.from_dict(type(PRETRAINING["demo"]("r50", "simmim")), wanted)


STORED = {"package": "classification", "recipe": "demo"}


def test_a_respelt_setting_is_translated_step_by_step():
    def minimum(package, values):
        formats.move(values, "schedule.min_learning_rate", "schedule.min_rate")
        formats.move(values, "absent.setting", "schedule.other")
        return values

    def deeper(package, values):
        formats.move(values, "schedule.min_rate", "rates.schedule.minimum")
        return values

    old = {**STORED, "config": {"schedule": {"min_learning_rate": 1e-6, "kind": "cosine"}, "seed": 3}}
    new = formats.upgrade(old, (minimum, deeper))
    assert new["format"] == 3
    assert new["config"] == {"schedule": {"kind": "cosine"}, "rates": {"schedule": {"minimum": 1e-6}}, "seed": 3}
    assert old["config"]["schedule"] == {"min_learning_rate": 1e-6, "kind": "cosine"}, "what is given stays"
    assert formats.upgrade({**old, "format": 2}, (minimum, deeper))["config"] == old["config"]
    assert formats.upgrade(new, (minimum, deeper)) == new


@pytest.mark.parametrize(
    ("data", "full"),
    [
        ({"train_fraction": 0.1}, False),
        ({"label_list": "few.txt"}, False),
        ({"train_fraction": 0.1, "full_epochs": True}, True),
        ({"train_fraction": 1.0, "full_epochs": False}, True),
        ({}, True),
    ],
)
def test_a_run_on_few_labels_keeps_the_length_that_it_had(data, full):
    stored = {**STORED, "format": 3, "config": {"data": data}}
    assert formats.upgrade(stored)["config"]["data"]["full_epochs"] is full
    of_today = {**STORED, "format": formats.current(), "config": {"data": {"train_fraction": 0.1}}}
    assert formats.upgrade(of_today)["config"] == of_today["config"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 99}, "format 99 is of a newer version"),
        ({"format": "2"}, "format is '2', not a number"),
        ({"format": True}, "format is True"),
        ({"config": []}, r"config is \[\], not settings"),
        ({"package": None}, "package is None, not a name"),
    ],
)
def test_a_file_of_another_form_is_refused(tmp_path, change, message):
    (tmp_path / "config.json").write_text(json.dumps({**STORED, "config": {}, **change}))
    with pytest.raises(ConfigError, match=f"config.json: {message}"):
        config.read_config_file(tmp_path / "config.json")


@pytest.mark.parametrize("content", ["", "[1]", "{", "[" * 100_000, '{"config": ' * 50_000, "\x00", "3"])
def test_a_file_that_is_no_configuration_is_refused(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ConfigError, match=r"config.json: not a"):
        config.read_config_file(tmp_path / "config.json")


def test_the_command_runs_an_old_file(place):
    command = parse("pretrain", PRETRAINING, [str(place / "pretrain/config.json"), "--run-dir", "x", "--seed", "4"])
    assert (command.config.options.token.form, command.config.options.fill) == ("replace", "none")
    assert (command.config.seed, command.recipe) == (4, "demo")
