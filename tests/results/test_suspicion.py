"""What a run folder says is believed only where its files agree; whatever is in one, the others are read."""

import json
import os
import re
import warnings

import pandas as pd
import pytest

from results.runs.collect import collect
from results.runs.facts import read_facts
from results.tables.files import write_tables
from tests.helpers import ROOT
from tests.results.copies import FIXTURE, copy_run
from tests.results.runs import IMAGENET, edit, pin, pretrained, seal, tuned
from tests.results.written import figures_of, page_of

TUNED, DETECTOR = "demo-test_resnet-scratch-classification-s0", "demo-test_resnet-scratch-detection-s0"


def reason(run, others=0):
    """Why the only run that is not good was left out; "" if it was not."""
    rows, rejected = collect([run.parent])
    assert rows["run"].nunique() == others + (not rejected)
    return rejected[0].reason if rejected else ""


def lines_of(run):
    return (run / "metrics.jsonl").read_bytes().splitlines(keepends=True)


@pytest.mark.parametrize(
    ("keep", "expected"),
    [
        (lambda lines: [*lines[:-1], lines[-1][:-9]], "metrics.jsonl ends inside line 12"),
        (lambda lines: [*lines[:-1], lines[-1].rstrip()], "metrics.jsonl ends inside line 12"),
        (lambda lines: lines[:-1], "lacks the evaluation of step 16"),
        (lambda lines: lines[:-4], "metrics.jsonl ends at step 12 of 16"),
        (lambda lines: lines[:5] + lines[6:], "lacks the evaluation of step 8"),
        (lambda lines: [], "metrics.jsonl ends at step 0 of 16"),
        (lambda lines: [lines[1], lines[0], *lines[2:]], "step 2 comes after step 4"),
        (lambda lines: [*lines, lines[-1]], "a second val line of step 16"),
    ],
)
def test_a_file_of_metrics_that_is_torn_short_or_mixed_up_leaves_its_run_out(tmp_path, keep, expected):
    run = copy_run(TUNED, tmp_path / "run")
    (run / "metrics.jsonl").write_bytes(b"".join(keep(lines_of(run))))
    assert expected in reason(run)


def test_the_last_number_is_that_of_the_last_evaluation_and_the_best_is_the_best(tmp_path):
    run = copy_run(TUNED, tmp_path / "run")
    values = [json.loads(line)["top1"] for line in lines_of(run) if b"val" in line]
    metrics = json.loads((run / "finished.json").read_text())["metrics"]
    other = next(value for value in values if value != values[-1])
    edit(run / "finished.json", metrics=metrics | {"top1_last": other})
    assert reason(run) == f"finished.json: top1_last is {other}, by metrics.jsonl it is {values[-1]}"
    edit(run / "finished.json", metrics=metrics | {"top1_best_last10": min(values)})
    assert reason(run).startswith("finished.json: top1_best_last10 is")


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"epochs": [2, 4]}, "its settings were changed when it was continued: epochs 2 -> 4"),
        ({"iterations": [10, 20], "data.num_workers": [0, 4]}, "continued: iterations 10 -> 20"),
        ({"data.num_workers": [0, 4], "log_every": [1, 2]}, ""),
        ("everything", "changed is no object"),
    ],
)
def test_a_run_whose_settings_changed_on_the_way_is_left_out(tmp_path, changed, expected):
    run = copy_run(TUNED, tmp_path / "run")
    stored = json.loads((run / "environment.json").read_text())
    again = {name: stored[name] for name in ("git_commit", "suite_version", "world_size")}
    edit(run / "environment.json", resumes=[{**again, "changed": {}}, {**again, "changed": changed}])
    found = reason(run)
    assert expected in found
    assert bool(expected) == bool(found)


def test_other_code_or_ranks_on_the_way_are_told_with_every_number_of_the_run_and_of_what_starts_from_it(tmp_path):
    start = pretrained(tmp_path / "pre")
    edit(start / "environment.json", git_commit="a" * 40, resumes=[{"git_commit": "b" * 40, "changed": {}}])
    tuned(tmp_path / "after", init=str(start))
    tuned(tmp_path / "clean", seed=1)
    ranks = tuned(tmp_path / "ranks", seed=2)
    edit(ranks / "environment.json", world_size=1, resumes=[{"world_size": 8}, {"world_size": 8}])
    rows, rejected = collect([tmp_path])
    told = {row.run.rpartition("/")[2]: row.remark for row in rows.itertuples()}
    changed = "changed when it was continued: "
    assert told["clean"] == ""
    assert told["pre"] == f"{changed}code aaaaaaaaaa -> bbbbbbbbbb"
    assert told["after"] == f"its start: {told['pre']}"
    assert told["ranks"] == f"{changed}number of ranks 1 -> 8"
    assert not rejected
    page = page_of(tmp_path, tmp_path / "report.html").read_text()
    assert "! a run of these is a mixture: changed when it was continued: number of ranks 1 -&gt; 8" in page
    edit(ranks / "environment.json", resumes="twice")
    assert "resumes is no list" in collect([ranks])[1][0].reason


