"""F03, F05, F31, F44, F45: what may go on, what may begin again, and what a finished run is believed."""

import json
import logging
import shutil
from dataclasses import replace

import pytest

from backbones import WeightsFileError
from backbones.weights.files import open_weights, write_weights
from engine import config
from engine.errors import CheckpointError, ConfigError, DataError, DivergedError, StopRequested
from engine.run import claim, storage
from engine.run.open import open_run, prepare
from tests.classification.folders import make_folder, tiny_config
from tests.engine.tiny_task import TinyConfig, TinyData, train
from tests.helpers import final_files

CONFIG = TinyConfig(steps=6, checkpoint_every=3)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("restart") / "run"
    train(CONFIG, folder)
    return folder


def contents(folder, *without):
    files = (p for p in folder.rglob("*") if p.is_file() and p.name not in without)
    return {p.relative_to(folder): p.read_bytes() for p in files}


def classify(root, **changes):
    return tiny_config(root, **{"model": "test_vit", "image_size": 32, **changes})


def took_steps(run_dir, given, steps, *, per_epoch=4):
    """A classification run's folder as it is after so many steps, without the weights, which nothing here looks at."""
    prepare(run_dir, given, package="classification", recipe="demo")
    (run_dir / f"checkpoints/{steps:08d}").mkdir(parents=True)
    storage.write_json(run_dir / "environment.json", {"effective": {"steps": given.epochs * per_epoch}})
    return run_dir


def resume(run_dir, given):
    with open_run(run_dir, given, package="classification", recipe="demo", resume=True) as run:
        return run.changed


def with_schedule(given, kind):
    return replace(given, schedule=replace(given.schedule, kind=kind, milestones=(1,) if kind == "step" else ()))


@pytest.mark.parametrize("kind", ["cosine", "step"])
@pytest.mark.parametrize("epochs", [2, 5])
def test_another_length_is_refused_where_the_schedule_has_an_end(tmp_path, kind, epochs):
    given = with_schedule(classify(tmp_path, epochs=3), kind)
    folder = took_steps(tmp_path / "run", given, 8)
    before = contents(folder)
    with pytest.raises(ConfigError, match=rf"epochs: 3 -> {epochs}\n\(the {kind} schedule ends with the run"):
        resume(folder, replace(given, epochs=epochs))
    assert contents(folder) == before


def test_a_constant_schedule_may_go_on_longer_but_not_end_before_the_step_it_has_reached(tmp_path):
    given = with_schedule(classify(tmp_path, epochs=3), "constant")
    folder = took_steps(tmp_path / "run", given, 9)
    before = contents(folder)
    assert resume(folder, replace(given, epochs=5)) == {"epochs": [3, 5]}
    with pytest.raises(ConfigError, match=r"has taken 9 steps, 2 epochs end at 8: resume it with more epochs"):
        resume(folder, replace(given, epochs=2))
    assert contents(folder) == before, "nothing is written before everything is checked"


