"""What a run says when it ends is true: the lines load its weights, the commands run, and a finished one is small."""

import json
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import pretrain.recipes
from classification.__main__ import main
from classification.data import open_data
from classification.train import train
from engine import cli
from engine.after import resume_command
from engine.data.order import SamplePlan
from engine.errors import CheckpointError, DataError, StopRequested
from engine.run import checkpoint
from engine.run.keep import keep_weights
from engine.training.stop import StopFlag
from pretrain.train import train as pretrain_train
from tests.classification.folders import make_folder, tiny_config
from tests.closing import listening, told


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def finished(root, tmp_path_factory):
    """A finished run in a folder with a blank in its name, its configuration, and what it said."""
    folder, config = tmp_path_factory.mktemp("runs") / "my run", constant(root)
    with listening() as said:
        train(config, folder)
    return folder, config, said[-1]


def constant(root):
    """A run that could be made longer."""
    config = tiny_config(root, epochs=2)
    return replace(config, schedule=replace(config.schedule, kind="constant", warmup_epochs=0))


def finish(words):
    with pytest.raises(SystemExit) as left:
        main(words[3:])
    return left.value.code


def test_a_classifier_is_loaded_by_the_lines_and_used_by_the_command(finished, tmp_path, monkeypatch, capsys):
    folder, _, text = finished
    weights, names, words = told(text)
    assert weights == f"{folder}/classifier.safetensors"
    assert names["classifier"](torch.zeros(1, 3, 32, 32)).shape == (1, 3)
    assert words[:3] == ["python", "-m", "classification"]
    monkeypatch.chdir(tmp_path)
    assert finish(words) == 0
    assert "all of 12 images with their 3 best classes" in capsys.readouterr().out


def test_an_encoder_is_loaded_by_the_lines_and_fine_tuned_by_the_command(root, tmp_path, caplog):
    caplog.set_level("INFO")
    config = pretrain.recipes.demo("test_resnet", "simmim")
    config = replace(config, epochs=1, batch_size=12, precision="float32")
    pretrain_train(replace(config, data=replace(config.data, root=str(root), num_workers=0)), tmp_path / "run")
    weights, names, words = told(caplog.records[-1].getMessage())
    assert weights == f"{tmp_path}/run/backbone.safetensors"
    assert names["features"].ndim == 4
    from classification.recipes import RECIPES

    command = cli.parse("classification", RECIPES, words[3:])
    assert (command.config.init, command.config.model) == (str(tmp_path / "run"), "test_resnet")


def test_a_stopped_run_says_the_command_that_finishes_it(root, tmp_path):
    folder = tmp_path / "stopped run"
    with StopFlag() as stop, pytest.raises(StopRequested) as said:
        stop.ask("SIGINT")
        train(constant(root), folder)
    text = str(said.value)
    assert text.startswith("stopped by SIGINT after step 0 of")
    words = shlex.split(text.splitlines()[1])
    assert words == ["python", "-m", "classification", f"{folder}/config.json", "--run-dir", str(folder), "--resume"]
    assert finish(words) == 0
    assert (folder / "finished.json").exists()


def test_the_command_starts_as_many_processes_as_before(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert resume_command("pretrain", tmp_path).startswith("torchrun --standalone --nproc-per-node=4 -m pretrain ")


def test_a_finished_run_keeps_its_weights_and_says_why_it_cannot_be_longer(finished):
    folder, config, _ = finished
    (kept,) = (folder / "checkpoints").glob("[0-9]*")
    assert sorted(path.name for path in kept.iterdir()) == ["ema.safetensors", "manifest.json", "model.safetensors"]
    assert checkpoint.fault(kept) is None
    assert json.loads((kept / "manifest.json").read_text())["dropped"]["optimizer.pt"]["size"] > 0
    before = (folder / "config.json").read_bytes(), (folder / "finished.json").read_bytes()
    with pytest.raises(CheckpointError, match=r"kept its weights, not the optimizer's state.*--keep all"):
        train(replace(config, epochs=3), folder, resume=True)
    assert before == ((folder / "config.json").read_bytes(), (folder / "finished.json").read_bytes())
    metrics = train(config, folder, resume=True)
    (folder / "finished.json").unlink()
    assert train(config, folder, resume=True) == metrics


def test_with_keep_all_a_run_can_be_made_longer_and_a_kill_while_it_is_reduced_hurts_nothing(
    finished, tmp_path, monkeypatch
):
    config = finished[1]
    train(config, tmp_path / "run", keep_all=True)
    assert (checkpoint.newest(tmp_path / "run") / "optimizer.pt").is_file()
    assert train(replace(config, epochs=3), tmp_path / "run", resume=True, keep_all=True)
    command = cli.parse("pretrain", pretrain.recipes.RECIPES, ["demo", "--run-dir", "x", "--keep", "all"])
    assert command.keep_all

    def killed(path):
        raise KeyboardInterrupt

    monkeypatch.setattr("engine.run.storage.remove", killed)
    with pytest.raises(KeyboardInterrupt):  # between the manifest and the removal
        keep_weights(tmp_path / "run")
    monkeypatch.undo()
    assert checkpoint.fault(checkpoint.newest(tmp_path / "run")) is None
    keep_weights(tmp_path / "run")
    assert [p.name for p in (tmp_path / "run/checkpoints").rglob("optimizer.pt")] == []


def test_after_an_error_outside_the_run_the_command_that_goes_on_is_said(tmp_path, caplog):
    caplog.set_level("INFO")
    config = replace(constant(make_folder(tmp_path / "images")), checkpoint_every=1)
    images, _ = open_data(config)
    plan = SamplePlan(len(images), config.batch_size, config.seed, config.augment.repeats)
    first = {key.index for key in plan.batch(0)}
    later = next(key.index for step in range(1, 8) for key in plan.batch(step) if key.index not in first)
    victim = Path(images.index.path(later))
    victim.write_bytes(b"no picture")
    with pytest.raises(DataError):
        train(config, tmp_path / "run")
    said = caplog.records[-1].getMessage().splitlines()
    assert said[0].startswith(f"{checkpoint.last_step(tmp_path / 'run')} steps are saved")
    assert finish([*shlex.split(said[1]), "--data.unreadable", "skip", "--data.max-unreadable", "1"]) == 0