@pytest.mark.parametrize(
    ("name", "facts", "expected"),
    [
        (
            TUNED,
            {"num_train": 1281167, "num_val": 50000, "num_classes": 1000},
            "num_train is 1281167, data.json has 64",
        ),
        (TUNED, {"num_val": 50000}, "num_val is 50000, data.json has 40 images"),
        (TUNED, {"num_classes": 1000}, "num_classes is 1000, classes.json has 10"),
        (DETECTOR, {"num_train": 117266, "num_val": 5000}, "num_train is 117266, data.json has 65"),
        (DETECTOR, {"num_val": 5000}, "num_val is 5000, data.json has 41 images"),
        ("demo-test_resnet-a2mim-pretrain-s0", {"num_images": 1281167}, "num_images is 1281167, data.json has 64"),
    ],
)
def test_a_data_set_that_the_other_files_do_not_have_is_none(tmp_path, name, facts, expected):
    run = copy_run(name, tmp_path / "run")
    edit(run / "finished.json", **facts)
    assert expected in reason(run)


def test_a_finished_run_with_hashes_is_left_out_once_anything_they_cover_is_another(tmp_path):
    run = copy_run(TUNED, tmp_path / "run")
    path = run / "finished.json"
    edit(path, files={"data.json": "", "x.safetensors": ""}, sha256="")
    assert reason(run) == ""
    (run / "data.json").write_text((run / "data.json").read_text() + " ")
    assert reason(run) == "data.json was changed after the run: finished.json knows another sha256"
    seal(run)
    path.write_text(json.dumps({**json.loads(path.read_text()), "seconds": 1.0}))
    assert reason(run) == "finished.json was changed after the run: its sha256 is another one"
    values = json.loads(path.read_text())
    path.write_text(json.dumps({name: values[name] for name in values if name != "sha256"}))
    assert reason(run).startswith("finished.json was changed"), "nor without the hash"


def test_annotations_are_a_part_of_the_data(tmp_path):
    keys = []
    for seed, digest in enumerate(("first", "corrected", "first")):
        run = copy_run(DETECTOR, tmp_path / f"run{seed}", seed=seed)
        images = {name: {"num_images": count, "digest": "x"} for name, count in (("train", 64), ("val", 40))}
        pinned = {f"{name} images": entry for name, entry in images.items()}
        (run / "data.json").write_text(json.dumps({**pinned, "annotations": {"train": digest, "val": "same"}}))
        (key,) = set(collect([run])[0]["data"])
        keys.append(key)
    assert keys[0] == keys[2] != keys[1]
    edit(run / "finished.json", num_train=117266)
    assert collect([run])[1][0].reason == "finished.json: num_train is 117266, data.json has 64 images"


def test_a_data_set_of_which_no_other_file_tells_gets_no_published_name(tmp_path):
    run = tuned(tmp_path / "run", counts=IMAGENET)
    assert set(collect([run])[0]["dataset"]) == {"ImageNet-1K"}
    (run / "data.json").unlink()
    seal(run)
    assert set(collect([run])[0]["dataset"]) == {"1281167 + 50000 images"}
    pin(run, **IMAGENET)
    (run / "classes.json").unlink()
    seal(run)
    assert set(collect([run])[0]["dataset"]) == {"1281167 + 50000 images"}


GARBAGE = {
    "empty": b"",
    "bytes": b"\xff\xfe\x00\x01",
    "half": b'{"package": "classif',
    "list": b"[1, 2]",
    "nothing": b"null",
    "number": b"3",
    "deep": b"[" * 100_000,
    "deep object": b'{"a":' * 200 + b"1" + b"}" * 200,
    "surrogate": b'{"package": "\\ud800"}',
    "integer": b'{"num_train": 1' + b"0" * 5000 + b"}",
    "none of its keys": b"{}",
    "other kinds": b'{"package": 1, "recipe": [], "config": [["a", 1]], "metrics": 3, "resumes": 7, "train": 1}',
}
FILES = ("config.json", "environment.json", "data.json", "classes.json", "metrics.jsonl", "finished.json",
         "initialisation.json", "error.json", "timing.jsonl")  # fmt: skip