def test_a_run_that_cannot_go_on_is_left_as_it_was(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run/finished.json").unlink()
    before = contents(tmp_path / "run")
    with pytest.raises(ConfigError, match="was started with another configuration"):
        train(replace(CONFIG, learning_rate=0.1), tmp_path / "run", resume=True)
    for path in (tmp_path / "run/checkpoints").glob("*/model.safetensors"):
        path.write_bytes(b"")
    before = contents(tmp_path / "run")
    with pytest.raises(CheckpointError, match="no usable checkpoint"):
        train(replace(CONFIG, data=TinyData(num_workers=1)), tmp_path / "run", resume=True)
    assert contents(tmp_path / "run", "error.json") == before


def test_a_resume_records_what_changed_the_code_the_ranks_and_the_step(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    train(replace(CONFIG, log_every=2), tmp_path / "run", resume=True)
    (entry,) = json.loads((tmp_path / "run/environment.json").read_text())["resumes"]
    assert entry["changed"] == {"log_every": [3, 2]}
    assert (entry["step"], entry["world_size"], entry["suite_version"]) == (6, 1, "0.1.0")
    assert "git_commit" in entry
    train(replace(CONFIG, log_every=2), tmp_path / "run", resume=True)
    again = json.loads((tmp_path / "run/environment.json").read_text())
    assert len(again["resumes"]) == 1, "to look at a finished run is not to continue it"


def test_a_data_set_may_be_moved_if_it_is_the_same(tmp_path):
    from classification.train import train as train_classifier

    root = make_folder(tmp_path / "here", num_train=4, num_val=2)
    given = tiny_config(root, epochs=2)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(StopRequested):
        patch.setattr("engine.loop._log", lambda *_: (_ for _ in ()).throw(StopRequested("enough")))
        train_classifier(replace(given, checkpoint_every=1, log_every=2), tmp_path / "run")
    shutil.move(root, tmp_path / "there")
    moved = replace(given, checkpoint_every=1, log_every=2, data=replace(given.data, root=str(tmp_path / "there")))
    (tmp_path / "there/train/red/000.jpg").rename(tmp_path / "aside.jpg")
    before = contents(tmp_path / "run", "error.json")
    with pytest.raises(DataError, match="the data set has 11 files, the run started with 12"):
        train_classifier(moved, tmp_path / "run", resume=True)
    assert contents(tmp_path / "run", "error.json") == before
    (tmp_path / "aside.jpg").rename(tmp_path / "there/train/red/000.jpg")
    assert train_classifier(moved, tmp_path / "run", resume=True)
    (entry,) = json.loads((tmp_path / "run/environment.json").read_text())["resumes"]
    assert entry["changed"] == {"data.root": [str(root), str(tmp_path / "there")]}
    assert json.loads((tmp_path / "run/config.json").read_text())["config"]["data"]["root"] == str(tmp_path / "there")


@pytest.mark.parametrize("again", [False, True])
def test_a_run_that_failed_at_its_first_batch_begins_again_by_the_same_command(finished, tmp_path, monkeypatch, again):
    with monkeypatch.context() as patch, pytest.raises(DataError):
        patch.setattr(
            "tests.engine.tiny_task.TinyDataset.__getitem__", lambda *_: (_ for _ in ()).throw(DataError("x"))
        )
        train(CONFIG, tmp_path / "run")
    assert (tmp_path / "run/checkpoints/00000000").exists()
    storage.write_json(tmp_path / "run/data.json", {"train": {"num_images": 60, "digest": "of other files"}})
    (tmp_path / "run/notes.txt").write_text("mine")
    train(CONFIG, tmp_path / "run", resume=again)
    assert final_files(tmp_path / "run") == final_files(finished)
    assert not (tmp_path / "run/error.json").exists()
    assert (tmp_path / "run/notes.txt").read_text() == "mine"
    assert not (tmp_path / "run/data.json").exists(), "a data set of the run that never was"
    assert "resumes" not in json.loads((tmp_path / "run/environment.json").read_text())
    with pytest.raises(ConfigError, match="is not empty"):
        train(CONFIG, tmp_path / "run")


def test_another_configuration_may_begin_where_nothing_was_trained_and_not_be_resumed_there(tmp_path):
    prepare(tmp_path / "run", TinyConfig(steps=2), package="tiny", recipe="tiny")
    with pytest.raises(ConfigError, match="steps: 2 -> 3"):
        train(TinyConfig(steps=3), tmp_path / "run", resume=True)
    assert train(TinyConfig(steps=3), tmp_path / "run")


def test_a_run_that_diverged_at_once_is_not_repeated_and_a_lower_rate_may_begin_in_its_place(tmp_path):
    with pytest.raises(DivergedError):
        train(TinyConfig(steps=4, poison_step=1), tmp_path / "run")
    for again in (False, True):
        with pytest.raises(DivergedError, match="resuming would repeat it"):
            train(TinyConfig(steps=4, poison_step=1), tmp_path / "run", resume=again)
    assert train(TinyConfig(steps=4), tmp_path / "run")


def test_a_run_without_its_checkpoints_does_not_start_over(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints", "finished.json"))
    with pytest.raises(CheckpointError, match="has taken steps, but holds no checkpoint"):
        train(CONFIG, tmp_path / "run", resume=True)


DAMAGES = {"empty": b"", "half": b'{"a": ', "list": b"[]", "number": b"3", "bytes": b"\xff\x00", "deep": b"[" * 100_000}


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("name", ["finished.json", "environment.json", "error.json", "timing.jsonl"])
def test_garbage_in_a_file_that_a_run_can_do_without_does_not_stop_it(finished, tmp_path, name, how, caplog):
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run/finished.json").unlink()
    (tmp_path / "run" / name).write_bytes(DAMAGES[how])
    with caplog.at_level(logging.WARNING):
        train(CONFIG, tmp_path / "run", resume=True)
    assert final_files(tmp_path / "run") == final_files(finished)
    if name in ("finished.json", "environment.json"):
        assert f"{name} cannot be" in caplog.text


@pytest.mark.parametrize("how", DAMAGES)
def test_garbage_in_the_configuration_or_the_data_sets_name_is_named(finished, tmp_path, how):
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run/config.json").write_bytes(DAMAGES[how])
    with pytest.raises(ConfigError, match=r"config.json: not a"):
        train(CONFIG, tmp_path / "run", resume=True)
    shutil.copy(finished / "config.json", tmp_path / "run")
    (tmp_path / "run/data.json").write_bytes(DAMAGES[how])
    with (
        pytest.raises(CheckpointError, match=r"data.json does not say which data set"),
        open_run(tmp_path / "run", replace(CONFIG, log_every=2), package="tiny", recipe="tiny", resume=True) as run,
    ):
        run.pin_data("train", make_index(tmp_path))


def make_index(tmp_path):
    from engine.data.index import index_images

    return index_images(make_folder(tmp_path / "images", num_train=1, num_val=1), labelled=False)


def test_finished_json_knows_its_own_content_and_the_files_beside_it(tmp_path):
    import torch

    with open_run(tmp_path / "run", CONFIG, package="classification", recipe="demo") as run:
        write_weights(run.dir / "backbone.safetensors", {"conv.weight": torch.ones(4, 3, 3, 3)}, {"name": "x"})
        storage.write_json(run.dir / "classes.json", ["a", "b"])
        run.log("val", 6, 1.0, {"top1": 50.0})
        run.finish({"top1_last": 50.0}, num_train=8, num_val=2, num_classes=2)
    path = tmp_path / "run/finished.json"
    summary = json.loads(path.read_text())
    assert storage.is_sealed(summary)
    assert summary["files"] == {
        name: storage.sha256_of(tmp_path / "run" / name) for name in ("backbone.safetensors", "classes.json")
    }
    for change in ({"num_train": 1281167}, {"num_classes": 1000}, {"metrics": {"top1_last": 50.5}}, {"files": {}}):
        assert not storage.is_sealed({**summary, **change})
    path.write_text(json.dumps({**summary, "num_train": 1281167}))
    with open_run(tmp_path / "run", CONFIG, package="classification", recipe="demo", resume=True) as run:
        assert run.finished() is None
        path.write_text(json.dumps(summary))
        assert run.finished() == {"top1_last": 50.0}


def test_a_flipped_bit_in_the_weights_of_a_finished_run_is_noticed_by_those_who_start_from_it(tmp_path):
    import torch

    weights = {"conv1.weight": torch.ones(4, 3, 3, 3)}
    with open_run(tmp_path / "run", CONFIG, package="pretrain", recipe="demo") as run:
        write_weights(run.dir / "backbone.safetensors", weights, {"name": "x"})
        run.finish({"loss": 1.0})
    path = tmp_path / "run/backbone.safetensors"
    assert torch.equal(open_weights(tmp_path / "run").state["conv1.weight"], weights["conv1.weight"])
    good = path.read_bytes()
    for place in range(1, 40, 7):
        damaged = bytearray(good)
        damaged[-place] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(WeightsFileError, match=r"backbone.safetensors is not the file that was written"):
            open_weights(tmp_path / "run")
    path.write_bytes(good)
    (tmp_path / "run/finished.json").write_text("{")
    with pytest.raises(WeightsFileError, match=r"finished.json cannot be read"):
        open_weights(tmp_path / "run")


def test_settings_that_may_change_are_settings_of_some_task():
    from classification.recipes import RECIPES as CLASSIFICATION
    from detection.recipes import RECIPES as DETECTION
    from pretrain.recipes import RECIPES as PRETRAINING

    recipes = (CLASSIFICATION["demo"], DETECTION["demo"], PRETRAINING["demo"])
    known = {name for recipe in recipes for name in config.flatten(config.to_dict(recipe()))}
    assert known >= claim.FREE_TO_CHANGE | claim.LENGTHS
