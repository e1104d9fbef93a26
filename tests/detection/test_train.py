"""Whole runs on tiny folders: they learn, they resume to the same bytes, they refuse what cannot work."""

import json
import os
import shutil
import signal
import time
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import detection.train as task
from backbones import build_backbone, save_backbone
from detection.evaluation import coco_numbers
from detection.finished import load_detector
from detection.frameworks.contract import load_framework
from detection.grouping import GroupedPlan
from detection.recipes import RECIPES
from detection.train import train
from detection.visualize import main as visualize
from engine.cli import main
from engine.config import config_hash, to_dict
from engine.errors import CheckpointError, ConfigError, DataError, StopRequested
from engine.run.open import prepare
from engine.task import loop_settings
from tests.detection.folders import FRAMEWORKS, make_coco, needs_detectron2, read, read_split, tiny_config, write
from tests.helpers import assert_same_bytes, start_python


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_coco(tmp_path_factory.mktemp("coco"))


def lines(run_dir, split):
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if row["split"] == split]


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_run_from_scratch_learns_and_leaves_everything_a_reader_needs(root, tmp_path, framework):
    run_dir = tmp_path / "run"
    config = tiny_config(root, framework=framework, iterations=60, checkpoint_every=50, evaluate_every=50, log_every=5)
    metrics = train(config, run_dir, recipe="demo")
    losses = [row["loss"] for row in lines(run_dir, "train")]
    assert losses[-1] < 0.75 * losses[0]
    assert metrics["box_AR100"] > 5
    assert metrics["box_AP"] > 0.5

    finished = json.loads((run_dir / "finished.json").read_text())
    assert finished["metrics"] == metrics
    assert finished["config_hash"] == config_hash(to_dict(config))
    assert (finished["framework"], finished["framework_version"]) == (framework, load_framework(framework).version)
    assert (finished["num_train"], finished["num_val"], finished["train"]["crowds"]) == (12, 6, 1)
    assert finished["images_per_second"] > 0
    assert [row["step"] for row in lines(run_dir, "val")] == [50, 60]
    environment = json.loads((run_dir / "environment.json").read_text())
    effective = environment["effective"]
    assert (effective["global_batch"], effective["steps"], effective["peak_learning_rate"]) == (4, 60, 2e-3)
    assert environment["versions"]["pycocotools"]
    assert bool(environment["versions"].get("detectron2")) == (framework == "detectron2")
    assert json.loads((run_dir / "initialisation.json").read_text()) == {"source": "none"}

    val = read_split(root, "val", training=False, masks=True)
    results = json.loads((run_dir / "predictions.json").read_text())
    assert coco_numbers(val.ground_truth(), results, official=True) == metrics
    if framework == "detectron2":  # its COCOEvaluator saw the same detections
        own = finished["evaluator"]
        assert {"box_AP", "box_AP50", "mask_AP"} <= own.keys()
        assert own == pytest.approx({name: metrics[name] for name in own})

    panels = sorted((run_dir / "panels").glob("*.png"))
    assert len(panels) == config.num_panels
    before = [panel.read_bytes() for panel in panels]
    visualize([str(run_dir)])
    assert [panel.read_bytes() for panel in panels] == before
    picture = tmp_path / "any.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 90, 3)).astype(np.uint8)).save(picture)
    visualize([str(run_dir), str(picture)])
    assert Image.open(run_dir / "panels" / "any.png").width >= 480


def test_the_evaluated_detector_can_be_loaded_again(root, tmp_path):
    config = tiny_config(root)
    train(config, tmp_path / "run")
    detector = load_detector(tmp_path / "run")
    assert detector.config == config
    assert detector.category_ids == (2, 5, 9)
    val = read_split(root, "val", training=False, masks=True)
    results = task.predict_all(
        detector,
        detector.model,
        detector.framework.samples(val, config, False, None),
        batch_size=4,
        num_workers=0,
        check_stop=lambda: None,
    )
    written = json.loads((tmp_path / "run" / "predictions.json").read_text())
    assert task.with_category_ids(results, val.category_ids) == written


