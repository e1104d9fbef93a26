"""The command: refusals, one run for each encoder with every field of a row, one table, and what is not done twice."""

import csv
import json
import shlex
from dataclasses import replace
from unittest.mock import ANY

import numpy as np
import pytest
import torch
from PIL import Image

from backbones import build_backbone, save_backbone
from engine.after import resume_command
from engine.errors import ConfigError
from evaluation import features
from evaluation.command import describe, parse
from evaluation.measured import ROW_FIELDS
from evaluation.protocols import PROTOCOLS
from evaluation.run import evaluate_all
from results.page.runs import command
from results.runs.collect import collect
from results.tables.rows import benchmark_table

ENCODERS = ("random:test_resnet", "random:test_convnext", "random:test_vit")


def write_images(root, counts=(("train", 6), ("val", 2)), classes=3):
    """Classes of one colour each, with noise, 32 px."""
    source = np.random.default_rng(0)
    for split, count in counts:
        for label in range(classes):
            folder = root / split / f"class{label}"
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = source.integers(0, 90, (32, 32, 3)) + 160 * (np.arange(3) == label)
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("images"))


def ask(protocol, encoders, images, where, *more):
    arguments = [protocol, *encoders, "--data.root", str(images), "--data.num-workers", "0", "--image-size", "64"]
    return parse([*arguments, "--runs-dir", str(where), "--precision", "float32", *more])


def test_knn_of_three_families_is_one_table_with_every_field_and_is_not_measured_again(images, tmp_path, monkeypatch):
    asked = ask("knn", ENCODERS, images, tmp_path, "--k", "3", "5")
    text = evaluate_all(asked)
    for name in ("test_resnet-untrained", "test_convnext-untrained", "test_vit-untrained"):
        assert f"| {name}" in text
    assert "| layer4, pooled map " in text
    rows = list(csv.DictReader((tmp_path / "knn.csv").open()))
    assert [row["model"] for row in rows] == ["test_resnet", "test_convnext", "test_vit"]
    for row in rows:
        assert set(ROW_FIELDS) <= row.keys()
        assert row["encoder_sha256"]
        assert (row["k"], row["resolution"], row["similarity"]) == ("3", "64", "cosine")
    assert [row["token"] for row in rows] == ["pooled map", "pooled map", "class token"]
    assert (tmp_path / "knn.png").stat().st_size > 5000
    folder = next(tmp_path.glob("knn-test_vit*"))
    summary = json.loads((folder / "finished.json").read_text())
    assert summary["metrics"]["top1_low"] <= summary["metrics"]["top1"] <= summary["metrics"]["top1_high"]
    assert {"top1_cls_after", "top1_mean_before", "top1_best_of_grid", "top5_dino"} <= summary["metrics"].keys()
    assert len(json.loads((folder / "grid.json").read_text())["layer6-cls-before"]) == 2 * 3
    monkeypatch.setattr(features, "_extract", None)  # would fail if anything were computed again
    assert evaluate_all(asked) == text
    stopped = parse(shlex.split(resume_command("evaluation", folder))[3:])  # as a run says that was stopped
    assert (stopped.protocol, stopped.encoders, stopped.runs_dir) == ("knn", ENCODERS[2:], tmp_path)
    assert "test_vit-untrained" in evaluate_all(stopped)
    again = command(folder, "evaluation", {"command": ["evaluation", "knn", "--runs-dir", str(tmp_path)]}, tmp_path)
    assert parse(shlex.split(again)[3:]) == replace(
        stopped, runs_dir=tmp_path.with_name(f"{tmp_path.name}-again"), cache_dir=ANY
    )
    evaluate_all(ask("knn", ENCODERS[2:], images, tmp_path, "--k", "1"))  # another run, the same features
    found, rejected = collect([tmp_path])
    assert not rejected
    assert set(found["task"]) == {"evaluation"}
    assert set(found["method"]) == {"scratch"}  # the control


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["kmn", "a"], "no protocol 'kmn'; nearest: knn"),
        (["tests/data/runs/demo-test_resnet-simmim-pretrain-s0/config.json"], "configuration of recipe demo, no eval"),
        (["knn", "--data.root", "x"], "no encoder given"),
        (["knn", "a", "--digest", "3"], "filled in for each encoder"),
        (["knn", "a", "--temprature", "1"], "no option --temprature; nearest: --temperature"),
    ],
)
def test_a_command_that_cannot_be_run_says_what_to_write(arguments, text):
    with pytest.raises(ConfigError, match=text):
        parse(arguments)


def test_help_tells_every_protocol():
    assert all(f"\n  {name}\n" in describe() for name in PROTOCOLS)


@pytest.mark.parametrize(
    ("more", "text"),
    [
        (["--layers", "9"], "has the layers 1 to 5"),
        (["--layers", "0"], "counted from 1"),
        (["--token", "cls"], "has no class token; take --token mean"),
        (["--crop-pct", "0"], "allowed: above 0, up to 1"),
    ],
)
def test_what_the_encoder_does_not_have_is_refused(more, text, images, tmp_path):
    with pytest.raises(ConfigError, match=text):
        evaluate_all(ask("knn", ENCODERS[:1], images, tmp_path, *more))


def test_tables_compare_encoders_of_one_network_with_the_untrained_one(images, tmp_path):
    torch.manual_seed(5)
    file = tmp_path / "mine.safetensors"
    save_backbone(file, build_backbone("test_resnet", image_size=64), {"method": "simmim", "epochs": 3})
    encoders = [str(file), "random:test_resnet", "random:test_resnet@1"]
    evaluate_all(ask("knn", encoders, images, tmp_path / "runs", "--k", "1"))
    rows, rejected = collect([tmp_path / "runs"])
    assert not rejected
    table = benchmark_table(rows)
    lines = table[table["metric"] == "top1"].set_index("method")
    assert lines["n"].to_dict() == {"scratch": 2, "simmim": 1}
    assert lines.loc["simmim", "difference"] == pytest.approx(
        lines.loc["simmim", "mean"] - lines.loc["scratch", "mean"]
    )
