"""A run learns, leaves what a reader needs, and ends with the same bytes however often it was killed."""

import json
import os
import signal
import time
from dataclasses import replace

import mmseg
import pytest

from engine.data.order import SamplePlan
from engine.errors import ConfigError, StopRequested
from engine.run.open import prepare
from engine.task import loop_settings
from segmentation.__main__ import main
from segmentation.recipes import RECIPES
from segmentation.train import summary, train
from tests.forked import run_module
from tests.helpers import assert_same_bytes, start_python
from tests.segmentation.folders import tiny_config

pytestmark = pytest.mark.mmseg


def lines(run_dir, split):
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if row["split"] == split]


@pytest.fixture(scope="module")
def undisturbed(root, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("undisturbed") / "run"
    train(tiny_config(root), run_dir)
    return run_dir


def test_a_run_from_scratch_learns_and_leaves_everything_a_reader_needs(root, tmp_path):
    config = tiny_config(root, iterations=24, batch_size=8, evaluate_every=12, precision="float32")
    config = replace(config, augment=replace(config.augment, photometric=False, resize_ratio=(1.0, 1.0)))
    metrics = train(config, tmp_path / "run", recipe="demo")
    finished = json.loads((tmp_path / "run" / "finished.json").read_text())
    assert metrics["mIoU"] > 60 > 3 * finished["constant_mIoU"] / 2
    assert metrics["aAcc"] > 80
    assert finished["metrics"] == metrics
    assert finished["framework"] == "mmsegmentation"
    assert finished["framework_version"].startswith(f"{mmseg.__version__} (mmengine ")
    assert (finished["num_train"], finished["num_val"], finished["unreadable"]) == (16, 5, 0)
    assert [row["step"] for row in lines(tmp_path / "run", "val")] == [12, 24]
    record = json.loads((tmp_path / "run" / "evaluations" / "00000024.json").read_text())
    assert {name for name, row in record["classes"].items() if row["Acc"] is not None} == {
        "wall",
        "computer",
        "flag",
    }
    assert record["classes"]["flag"]["IoU"] > 50
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert environment["versions"]["mmsegmentation"] == mmseg.__version__
    assert {"mmengine", "mmcv-lite", "opencv-python"} <= environment["versions"].keys()
    effective = environment["effective"]
    assert effective["framework"] == f"mmsegmentation {finished['framework_version']}"
    assert (effective["peak_learning_rate"], effective["global_batch"]) == (pytest.approx(6e-3), 8)
    assert json.loads((tmp_path / "run" / "initialisation.json").read_text()) == {"source": "none"}
    assert [path.name for path in (tmp_path / "run" / "panels").iterdir()] == ["ADE_validation_00000000.png"]
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    assert train(config, tmp_path / "run", resume=True) == metrics  # finished already
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == before


def test_kill_9_then_resume_by_the_command_gives_the_same_bytes(root, tmp_path, undisturbed):
    run_dir = tmp_path / "run"
    prepare(run_dir, tiny_config(root), package="segmentation", recipe="custom")
    config_file = run_dir / "config.json"
    stored = json.loads(config_file.read_text())
    config_file.write_text(json.dumps({**stored, "recipe": "demo"}))
    command = ["segmentation", config_file, "--run-dir", run_dir, "--resume"]
    process = start_python("-W", "ignore", "-m", *command)
    wait_for_step(run_dir, 5, process)
    process.kill()
    process.wait()
    assert not (run_dir / "finished.json").exists()
    resumed = run_module(*command)
    assert resumed.returncode == 0, resumed.stderr
    assert "continuing" in resumed.stderr
    for folder in (run_dir, undisturbed):
        config = folder / "config.json"
        config.write_text(json.dumps(json.loads(config.read_text())["config"]))
    assert_same_bytes(run_dir, undisturbed)
    assert json.loads(resumed.stdout.splitlines()[-1]).keys() == {"mIoU", "aAcc", "mAcc", "mIoU_best"}


def wait_for_step(run_dir, step, process):
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and process.poll() is None:
        timing = run_dir / "timing.jsonl"
        if timing.exists() and any(f'"step": {s},' in timing.read_text() for s in range(step, 12)):
            return
        time.sleep(0.005)
    raise AssertionError(f"the run ended before step {step}: {process.stderr.read()}")


def stop_in_evaluation(monkeypatch, number):
    """Ask the run to stop by a signal in its `number`-th evaluation."""
    import segmentation.train

    calls = []
    real = segmentation.train.evaluate

    def counting(*arguments, **options):
        calls.append(1)
        if len(calls) == number:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*arguments, **options)

    monkeypatch.setattr(segmentation.train, "evaluate", counting)