def test_no_garbage_in_any_file_of_a_folder_keeps_the_others_out_or_ends_a_command(tmp_path):
    runs = tmp_path / "runs"
    good = tuned(runs / "good", seed=7)
    for number, file in enumerate(FILES):
        for kind, content in GARBAGE.items():
            (tuned(runs / f"{file} {kind}", seed=100 + number) / file).write_bytes(content)
        for kind in ("link", "pipe", "folder"):
            path = tuned(runs / f"{file} {kind}", seed=100 + number) / file
            path.unlink(missing_ok=True)
            {"link": lambda p: p.symlink_to(p), "pipe": os.mkfifo, "folder": os.mkdir}[kind](path)
    rows, rejected = collect([runs])
    left_out = {run.run_dir.name: run.reason for run in rejected}
    assert str(good) in set(rows["run"])
    for file in ("config.json", "metrics.jsonl", "finished.json"):
        for kind in (*GARBAGE, "link", "pipe", "folder"):
            assert left_out.pop(f"{file} {kind}"), "and some reason"
    assert not [text for text in left_out.values() if "cannot be understood" in text], "foreseen, every one of them"
    text = page_of(runs, tmp_path / "report.html").read_text()
    assert "config.json deep object" in text


def test_no_name_of_a_model_ends_a_command_or_leaves_its_folder(tmp_path):
    runs, names = tmp_path / "runs", ("timm/../..", "", "a" * 300, '"><script>$\\frac{1')
    for number, name in enumerate(names):
        recipe = "demo" if number else "=1+1/\n"
        pre = pretrained(runs / f"pre{number}", model=name)
        tuned(runs / f"scratch{number}", model=name, recipe=recipe)
        tuned(runs / f"run{number}", model=name, init=str(pre), recipe=recipe)
    tuned(runs / "depth", task="depth", metrics={"delta1": 80.0})  # a task that nobody here knows
    with warnings.catch_warnings(action="error"):  # such as: no room left for the axes
        paths = figures_of(runs, tmp_path / "figures")
        page = page_of(runs, tmp_path / "report.html").read_text()
    assert {path.parent for path in paths} == {tmp_path / "figures"}
    assert len(set(paths)) == len(paths) == 14
    assert "depth: r50, demo" in page
    written = write_tables(*collect([runs]), tmp_path / "tables")
    assert {path.parent for path in written} == {tmp_path / "tables"}
    assert len(set(written)) == len(written)
    ids = [re.search(r'<div id="([^"]*)"', path.read_text())[1] for path in written if path.suffix == ".html"]
    assert all(re.fullmatch(r"[\w.-]+", name) for name in ids)
    csv = pd.read_csv(tmp_path / "tables" / "results.csv", keep_default_na=False)
    assert "'=1+1/\n" in set(csv["recipe"]), "no formula to a spreadsheet"


def test_a_link_to_a_run_folder_is_that_run_and_no_other_link_is_followed(tmp_path):
    run = tuned(tmp_path / "elsewhere" / "run")
    (tmp_path / "runs").mkdir()
    for name, target in {"a": run, "b": run, "loop": tmp_path / "runs", "root": "/", "gone": tmp_path / "gone"}.items():
        (tmp_path / "runs" / name).symlink_to(target)
    rows, rejected = collect([tmp_path / "runs"])
    assert set(rows["run"]) == {str(tmp_path / "runs" / "a")}
    assert rejected == []


def test_a_folder_whose_name_is_no_text_is_named_and_left_out(tmp_path):
    tuned(tmp_path / "runs" / "good")
    tuned(tmp_path / "runs" / "bad", seed=1).rename(os.fsdecode(os.fsencode(tmp_path / "runs") + b"/bad\xff"))
    rows, (left_out,) = collect([tmp_path / "runs"])
    assert rows["run"].nunique() == 1
    assert left_out.reason == "its name is no text (UTF-8)"


def test_no_code_of_results_names_a_method_of_pre_training():
    for path in (ROOT / "results").rglob("*.py"):
        assert not [name for name in ("a2mim", "simmim") if name in path.read_text().lower()], path


def test_the_fixture_is_whole():
    assert [run.run_dir.name for run in collect([FIXTURE])[1]] == ["demo-test_resnet-late"]


def test_a_run_on_ade20k_is_named_by_its_numbers_and_its_classes():
    pinned = {"train images": 20210, "train annotations": 20210, "val images": 2000, "val annotations": 2000}
    data = {name: {"num_images": count, "digest": "of it"} for name, count in pinned.items()}
    summary = {"num_train": 20210, "num_val": 2000, "num_classes": 150}
    classes = [f"class {place}" for place in range(150)]
    assert read_facts("segmentation", {}, summary, data, classes).name == "ADE20K"
    assert read_facts("segmentation", {}, summary, data, None).name == "20210 + 2000 images", "no classes.json"