def test_a_finished_run_is_not_run_again(root, tmp_path):
    config = tiny_config(root, iterations=2)
    metrics = train(config, tmp_path / "run")
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    assert train(config, tmp_path / "run", resume=True) == metrics
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == before


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_kill_9_between_two_checkpoints_then_resume_gives_the_same_bytes(root, tmp_path, framework):
    config = tiny_config(root, framework=framework, iterations=16, checkpoint_every=4, evaluate_every=0)
    config = replace(config, precision="bfloat16", drop_path=0.0, data=replace(config.data, num_workers=1))
    folder = tmp_path / "killed"
    prepare(folder, config, package="detection", recipe="demo")
    process = start_python("-m", "detection", folder / "config.json", "--run-dir", folder, "--resume")
    deadline = time.monotonic() + 100
    timing = folder / "timing.jsonl"
    while not (timing.exists() and len(timing.read_text().splitlines()) >= 7):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    step = int((folder / "checkpoints" / "LATEST").read_text())
    assert 4 <= step < 16
    assert not (folder / "finished.json").exists()
    train(config, folder, recipe="demo", resume=True)
    train(config, tmp_path / "undisturbed", recipe="demo")
    assert_same_bytes(folder, tmp_path / "undisturbed")
    for name in ("predictions.json", "precise_bn.safetensors"):
        assert (folder / name).read_bytes() == (tmp_path / "undisturbed" / name).read_bytes()


def stop_at_batch(monkeypatch, number):
    """Ask the run to stop by a signal before its `number`-th batch of predictions or statistics."""
    calls = []
    real = task.Evaluation.__call__

    def counting(self, model, step, check_stop):
        def checked():
            calls.append(1)
            if len(calls) == number:
                os.kill(os.getpid(), signal.SIGTERM)
            check_stop()

        return real(self, model, step, checked)

    monkeypatch.setattr(task.Evaluation, "__call__", counting)


@pytest.mark.parametrize("batch", [1, 3, 4])  # while statistics are measured; before the first image; later
def test_a_run_stopped_in_an_evaluation_and_resumed_ends_with_the_same_bytes(root, tmp_path, monkeypatch, batch):
    config = tiny_config(root, evaluate_every=3, checkpoint_every=100)
    train(config, tmp_path / "whole")
    with monkeypatch.context() as patch:
        stop_at_batch(patch, batch)
        with pytest.raises(StopRequested):
            train(config, tmp_path / "stopped")
    assert (tmp_path / "stopped" / "checkpoints" / "LATEST").read_text() == "00000003"
    train(config, tmp_path / "stopped", resume=True)
    assert_same_bytes(tmp_path / "stopped", tmp_path / "whole")


