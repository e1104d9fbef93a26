"""Which runs reach the rows, what is known of them, and why the others are left out (F55, F56, F58)."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

import classification.train
import pretrain.train
from benchmarks.plan import Request, make_stages
from engine.config import config_hash
from engine.errors import ConfigError, DataError
from engine.run.open import open_run, prepare
from results.runs.collect import collect
from tests.classification.folders import make_folder
from tests.results.runs import Tuning, edit, pretrained, seal, tuned


def reasons(root):
    rows, rejected = collect([root])
    return len(rows), {run.run_dir.name: run.reason for run in rejected}


def test_a_run_gives_one_row_per_metric_with_what_it_was(tmp_path):
    tuned(tmp_path / "runs" / "a", metrics={"top1": 61.5, "top5": 90.0}, seed=4)
    rows, rejected = collect([tmp_path])
    assert not rejected
    assert list(zip(rows["metric"], rows["value"], strict=True)) == [("top1_last", 61.5), ("top5_last", 90.0)]
    row = rows.iloc[0]
    assert (row.task, row.model, row.recipe, row.method, row.seed) == ("classification", "r50", "demo", "scratch", 4)
    assert (row.seconds, row.images_per_second, row.unreadable) == (1800.0, 40.0, 0)
    assert row.variant == row.pretrain_variant == ""


def test_the_method_and_its_cost_come_from_the_run_it_started_from(tmp_path):
    start = pretrained(tmp_path / "pre", seed=7)
    tuned(tmp_path / "fine", init=str(start))
    rows, _ = collect([tmp_path / "fine"])
    row = rows.iloc[0]
    assert (row.method, row.pretrain_recipe, row.pretrain_epochs, row.pretrain_seed) == (
        "a2mim", "a2mim-r50-300e", 300, 7,
    )  # fmt: skip
    assert (row.seconds, row.pretrain_seconds, row.unreadable) == (1800.0, 1800.0, 2)


@pytest.mark.parametrize("tuned_in", ["a", "b"])
def test_runs_moved_together_still_find_each_other(tmp_path, tuned_in):
    tuned(tmp_path / "old" / tuned_in / "fine", init=str(pretrained(tmp_path / "old" / "a" / "pre")))
    (tmp_path / "old").rename(tmp_path / "new")
    rows, rejected = collect([tmp_path / "new" / tuned_in])
    assert not rejected
    found = rows[rows["task"] == "classification"].iloc[0]
    assert (found["method"], found["pretrain_epochs"], found["pretrain_seconds"]) == ("a2mim", 300, 1800)


def test_a_run_of_the_same_name_where_the_command_is_given_is_not_taken_for_the_start(tmp_path, monkeypatch):
    for place, ratio in (("mine", 0.6), ("copied", 0.75)):
        (tmp_path / place).mkdir()
        monkeypatch.chdir(tmp_path / place)
        tuned(Path("runs/fine"), init=str(pretrained(Path("runs/pre"), mask_ratio=ratio)))
    monkeypatch.chdir(tmp_path / "mine")
    rows, rejected = collect([tmp_path / "copied"])
    assert not rejected
    assert set(rows["method"]) == {"a2mim"}


def test_descriptions_edited_into_nonsense_do_not_stop_the_others(tmp_path):
    for name in ("good", "effective", "seconds"):
        tuned(tmp_path / name, seed=len(name))
    edit(tmp_path / "effective" / "environment.json", effective=[1], world_size=None, device=None)
    edit(tmp_path / "seconds" / "finished.json", seconds="long")
    assert reasons(tmp_path) == (2, {"seconds": "finished.json: seconds is 'long', not a finite number from 0 on"})


@pytest.mark.parametrize("task", ["detection", "segmentation"])
def test_other_tasks_join_with_their_own_metrics(tmp_path, task):
    tuned(tmp_path / "c", metrics={"top1": 60.0})
    tuned(tmp_path / "x", task=task, metrics={"box_AP": 12.5, "mask_AP": 0.0})
    rows, rejected = collect([tmp_path])
    assert not rejected
    assert set(rows[rows["task"] == task]["metric"]) == {"box_AP_last", "mask_AP_last"}


def test_a_run_after_a_classification_run_says_so(tmp_path):
    supervised = tuned(tmp_path / "supervised")
    tuned(tmp_path / "detector", task="detection", metrics={"box_AP": 20.0}, init=str(supervised))
    rows, _ = collect([tmp_path])
    assert set(rows[rows["task"] == "detection"]["method"]) == {"scratch+classification"}


def test_real_runs_of_a_benchmark_are_collected(tmp_path):
    scenes = make_folder(tmp_path / "scenes")
    request = Request(
        model="test_resnet", methods=("scratch", "simmim"), runs_dir=tmp_path, data={"classification": scenes}
    )
    for stage in make_stages(request):
        small = dataclasses.replace(
            stage.config,
            epochs=1,
            batch_size=8,
            image_size=64,
            schedule=dataclasses.replace(stage.config.schedule, warmup_epochs=0),
            data=dataclasses.replace(stage.config.data, num_workers=0),
        )
        train = {"pretrain": pretrain.train.train, "classification": classification.train.train}[stage.package]
        train(small, stage.folder(tmp_path), recipe=stage.recipe)
    rows, rejected = collect([tmp_path])
    assert not rejected
    accuracies = rows[rows["metric"] == "top1_last"].set_index("method")
    assert sorted(accuracies.index) == ["scratch", "simmim"]
    assert accuracies.loc["simmim", "pretrain_epochs"] == 1
    assert accuracies["variant"].tolist() == ["", ""]
    assert accuracies["data"].nunique() == 1


def test_unfinished_failed_and_prepared_runs_are_left_out_with_the_reason(tmp_path):
    (tuned(tmp_path / "unfinished") / "finished.json").unlink()
    with pytest.raises(DataError), open_run(tmp_path / "failed", Tuning(), package="classification", recipe="demo"):
        raise DataError("train/a/1.jpg: not a JPEG")
    prepare(tmp_path / "prepared", Tuning(), package="classification", recipe="demo")
    assert reasons(tmp_path) == (
        0,
        {
            "unfinished": "not finished",
            "failed": "not finished: train/a/1.jpg: not a JPEG",
            "prepared": "not finished",
        },
    )


def test_edited_runs_are_left_out_with_the_reason(tmp_path):
    edit(tuned(tmp_path / "config") / "config.json", config={"epochs": 100})
    edit(tuned(tmp_path / "hash", seed=1) / "finished.json", config_hash="0" * 64)
    edit(tuned(tmp_path / "accuracy", seed=2) / "finished.json", metrics={"top1_last": 99.0})
    edit(tuned(tmp_path / "extra", seed=3) / "finished.json", metrics={"top1_last": 60.0, "invented": 60.0})
    (tuned(tmp_path / "broken", seed=4) / "finished.json").write_text("{")
    (tuned(tmp_path / "unlogged", seed=5) / "metrics.jsonl").unlink()
    count, found = reasons(tmp_path)
    assert count == 0
    assert "another configuration" in found["config"]
    assert "another configuration" in found["hash"]
    assert "top1_last 99.0 was never measured" in found["accuracy"]
    assert "invented 60.0 was never measured" in found["extra"]
    assert "finished.json cannot be read" in found["broken"]
    assert "metrics.jsonl cannot be read" in found["unlogged"]


def test_a_run_whose_pre_training_is_missing_unfinished_or_another_one_is_left_out(tmp_path):
    for name in ("unfinished", "replaced"):
        tuned(tmp_path / f"from-{name}", init=str(pretrained(tmp_path / name, seed=len(name))))
    (tmp_path / "unfinished" / "finished.json").unlink()
    shutil.rmtree(tmp_path / "replaced")
    pretrained(tmp_path / "replaced", mask_ratio=0.9)
    missing = tuned(tmp_path / "from-missing", init=str(pretrained(tmp_path / "missing")))
    shutil.rmtree(tmp_path / "missing")
    (missing / "initialisation.json").unlink()
    seal(missing)
    _, found = reasons(tmp_path)
    assert "cannot be used: not finished" in found["from-unfinished"]
    assert "is not the run it started from" in found["from-replaced"]
    assert "is not here, so its method is not known" in found["from-missing"]


def test_foreign_weights_are_named_after_their_file_not_called_scratch(tmp_path):
    run_dir = tuned(tmp_path / "a")
    stored = json.loads((run_dir / "config.json").read_text())
    stored["config"]["init"] = "weights/dino.safetensors"
    (run_dir / "config.json").write_text(json.dumps(stored))
    edit(run_dir / "finished.json", config_hash=config_hash(stored["config"]))
    edit(run_dir / "initialisation.json", source="dino.safetensors", description={})
    rows, _ = collect([tmp_path])
    assert rows["method"].tolist() == ["file dino.safetensors"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"step": 11, "epoch": 3.1, "split": "val", "top1": NaN}', "metrics.jsonl line 4: top1 is nan"),
        ('{"step": 11, "epoch": 3.1, "split": "val", "top1": null}', "metrics.jsonl line 4: top1 is None"),
        ('{"step": 11, "epoch": 3.1, "split": "val", "top1": 100.5}', "metrics.jsonl line 4: top1 is 100.5, outside"),
        ('{"step": 11, "epoch": 3.1, "split": "val", "top1": "60"}', "metrics.jsonl line 4: top1 is 60, not"),
        ('{"step": 11, "spl', "metrics.jsonl line 4 is not"),
        ('{"step": 11, "split": {"a": 1}}', "metrics.jsonl line 4: split is {'a': 1}, not a name"),
        ('{"step": "11", "split": "val"}', "metrics.jsonl line 4: step is '11', not a whole number"),
    ],
)
def test_impossible_measurements_are_rejected_with_file_and_line(tmp_path, line, reason):
    with (tuned(tmp_path / "a") / "metrics.jsonl").open("a") as file:
        file.write(line + "\n")
    count, found = reasons(tmp_path)
    assert count == 0
    assert found["a"].startswith(reason)


def test_a_copied_run_is_counted_once(tmp_path):
    shutil.copytree(tuned(tmp_path / "a"), tmp_path / "b")
    count, found = reasons(tmp_path)
    assert count == 1
    assert found == {"b": f"the same run as {tmp_path / 'a'}, counted once"}


def test_the_same_settings_and_seed_with_other_results_are_an_error(tmp_path):
    tuned(tmp_path / "a", metrics={"top1": 60.0})
    tuned(tmp_path / "b", metrics={"top1": 61.0}, data=dataclasses.replace(Tuning().data, num_workers=4))
    with pytest.raises(ConfigError, match=r"a and .*b have the same settings and seed"):
        collect([tmp_path])


def test_a_folder_given_twice_or_with_its_parent_counts_once(tmp_path):
    run_dir = tuned(tmp_path / "a")
    rows, rejected = collect([run_dir, tmp_path, run_dir])
    assert (len(rows), rejected) == (1, [])


def test_runs_with_other_settings_are_told_apart_by_them(tmp_path):
    tuned(tmp_path / "a")
    tuned(tmp_path / "b", epochs=6, learning_rate=0.2)
    rows, _ = collect([tmp_path])
    assert sorted(rows["variant"]) == ["epochs=3 learning_rate=0.1", "epochs=6 learning_rate=0.2"]


def test_settings_that_an_older_version_did_not_have_are_one_word(tmp_path):
    tuned(tmp_path / "new")
    edit_config(tuned(tmp_path / "newer", seed=1), exif="apply", max_pixels=9, exclude="")
    rows, _ = collect([tmp_path])
    assert list(rows["variant"]) == ["(older: without exif and 2 more)", ""], "and are never averaged"


@pytest.mark.parametrize(("share", "told"), [(1, ""), (0.5, "schedule.warmup_epochs=1.0 evaluate_every=4")])
def test_what_is_the_same_share_of_every_length_is_no_other_setting(tmp_path, share, told):
    for epochs, part in ((2, 1), (8, share)):
        counted = {"schedule": {"warmup_epochs": epochs * part / 4}, "evaluate_every": int(epochs * part)}
        edit_config(start := pretrained(tmp_path / f"pre{epochs}", epochs=epochs), **counted)
        edit_config(tuned(tmp_path / f"fine{epochs}", init=str(start), epochs=epochs), **counted)
    rows, rejected = collect([tmp_path])
    assert not rejected
    long = rows[(rows["task"] == "classification") & (rows["epochs"] == 8)].iloc[0]
    assert long["pretrain_epochs"] == 8 and long["pretrain_variant"] == told
    assert long["variant"] == f"epochs=8 {told}".strip()


def test_pre_training_with_other_settings_is_told_apart_too(tmp_path):
    for ratio in (0.6, 0.75):
        start = pretrained(tmp_path / f"pre{ratio}", mask_ratio=ratio)
        tuned(tmp_path / f"fine{ratio}", init=str(start))
    rows, _ = collect([tmp_path])
    fine = rows[rows["task"] == "classification"]
    assert sorted(fine["pretrain_variant"]) == ["mask_ratio=0.6", "mask_ratio=0.75"]
    assert set(fine["variant"]) == {""}


def test_the_same_images_in_another_folder_are_the_same_data(tmp_path):
    for name, colour in (("here", "red"), ("there", "red"), ("other", "blue")):
        (tmp_path / name).mkdir()
        size = (16, 16) if colour == "red" else (64, 64)
        Image.new("RGB", size, colour).save(tmp_path / name / "1.jpg")
    for seed, name in enumerate(("here", "there", "other")):
        tuned(tmp_path / f"run{seed}", images=tmp_path / name, seed=seed)
    rows, _ = collect([tmp_path])
    data = dict(zip(rows["seed"], rows["data"], strict=True))
    assert data[0] == data[1] != data[2]


def test_a_folder_that_does_not_exist_is_an_error(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        collect([tmp_path / "nothing"])


def test_no_runs_give_no_rows(tmp_path):
    rows, rejected = collect([tmp_path])
    assert (len(rows), rejected) == (0, [])
    assert "metric" in rows.columns


def edit_config(run_dir, **settings):
    """Settings changed by hand together with the hash that is to show it."""
    stored = json.loads((run_dir / "config.json").read_text())
    stored["config"] |= settings
    (run_dir / "config.json").write_text(json.dumps(stored))
    edit(run_dir / "finished.json", config_hash=config_hash(stored["config"]))


def test_nothing_in_one_folder_keeps_the_others_out(tmp_path):
    tuned(tmp_path / "good", seed=99)
    for seed, (name, settings) in enumerate(
        {"model": {"model": {"a": 1}}, "data": {"data": "x"}, "seed": {"seed": [1]}, "epochs": {"epochs": "3"}}.items()
    ):
        edit_config(tuned(tmp_path / name, seed=seed), **settings)
    for seed, (name, summary) in enumerate(
        {"skipped": {"unreadable": float("inf")}, "count": {"num_train": [1]}, "hours": {"seconds": float("nan")},
         "rate": {"images_per_second": -1.0}, "task": {"task": "detection"},
         "recipe": {"recipe": "rsb-a1"}}.items(), start=10
    ):  # fmt: skip
        edit(tuned(tmp_path / name, seed=seed) / "finished.json", **summary)
    (tuned(tmp_path / "nested", seed=20) / "finished.json").write_text("[" * 100_000)
    with (tuned(tmp_path / "huge", seed=21) / "metrics.jsonl").open("a") as file:
        file.write('{"step": 11, "split": "val", "top1": ' + "9" * 400 + "}\n")
    (tuned(tmp_path / "bare", seed=22) / "config.json").unlink()
    edit(tuned(tmp_path / "odd", seed=23) / "environment.json", device=["a"], git_commit={}, world_size="two")
    count, found = reasons(tmp_path)
    assert count == 2
    assert found.keys() == {"model", "data", "seed", "epochs", "skipped", "count", "hours", "rate", "task", "recipe",
                            "nested", "huge", "bare"}  # fmt: skip
    assert found["model"] == "config.json: model is {'a': 1}, which is no str"
    assert found["hours"] == "finished.json: seconds is nan, not a finite number from 0 on"
    assert found["task"] == "config.json says task classification, finished.json detection"
    assert found["recipe"].endswith("finished.json rsb-a1")
    assert found["bare"].startswith("config.json cannot be read")


def test_a_run_named_like_the_weights_it_started_from_is_not_its_own_start(tmp_path):
    start = pretrained(tmp_path / "elsewhere" / "r50")
    run_dir = tuned(tmp_path / "runs" / "r50", init=str(start))
    edit(run_dir / "initialisation.json", description={"method": "a2mim", "epochs": 300, "config_hash": "f" * 64})
    shutil.rmtree(start)
    rows, rejected = collect([tmp_path / "runs"])
    assert not rejected
    assert set(rows["method"]) == {"a2mim"}


def test_foreign_weights_are_not_taken_for_the_run_of_the_same_name(tmp_path):
    run_dir = tuned(tmp_path / "runs" / "fine", init=str(pretrained(tmp_path / "runs" / "dino")))
    edit_config(run_dir, init="/weights/dino")
    edit(run_dir / "initialisation.json", description={})
    rows, _ = collect([run_dir])
    assert set(rows["method"]) == {"file dino"}


def test_runs_that_start_from_each_other_are_left_out(tmp_path):
    for name, other in (("a", "b"), ("b", "a")):
        edit_config(tuned(tmp_path / name), init=other)
    count, found = reasons(tmp_path)
    assert count == 0
    assert found.keys() == {"a", "b"}
    assert all(reason.endswith("it is the start of a run that it started from") for reason in found.values())
