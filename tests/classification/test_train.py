"""Whole runs on tiny folders: they learn, they resume to the same bytes, they refuse what cannot work."""

import json
import os
import shutil
import signal
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

import classification.train as task
from classification.config import AugmentConfig, EmaConfig, LossConfig, OptimizerConfig, ScheduleConfig
from classification.recipes import RECIPES
from classification.train import in_steps, summary, train
from engine.cli import main
from engine.data.order import SamplePlan
from engine.errors import ConfigError, DataError, StopRequested
from engine.task import loop_settings
from tests.classification.folders import make_folder, tiny_config
from tests.forked import run_module
from tests.helpers import assert_same_bytes


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("data"))


def lines(run_dir, split):
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if row["split"] == split]


def easy(root, **changes):
    """Light augmentation and AdamW, with which the colours are learnt in a few epochs."""
    return tiny_config(
        root,
        augment=AugmentConfig(crop_scale=(0.5, 1.0), test_size=32, crop_pct=1.0),
        loss=LossConfig(),
        optimizer=OptimizerConfig(base_learning_rate=2e-3, base_batch=6),
        schedule=ScheduleConfig(warmup_epochs=1),
        ema=EmaConfig(),
        **changes,
    )


def test_a_run_from_scratch_learns_and_leaves_everything_a_reader_needs(root, tmp_path):
    run_dir = tmp_path / "run"
    metrics = train(easy(root, epochs=6), run_dir, recipe="demo")
    assert metrics["top1_last"] > 80
    assert metrics["top5_last"] == 100
    evaluations = lines(run_dir, "val")
    assert [row["epoch"] for row in evaluations] == [1, 2, 3, 4, 5, 6]
    assert {row["num_images"] for row in evaluations} == {12}
    assert metrics["top1_best"] == max(row["top1"] for row in evaluations)
    finished = json.loads((run_dir / "finished.json").read_text())
    assert finished["metrics"] == metrics
    assert (finished["num_train"], finished["num_val"], finished["num_classes"]) == (24, 12, 3)
    assert finished["images_per_second"] > 0
    effective = json.loads((run_dir / "environment.json").read_text())["effective"]
    assert (effective["peak_learning_rate"], effective["global_batch"]) == (2e-3, 6)
    assert json.loads((run_dir / "classes.json").read_text()) == ["blue", "green", "red"]
    assert json.loads((run_dir / "initialisation.json").read_text()) == {"source": "none"}
    assert (run_dir / "backbone.safetensors").is_file()


def test_a_finished_run_is_not_run_again(root, tmp_path):
    config = easy(root, epochs=2)
    metrics = train(config, tmp_path / "run")
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    assert train(config, tmp_path / "run", resume=True) == metrics
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == before


def stop_at_evaluation(monkeypatch, number):
    """Ask the run to stop by a signal in its `number`-th evaluation."""
    calls = []
    real = task.evaluate

    def counting(*arguments, **options):
        calls.append(1)
        if len(calls) == number:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*arguments, **options)

    monkeypatch.setattr(task, "evaluate", counting)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_run_stopped_in_an_evaluation_and_resumed_ends_with_the_same_bytes(root, tmp_path, monkeypatch, num_workers):
    config = tiny_config(root)  # mixing, erasing, repeated augmentation, LAMB and a moving average
    config = replace(config, data=replace(config.data, num_workers=num_workers))
    train(config, tmp_path / "whole")
    with monkeypatch.context() as patch:
        stop_at_evaluation(patch, 2)
        with pytest.raises(StopRequested):
            train(config, tmp_path / "stopped")
    train(config, tmp_path / "stopped", resume=True)
    assert_same_bytes(tmp_path / "stopped", tmp_path / "whole")


def test_the_number_of_workers_changes_nothing(root, tmp_path):
    config = tiny_config(root, epochs=2)
    for number in (0, 1):
        train(replace(config, data=replace(config.data, num_workers=number)), tmp_path / str(number))
    assert (tmp_path / "0" / "metrics.jsonl").read_bytes() == (tmp_path / "1" / "metrics.jsonl").read_bytes()
    one, other = (load_file(tmp_path / name / "backbone.safetensors") for name in ("0", "1"))
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_a_run_resumes_without_the_file_it_was_initialised_from(root, tmp_path, monkeypatch):
    train(easy(root, epochs=2), tmp_path / "source")
    config = easy(root, epochs=2, init=str(tmp_path / "source"))
    with monkeypatch.context() as patch:
        stop_at_evaluation(patch, 1)
        with pytest.raises(StopRequested):
            train(config, tmp_path / "run")
    shutil.rmtree(tmp_path / "source")
    assert "top1_last" in train(config, tmp_path / "run", resume=True)


def test_accumulated_passes_make_the_same_step_as_one(root, tmp_path):
    config = easy(root, model="test_vit", epochs=2)
    whole = train(replace(config, accumulation=1), tmp_path / "one")
    parts = train(replace(config, accumulation=3), tmp_path / "three")
    first, second = lines(tmp_path / "one", "train"), lines(tmp_path / "three", "train")
    assert [row["loss"] for row in second] == pytest.approx([row["loss"] for row in first], rel=1e-3)
    assert whole.keys() == parts.keys()