@pytest.mark.parametrize("framework", [pytest.param("detectron2", marks=needs_detectron2)])
def test_detectron2s_running_loss_normaliser_is_resumed_too(root, tmp_path, monkeypatch, framework):
    config = tiny_config(root, framework=framework, detector="retinanet-fpn", evaluate_every=3, checkpoint_every=100)
    train(config, tmp_path / "whole")
    with monkeypatch.context() as patch:
        stop_at_batch(patch, 3)
        with pytest.raises(StopRequested):
            train(config, tmp_path / "stopped")
    train(config, tmp_path / "stopped", resume=True)
    assert_same_bytes(tmp_path / "stopped", tmp_path / "whole")


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_number_of_workers_changes_nothing(root, tmp_path, framework):
    config = tiny_config(root, framework=framework, iterations=3)
    for number in (0, 2):
        train(replace(config, data=replace(config.data, num_workers=number)), tmp_path / str(number))
    for name in ("metrics.jsonl", "predictions.json"):
        assert (tmp_path / "0" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()


def test_a_run_starts_from_the_whole_encoder_of_a_pre_training_run_and_resumes_without_it(root, tmp_path, monkeypatch):
    source = tmp_path / "pretrained"
    source.mkdir()
    encoder = build_backbone("test_resnet", image_size=48)
    save_backbone(source / "backbone.safetensors", encoder, {"method": "simmim"})
    config = tiny_config(root, init=str(source), evaluate_every=3)
    with monkeypatch.context() as patch:
        stop_at_batch(patch, 1)
        with pytest.raises(StopRequested):
            train(config, tmp_path / "run")
    report = json.loads((tmp_path / "run" / "initialisation.json").read_text())
    assert (report["num_loaded"], report["missing"]) == (len(encoder.net.state_dict()), [])
    shutil.rmtree(source)
    assert "box_AP" in train(config, tmp_path / "run", resume=True)


def test_weights_that_lack_a_tensor_are_refused(root, tmp_path):
    save_backbone(tmp_path / "other.safetensors", build_backbone("test_vit", image_size=64), {})
    with pytest.raises(Exception, match="Nothing was loaded") as error:
        train(tiny_config(root, init=str(tmp_path / "other.safetensors")), tmp_path / "run")
    assert error.value.exit_code == 2


def test_a_corrected_file_is_resumed_with_unless_the_run_has_used_what_changed(root, tmp_path, monkeypatch):
    own = shutil.copytree(root, tmp_path / "coco")
    config = tiny_config(own, evaluate_every=3, precise_bn=0, num_panels=0)
    with monkeypatch.context() as patch:
        stop_at_batch(patch, 1)  # before the first evaluation has a result
        with pytest.raises(StopRequested):
            train(config, tmp_path / "run")

    def change(split, **values):
        document = read(own, split)
        document["annotations"][0].update(values)
        write(own, split, document)

    given = read(own, "train")["annotations"][0]["bbox"]
    change("train", bbox=[given[0] + 1, *given[1:]])
    with pytest.raises(
        DataError, match=r"instances_train2017.json: images, boxes, .*Put the file back .*--run-dir NEW"
    ):
        train(config, tmp_path / "run", resume=True)
    change("train", bbox=given, area=7, comment="measured again")
    change("val", area=7)
    with monkeypatch.context() as patch:
        stop_at_batch(patch, 4)  # in the second evaluation
        with pytest.raises(StopRequested):
            train(config, tmp_path / "run", resume=True)
    change("val", area=8)
    with pytest.raises(DataError, match=r"instances_val2017.json: the run has been evaluated \(step 3\)"):
        train(config, tmp_path / "run", resume=True)
    change("val", area=7)
    pinned = (tmp_path / "run" / "data.json").read_bytes()
    (tmp_path / "run" / "data.json").write_text(json.dumps({**json.loads(pinned), "annotations": 3}))
    with pytest.raises(CheckpointError, match=r"data.json does not say which annotations"):
        train(config, tmp_path / "run", resume=True)
    (tmp_path / "run" / "data.json").write_bytes(pinned)
    assert "box_AP" in train(config, tmp_path / "run", resume=True)


def test_a_wrong_image_size_stops_the_run_before_its_first_step(root, tmp_path):
    own = shutil.copytree(root, tmp_path / "coco")
    Image.new("RGB", (20, 20)).save(own / "train2017" / f"{4:012d}.jpg")
    with pytest.raises(DataError, match="image 4, annotation"):
        train(tiny_config(own), tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_accumulated_passes_see_the_same_images_as_one(root, tmp_path):
    config = tiny_config(root, model="test_vit", precise_bn=0, iterations=3)
    config = replace(
        config,
        heads=replace(config.heads, pyramid_norm="ln"),
        data=replace(config.data, square=64, short_sides=(48,)),
    )
    train(replace(config, accumulation=1), tmp_path / "one")
    train(replace(config, accumulation=2), tmp_path / "two")
    first, second = (lines(tmp_path / name, "train")[0] for name in ("one", "two"))
    assert second["loss"] == pytest.approx(first["loss"], rel=0.05)  # proposals are sampled otherwise


def test_milestones_and_warm_up_are_in_steps_of_the_run_s_own_batch():
    config = replace(RECIPES["mask-rcnn-fpn-1x"](), batch_size=8)
    settings = loop_settings(config, GroupedPlan(np.ones(800, bool), 8, 0, 2), None)
    assert (settings.total_steps, settings.schedule.milestones) == (180_000, (120_000, 160_000))
    rates = [settings.schedule.rate(s, config.learning_rate) for s in (0, 1000, 2000, 119_999, 120_000, 179_999)]
    assert rates == pytest.approx([1e-5, 0.5005 * 0.01, 0.01, 0.01, 1e-3, 1e-4])


def test_a_batch_that_does_not_divide_into_accumulation_is_refused(root, tmp_path):
    with pytest.raises(ConfigError, match="accumulation is 3; allowed: a divisor"):
        train(tiny_config(root, accumulation=3), tmp_path / "run")


def test_the_command_trains_and_prints_its_metrics(root, tmp_path, capsys):
    arguments = (
        *("demo", "--model", "test_resnet", "--run-dir", tmp_path / "run", "--data.root", root, "--init", "none"),
        *("--iterations", "3", "--schedule.warmup-iterations", "1", "--batch-size", "4"),
    )
    with pytest.raises(SystemExit) as left:
        main("detection", RECIPES, train, [str(argument) for argument in arguments])
    assert left.value.code == 0
    metrics = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert {"box_AP", "mask_AP"} <= metrics.keys()
    effective = json.loads((tmp_path / "run" / "environment.json").read_text())["effective"]
    assert effective["global_batch"] == 4
    assert effective["steps"] == 6  # of half the recipe's batch: the linear rule


def test_a_folder_without_a_finished_run_cannot_be_drawn(tmp_path, capsys):
    with pytest.raises(SystemExit) as left:
        visualize([str(tmp_path)])
    assert left.value.code == 2
    assert "holds no run" in capsys.readouterr().err