def test_a_run_stopped_in_an_evaluation_and_resumed_with_workers_ends_with_the_same_bytes(
    root, tmp_path, monkeypatch, undisturbed
):
    config = tiny_config(root)
    config = replace(config, data=replace(config.data, num_workers=2))
    with monkeypatch.context() as patch:
        stop_in_evaluation(patch, 1)
        with pytest.raises(StopRequested):
            train(config, tmp_path / "run")
    train(config, tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == (undisturbed / "metrics.jsonl").read_bytes()
    for name in ("model.safetensors", "manifest.json"):
        path = f"checkpoints/00000012/{name}"
        assert (tmp_path / "run" / path).read_bytes() == (undisturbed / path).read_bytes()


def test_a_run_starts_from_a_pre_trained_encoder_and_resumes_without_its_file(root, tmp_path, monkeypatch):
    from backbones import build_backbone, save_backbone

    save_backbone(tmp_path / "encoder.safetensors", build_backbone("test_resnet", image_size=32), {"method": "a2mim"})
    config = tiny_config(root, init=str(tmp_path / "encoder.safetensors"))
    with monkeypatch.context() as patch:
        stop_in_evaluation(patch, 1)
        with pytest.raises(StopRequested):
            train(config, tmp_path / "run")
    record = json.loads((tmp_path / "run" / "initialisation.json").read_text())
    assert record["description"]["method"] == "a2mim"
    assert record["missing"] == []
    (tmp_path / "encoder.safetensors").unlink()
    assert "mIoU" in train(config, tmp_path / "run", resume=True)


def test_multi_scale_metrics_stand_beside_the_single_scale_ones(root, tmp_path):
    config = tiny_config(root, iterations=3, evaluate_every=2)
    config = replace(config, evaluation=replace(config.evaluation, multi_scale=True, scales=(0.75, 1.0)))
    metrics = train(config, tmp_path / "run")
    assert metrics.keys() == {"mIoU", "aAcc", "mAcc", "mIoU_ms", "aAcc_ms", "mAcc_ms", "mIoU_best"}
    assert "mIoU_ms" not in lines(tmp_path / "run", "val")[0], "only the final evaluation is multi-scale"


def test_a_batch_that_leaves_one_image_for_batch_norm_is_refused(root, tmp_path):
    with pytest.raises(ConfigError, match="less than 2 images"):
        train(tiny_config(root, accumulation=4), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_schedule_is_mmsegmentations():
    config = RECIPES["upernet-160k"]("vit_b")
    settings = loop_settings(config, SamplePlan(20_210, 16, 0), None)
    rate = lambda step: settings.schedule.rate(step, config.learning_rate)  # noqa: E731
    assert rate(0) == pytest.approx(4e-10)
    assert rate(1500) == pytest.approx(4e-4)
    assert rate(80_750) == pytest.approx(2e-4)
    assert rate(160_000) == 0
    config = RECIPES["upernet-160k"]("r50")
    settings = loop_settings(config, SamplePlan(20_210, 16, 0), None)
    assert settings.schedule.rate(80_000, 0.01) == pytest.approx((0.01 - 1e-4) * 0.5**0.9 + 1e-4)
    assert settings.schedule.rate(160_000, 0.01) == pytest.approx(1e-4)
    assert settings.evaluate_every == 16_000


def test_the_summary_is_the_last_evaluation_and_the_best_one():
    rows = [{"step": i, "epoch": 0.1, "split": "val", "mIoU": v, "aAcc": 1.0} for i, v in enumerate((30.0, 42.0, 40.0))]
    assert summary(rows) == {"mIoU": 40.0, "aAcc": 1.0, "mIoU_best": 42.0}


def test_the_help_names_every_recipe_and_what_else_there_is(capsys):
    with pytest.raises(SystemExit) as left:
        main(["--help"])
    assert left.value.code == 0
    text = capsys.readouterr().out
    for name in (*RECIPES, "--dump-config", "segmentation.check", "segmentation.visualize"):
        assert name in text
