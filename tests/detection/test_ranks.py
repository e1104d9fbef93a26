"""Several processes train one detector, and resume to the same bytes."""

import json
import shutil
from dataclasses import replace

import pytest

from engine.run.open import prepare
from tests.detection.folders import FRAMEWORKS, make_coco, tiny_config
from tests.forked import run_module
from tests.helpers import assert_same_bytes


def run_on_two_ranks(run_dir):
    return run_module("detection", run_dir / "config.json", "--run-dir", run_dir, "--resume", ranks=2, seconds=200)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_two_ranks_train_and_an_interrupted_last_evaluation_gives_the_same_bytes(tmp_path, framework):
    config = tiny_config(make_coco(tmp_path / "coco"), framework=framework, iterations=3, precise_bn=0)
    config = replace(config, heads=replace(config.heads, score_threshold=0.0))  # detections from the first step on
    whole, again = tmp_path / "whole", tmp_path / "again"
    prepare(whole, config, package="detection", recipe="demo")
    done = run_on_two_ranks(whole)
    assert done.returncode == 0, done.stderr
    effective = json.loads((whole / "environment.json").read_text())["effective"]
    assert (effective["ranks"], effective["images_per_forward"], effective["global_batch"]) == (2, 2, 4)
    assert {result["image_id"] for result in json.loads((whole / "predictions.json").read_text())} == set(range(1, 7))
    shutil.copytree(whole, again)
    (again / "finished.json").unlink()  # as killed in the evaluation that follows the last step
    done = run_on_two_ranks(again)
    assert done.returncode == 0, done.stderr
    assert_same_bytes(whole, again)
    assert (whole / "predictions.json").read_bytes() == (again / "predictions.json").read_bytes()