def test_a_linear_probe_leaves_the_encoder_as_it_was(root, tmp_path):
    train(easy(root, epochs=2), tmp_path / "source")
    config = easy(root, epochs=2, init=str(tmp_path / "source"), freeze="encoder")
    train(config, tmp_path / "probe")
    source, probe = (load_file(tmp_path / name / "backbone.safetensors") for name in ("source", "probe"))
    assert source.keys() == probe.keys()
    assert all((source[name] == probe[name]).all() for name in source)
    effective = json.loads((tmp_path / "probe" / "environment.json").read_text())["effective"]
    assert effective["trainable_parameters"] == source["layer4.0.bn2.bias"].numel() * 3 + 3


def test_a_data_set_that_changed_since_the_start_is_refused(root, tmp_path, monkeypatch):
    own = shutil.copytree(root, tmp_path / "data")
    config = easy(own, epochs=2)
    stop_at_evaluation(monkeypatch, 1)
    with pytest.raises(StopRequested):
        train(config, tmp_path / "run")
    shutil.copy(own / "train" / "red" / "000.jpg", own / "train" / "red" / "999.jpg")
    with pytest.raises(DataError, match="25 files, the run started with 24"):
        train(config, tmp_path / "run", resume=True)


def test_a_damaged_training_image_stops_the_run_by_name(root, tmp_path):
    own = shutil.copytree(root, tmp_path / "data")
    damaged = own / "train" / "green" / "003.jpg"
    damaged.write_bytes(damaged.read_bytes()[:200])
    with pytest.raises(DataError, match=r"green/003\.jpg"):
        train(easy(own, epochs=2), tmp_path / "run")
    assert json.loads((tmp_path / "run" / "error.json").read_text())["exit_code"] == 3


def test_a_batch_larger_than_the_data_set_is_refused_with_both_numbers(root, tmp_path):
    with pytest.raises(DataError, match=r"24 images.*batch of 32"):
        train(easy(root, batch_size=32), tmp_path / "run")


def test_odd_parts_of_a_batch_cannot_be_mixed(root, tmp_path):
    with pytest.raises(ConfigError, match="odd"):
        train(tiny_config(root, batch_size=9), tmp_path / "run")


def test_learning_rate_warm_up_and_moving_average_are_in_steps_of_this_data_set():
    config = RECIPES["rsb-a2"]()
    settings = loop_settings(config, SamplePlan(1_281_167, 2048, 0, 3), **in_steps(config, 625))
    assert settings.steps_per_epoch == 625
    assert settings.total_steps == 187_500
    rates = [settings.schedule.rate(step, config.learning_rate) for step in (0, 3125, 187_500)]
    assert rates == pytest.approx([5e-7, 5e-3, 1e-6])
    assert settings.average_decay(0) == pytest.approx(0.9 * 0.9999)
    assert settings.average_decay(20 * 625) == pytest.approx(0.9999)


def test_the_probes_rate_falls_tenfold_at_its_milestones():
    config = RECIPES["linear-probe"]()
    settings = loop_settings(config, SamplePlan(2560, 256, 0))
    rates = [settings.schedule.rate(epoch * 10, config.learning_rate) for epoch in (0, 59, 60, 79, 80, 99)]
    assert rates == pytest.approx([30, 30, 3, 3, 0.3, 0.3])


def test_the_published_accuracy_is_the_best_of_the_last_ten_epochs():
    rows = [{"epoch": epoch, "top1": float(value), "top5": 90.0} for epoch, value in enumerate([99, *range(20)], 1)]
    rows[-1]["top1"] = 5.0
    found = summary(rows, epochs=21)
    assert (found["top1_best"], found["top1_best_last10"], found["top1_last"]) == (99.0, 18.0, 5.0)
    assert summary(rows[:12], epochs=12)["top1_best_last10"] == 10.0


@pytest.mark.parametrize("name", [name for name in RECIPES if name != "demo"])
def test_every_recipe_runs_at_reduced_size(name, root, tmp_path):
    config = RECIPES[name]("test_resnet")
    augment = replace(config.augment, test_size=32)
    small = replace(
        config,
        init="none",
        epochs=2,
        batch_size=8,
        image_size=32,
        precision="float32",
        data=replace(config.data, root=str(root), num_workers=0, train_fraction=0.5),
        augment=augment,
        schedule=replace(config.schedule, warmup_epochs=0, milestones=config.schedule.milestones and (1,)),
        ema=replace(config.ema, warmup_epochs=min(config.ema.warmup_epochs, 1)),
    )
    metrics = train(small, tmp_path / "run")
    assert 0 <= metrics["top1_last"] <= metrics["top1_best"] <= 100


def test_the_command_trains_and_prints_its_metrics(root, tmp_path):
    outcome = run_module(
        *("classification", "demo", "--model", "test_resnet", "--run-dir", tmp_path / "run", "--data.root", root),
        *("--init", "none", "--epochs", "2", "--batch-size", "8", "--image-size", "32", "--augment.test-size", "32"),
    )
    assert outcome.returncode == 0, outcome.stderr
    assert json.loads(outcome.stdout.splitlines()[-1])["top5_last"] == 100
    assert "peak learning rate" in outcome.stderr


def test_the_command_without_init_is_refused_before_a_folder_is_made(root, tmp_path, capsys):
    arguments = ["demo", "--run-dir", str(tmp_path / "run"), "--data.root", str(root)]
    with pytest.raises(SystemExit) as left:
        main("classification", RECIPES, train, arguments)
    assert left.value.code == 2
    assert "init is not given" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
