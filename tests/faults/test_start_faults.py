"""F01-F06: a run that cannot start says why, exits 2 and creates nothing."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from detection.recipes import RECIPES as DETECTION
from engine import cli, config
from engine.errors import ConfigError, DataError
from engine.run.open import open_run, prepare
from pretrain.recipes import RECIPES as PRETRAINING
from tests.engine.tiny_task import TinyConfig, TinyData, train
from tests.forked import run_module

TASK = "tests.engine.tiny_task"


def test_a_misspelt_option_is_refused_with_the_nearest_one(tmp_path):
    for misspelt, meant in (
        ("--learning-rat", "--learning-rate"),
        ("--opt.lrr", "--learning-rate"),
        ("--workers=3", "--data.num-workers"),
    ):
        done = run_module(TASK, "tiny", "--run-dir", tmp_path / "run", misspelt, "1")
        assert done.returncode == 2
        assert done.stderr.startswith(f"error: there is no option {misspelt.partition('=')[0]}; nearest: {meant}")
    assert not (tmp_path / "run").exists()


def test_an_option_without_a_value_is_true_where_it_can_be_and_an_empty_list_where_it_is_a_list():
    switch = cli.parse("pretrain", PRETRAINING, ["demo", "--run-dir", "x", "--compile"])
    assert switch.config.compile is True
    arguments = ["mask-rcnn-fpn-1x", "--run_dir", "x", "--schedule.kind", "cosine", "--schedule.milestones", "--resume"]
    command = cli.parse("detection", DETECTION, arguments)
    assert (command.config.schedule.milestones, command.resume) == ((), True)
    done = run_module(TASK, "tiny", "--run-dir", "x", "--steps", "--seed", "1")
    assert done.returncode == 2
    assert "Missing value for argument '--steps'" in done.stderr


def test_an_unknown_recipe_is_refused_with_the_nearest_one(tmp_path):
    done = run_module(TASK, "tinny", "--run-dir", tmp_path / "run")
    assert done.returncode == 2
    assert done.stderr.startswith("error: tiny has no recipe 'tinny'; nearest: tiny")
    assert not (tmp_path / "run").exists()


def test_a_recipe_parameter_becomes_a_flag_and_other_fields_stay_flags(tmp_path):
    done = run_module(TASK, "tiny", "--style", "short", "--run-dir", tmp_path / "run", "--seed", "5")
    assert done.returncode == 0, done.stderr
    stored = json.loads((tmp_path / "run/config.json").read_text())
    assert stored["config"]["steps"] == 6
    assert stored["config"]["seed"] == 5
    assert json.loads(done.stdout)["accuracy"] >= 0


def test_the_config_file_of_a_run_runs_it_again_to_the_same_bytes(tmp_path):
    train(TinyConfig(steps=5), tmp_path / "one")
    done = run_module(TASK, tmp_path / "one/config.json", "--run-dir", tmp_path / "two")
    assert done.returncode == 0, done.stderr
    for name in ("metrics.jsonl", "checkpoints/00000005/model.safetensors", "checkpoints/00000005/optimizer.pt"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_all_problems_are_listed_at_once(tmp_path):
    with pytest.raises(ConfigError) as caught:
        train(TinyConfig(learning_rate=-1.0, steps=0), tmp_path / "run")
    assert "2 problems" in str(caught.value)
    assert "learning_rate -1.0: must be above 0" in str(caught.value)
    assert "steps 0" in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_folder_that_is_not_empty_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="is not empty: use --resume to continue it or choose another folder"):
        train(TinyConfig(steps=2), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]
    with pytest.raises(ConfigError, match="holds no run to resume"):
        train(TinyConfig(steps=2), tmp_path, resume=True)


def test_a_folder_whose_run_never_started_may_be_used_again(tmp_path):
    with pytest.raises(DataError, match="48 images, fewer than one batch of 64: use --batch-size 48 or less"):
        train(TinyConfig(batch_size=64, steps=2), tmp_path / "run")
    assert json.loads((tmp_path / "run/error.json").read_text())["exit_code"] == 3
    train(TinyConfig(steps=2), tmp_path / "run")
    assert not (tmp_path / "run/error.json").exists()
    with pytest.raises(ConfigError, match="is not empty"):
        train(TinyConfig(steps=2), tmp_path / "run")


def test_a_run_may_be_prepared_in_folders_that_do_not_exist_yet(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    prepare(Path("some/where/run"), TinyConfig(steps=2), package="tiny", recipe="tiny")
    assert train(TinyConfig(steps=2), Path("some/where/run"), resume=True)


def test_a_run_keeps_the_recipe_name_it_was_prepared_under(tmp_path):
    prepare(tmp_path / "run", TinyConfig(steps=2), package="tiny", recipe="also-tiny")
    train(TinyConfig(steps=2), tmp_path / "run", resume=True)
    written = [json.loads((tmp_path / "run" / name).read_text()) for name in ("config.json", "finished.json")]
    assert [found["recipe"] for found in written] == ["also-tiny", "also-tiny"]


def test_a_run_in_use_is_refused_and_a_dead_owner_replaced(tmp_path):
    folder = tmp_path / "run"
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        train(TinyConfig(steps=2), folder)
        (folder / "finished.json").unlink()
        lock = {
            "host": platform.node(),
            "pid": sleeper.pid,
            "process_start": None,
            "started": "then",
            "slurm_job": None,
        }
        (folder / "run.lock").write_text(json.dumps(lock))
        with pytest.raises(ConfigError, match=f"in use by process {sleeper.pid} on {platform.node()} since then"):
            train(TinyConfig(steps=2), folder, resume=True)
    finally:
        sleeper.kill()
        sleeper.wait()
    train(TinyConfig(steps=2), folder, resume=True)
    assert not (folder / "run.lock").exists()


def test_a_lock_of_the_same_slurm_job_on_a_lost_node_is_taken_over(tmp_path, monkeypatch):
    folder = tmp_path / "run"
    train(TinyConfig(steps=2), folder)
    lock = {"host": "node-that-died", "pid": 1, "process_start": "1", "started": "then", "slurm_job": "77"}
    (folder / "run.lock").write_text(json.dumps(lock))
    with pytest.raises(ConfigError, match="node-that-died"):
        train(TinyConfig(steps=2), folder, resume=True)
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    assert train(TinyConfig(steps=2), folder, resume=True)


def test_resume_with_another_configuration_lists_the_differences(tmp_path):
    train(TinyConfig(steps=4), tmp_path / "run")
    with pytest.raises(ConfigError, match=r"learning_rate: 0.05 -> 0.1"):
        train(TinyConfig(steps=4, learning_rate=0.1), tmp_path / "run", resume=True)


def test_the_worker_count_may_change_and_the_change_is_recorded(tmp_path):
    train(TinyConfig(steps=4), tmp_path / "run")
    train(TinyConfig(steps=4, data=TinyData(num_workers=1)), tmp_path / "run", resume=True)
    record = json.loads((tmp_path / "run/environment.json").read_text())
    assert record["resumes"][0]["changed"] == {"data.num_workers": [0, 1]}


def test_ranks_that_disagree_all_exit_2_with_both_values(tmp_path):
    script = (
        "import os, sys; from pathlib import Path; from engine import cli; from tests.engine.tiny_task import *\n"
        f"with cli.guard(): train(TinyConfig(), Path({str(tmp_path)!r}) / os.environ['RANK'])"
    )
    env = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29731", "PYTHONPATH": "."}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", script],
            env={**env, "RANK": str(r), "LOCAL_RANK": str(r)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for r in range(2)
    ]
    for process in ranks:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 2
        assert f"the ranks disagree on the run folder: {tmp_path}/0 and {tmp_path}/1" in errors


def test_an_unavailable_device_says_what_is_available(tmp_path, monkeypatch):
    import torch

    if torch.cuda.is_available():
        monkeypatch.setenv("MIM_DEVICE", "tpu")
    else:
        monkeypatch.setenv("MIM_DEVICE", "cuda")
    with (
        pytest.raises(ConfigError, match="this machine offers cpu"),
        open_run(tmp_path / "r", TinyConfig(), package="tiny", recipe="tiny"),
    ):
        pass


def test_configurations_survive_json_and_refuse_unknown_keys_and_wrong_types():
    values = config.to_dict(TinyConfig(data=TinyData(num_workers=3)))
    assert config.from_dict(TinyConfig, values) == TinyConfig(data=TinyData(num_workers=3))
    whole, fraction = TinyConfig(learning_rate=1), TinyConfig(learning_rate=1.0)  # type: ignore[arg-type]
    assert config.config_hash(config.to_dict(whole)) == config.config_hash(config.to_dict(fraction))
    with pytest.raises(ConfigError, match="stepz"):
        config.from_dict(TinyConfig, {**values, "stepz": 1})
    with pytest.raises(ConfigError, match="seed"):
        config.from_dict(TinyConfig, {**values, "seed": "one"})


def test_batches_that_do_not_divide_by_the_ranks_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="batch_size 8 does not divide into 1 ranks x 3 accumulation steps"):
        train(TinyConfig(accumulation=3), tmp_path / "run")


def test_two_ranks_run_and_only_the_main_one_writes(tmp_path):
    done = run_module(TASK, "tiny", "--style", "short", "--run-dir", tmp_path / "run", ranks=2)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [3, 5, 6, 6]
    assert json.loads((tmp_path / "run/environment.json").read_text())["world_size"] == 2


@pytest.mark.parametrize("sides", [["224", "160"], ["224x160"], ["224,160"]], ids="".join)
def test_a_crop_that_is_not_square_is_refused_as_that(sides):
    shared = ["demo", "--run-dir", "x", "--data.root", "y", "--seed", "1", "--image-size"]
    with pytest.raises(ConfigError, match="crops are square; give one side in pixels"):
        cli.parse("pretrain", PRETRAINING, [*shared, *sides])
    assert cli.parse("pretrain", PRETRAINING, [*shared, "96"]).config.image_size == 96
