"""`python -m benchmarks run`: a graph of runs that skips, continues, stops cleanly and tells why something failed."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import cost
from benchmarks.pipeline import is_finished, run_stages
from benchmarks.plan import Request, Stage, data_sets, make_stages
from benchmarks.scenes.demo_data import write_demo_data
from engine.errors import ConfigError, DataError
from tests.forked import Forks, run_module
from tests.helpers import ROOT, environment

TINY = "test_resnet.r160_in1k"  # timm's own smallest ResNet, 0.5 M parameters


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("scenes") / "demo"
    write_demo_data(folder, num_train=40, num_val=110, seed=0)
    return folder / "imagenet"


def tiny_stages(runs_dir: Path, scenes: Path, methods: tuple[str, ...] = ("scratch", "a2mim")) -> list[Stage]:
    """The real graph with the real demo recipes, cut down to a few steps of a tiny network."""
    request = Request(model=TINY, methods=methods, runs_dir=runs_dir, data={"classification": scenes}, num_workers=0)
    return [dataclasses.replace(stage, config=_cut(stage)) for stage in make_stages(request)]


def _cut(stage: Stage):
    config = dataclasses.replace(stage.config, epochs=2, batch_size=8, image_size=64, precision="float32")
    schedule = dataclasses.replace(config.schedule, warmup_epochs=0)
    if stage.package == "classification":
        augment = dataclasses.replace(config.augment, test_size=64)
        return dataclasses.replace(config, schedule=schedule, augment=augment)
    return dataclasses.replace(config, schedule=schedule)


def test_the_graph_fine_tunes_each_method_from_its_own_pre_training(tmp_path, scenes):
    request = Request(model="r50", runs_dir=tmp_path, data={"classification": scenes}, seeds=3, pretrain_seeds=2)
    stages = {stage.name: stage for stage in make_stages(request)}
    assert len(stages) == 2 * 2 + 3 * 3
    tuned = stages["demo-r50-a2mim-classification-s2"]
    assert tuned.needs == ("demo-r50-a2mim-pretrain-s0",)
    assert tuned.config.init == str(tmp_path / "demo-r50-a2mim-pretrain-s0")
    assert tuned.config.seed == 2
    control = stages["demo-r50-scratch-classification-s2"]
    assert dataclasses.replace(tuned.config, init="none") == control.config, "the control must differ in nothing else"


def test_shares_of_the_labels_are_an_axis_of_classification_like_seeds(tmp_path, scenes):
    data = {"classification": scenes, "detection": scenes.parent / "coco"}
    request = Request(model=TINY, methods=("scratch", "a2mim"), runs_dir=tmp_path, data=data, seeds=2, labels=(0.25, 1))
    stages = {stage.name: stage for stage in make_stages(request)}
    assert len(stages) == 1 + 2 * (2 * 2 + 2)
    few = stages[f"demo-{TINY}-a2mim-classification-labels0.25-s1"]
    assert (few.config.data.train_fraction, few.config.seed, few.package) == (0.25, 1, "classification")
    assert stages[f"demo-{TINY}-a2mim-classification-s1"].config.data.train_fraction == 1
    for labels in ((), (0.0,), (10.0,)):
        with pytest.raises(ConfigError, match="labels"):
            make_stages(dataclasses.replace(request, labels=labels))


def test_the_own_profile_asks_the_question_of_a_folder_of_classes(tmp_path, scenes, capsys):
    data = data_sets("own", scenes)
    request = Request(model=TINY, profile="own", data=data, runs_dir=tmp_path, seeds=3, steps=(None, 60))
    with pytest.raises(DataError, match="40 images: too few to pre-train"):
        make_stages(request)
    stages = make_stages(dataclasses.replace(request, methods=("scratch",)))
    assert [(stage.name, stage.recipe, stage.config.epochs * 40 // 16) for stage in stages] == [
        (f"own-{TINY}-scratch-classification-s{seed}", "own", 75) for seed in range(3)
    ]
    for given in ({"folder": None}, {"folder": scenes, "coco": scenes}):
        with pytest.raises(ConfigError, match="takes --data DIR"):
            data_sets("own", **given)


def test_tasks_chosen_leave_out_the_others_but_not_the_pre_training(tmp_path, scenes):
    data = {"classification": scenes, "detection": scenes.parent / "coco"}
    for tasks, expected in ((None, {"classification", "detection"}), (("detection",), {"detection"})):
        stages = make_stages(Request(model=TINY, methods=("a2mim",), runs_dir=tmp_path, data=data, tasks=tasks))
        assert {stage.package for stage in stages} == {"pretrain", *expected}
    with pytest.raises(ConfigError, match="no data for segmentation"):
        make_stages(Request(model=TINY, runs_dir=tmp_path, data=data, tasks=("segmentation",)))


def test_independent_runs_share_the_machine_what_is_finished_is_skipped_and_the_rest_continued(
    tmp_path, scenes, capfd, monkeypatch
):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    stages = tiny_stages(tmp_path, scenes)
    outcome = run_stages(stages, tmp_path, parallel=2)
    assert outcome.exit_code == 0, (tmp_path / stages[0].name / "output.log").read_text()
    assert set(outcome.states.values()) == {"finished"}
    said = [line.split("  ")[1] for line in capfd.readouterr().out.splitlines()]
    parent, scratch, child = (stage.name for stage in stages)
    assert said[:2] == [f"{parent}: running", f"{scratch}: running"]
    assert said.index(f"{child}: running") > said.index(f"{parent}: finished"), "a child waits for its parent"
    threads = {json.loads((stage.folder(tmp_path) / "environment.json").read_text())["num_threads"] for stage in stages}
    assert threads == {max((os.cpu_count() or 1) // 2, 1)}
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("finished.json")}
    assert len(before) == 3
    last = stages[-1].folder(tmp_path)
    (last / "finished.json").unlink()
    assert run_stages(stages, tmp_path, children=Forks(1)).exit_code == 0
    after = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("finished.json")}
    assert {p for p in before if before[p] != after[p]} == {last / "finished.json"}
    assert len((last / "environment.json").read_text().split('"resumes"')) == 2


def test_a_failed_run_blocks_only_its_own_children(tmp_path, scenes):
    stages = tiny_stages(tmp_path, scenes)
    broken = [
        dataclasses.replace(
            stage,
            config=dataclasses.replace(stage.config, data=dataclasses.replace(stage.config.data, root="/nowhere")),
        )
        if stage.package == "pretrain"
        else stage
        for stage in stages
    ]
    outcome = run_stages(broken, tmp_path, children=Forks(1))
    assert outcome.exit_code == 1
    assert [outcome.states[stage.name] for stage in broken] == ["failed", "finished", "blocked"]
    error = json.loads((broken[0].folder(tmp_path) / "error.json").read_text())
    assert "/nowhere" in error["message"]
    assert not is_finished(broken[0], tmp_path)


def test_another_configuration_in_the_same_folder_is_refused(tmp_path, scenes):
    stages = tiny_stages(tmp_path, scenes, ("scratch",))
    run_stages(stages, tmp_path, children=Forks(1))
    other = [dataclasses.replace(stages[0], config=dataclasses.replace(stages[0].config, batch_size=4))]
    with pytest.raises(ConfigError, match="batch_size: 8 -> 4"):
        run_stages(other, tmp_path)


def test_a_stop_signal_saves_the_running_stage_and_the_same_command_continues(tmp_path, scenes):
    command = ["benchmarks", "run", "--model", TINY, "--methods", "scratch", "--imagenet",
               str(scenes), "--runs-dir", str(tmp_path / "runs"), "--num-workers", "0"]  # fmt: skip
    run = tmp_path / f"runs/demo-{TINY}-scratch-classification-s0"
    process = subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not (run / "checkpoints/LATEST").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 75, output + errors
    assert "give the same command again to continue" in errors
    assert not (run / "finished.json").exists()
    done = run_module(*command, seconds=180)
    assert done.returncode == 0, done.stderr + (run / "output.log").read_text()
    assert "scratch" in done.stdout
    assert "not in the table" not in done.stdout
    assert (run / "finished.json").exists()
    assert list((tmp_path / "runs").glob(f"demo-{TINY}*.md"))


def test_the_paper_profile_says_what_it_will_do_before_it_does_it(tmp_path, scenes):
    done = run_module(
        *("benchmarks", "run", "--model", "r50", "--profile", "paper", "--dry-run"),
        *("--imagenet", scenes, "--runs-dir", tmp_path / "runs"),
    )
    assert done.returncode == 0, done.stderr
    assert "paper-r50-a2mim-pretrain-s0: a2mim-r50-300e, 300 epochs at 224 px, batch 2048" in done.stdout
    assert "1 devices x 256 images x 8 accumulation steps" in done.stdout
    assert "GPU-hours" in done.stdout
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("model", "recipe"),
    [("r50", "mask-rcnn-fpn-2x"), ("vit_b", "mask-rcnn-vit-1x"), ("swin_t", "mask-rcnn-fpn-1x-spark")],
)
def test_the_paper_profile_can_be_run_in_torchvision_for_every_family(model, recipe):
    data = {"classification": Path("imagenet"), "detection": Path("coco")}
    stages = make_stages(Request(model=model, profile="paper", framework="torchvision", data=data))
    chosen = [stage for stage in stages if stage.package == "detection"]
    assert [(stage.recipe, stage.config.framework) for stage in chosen] == 3 * [(recipe, "torchvision")]


def test_counted_operations_are_those_of_the_literature():
    flops, is_cnn = cost.forward_flops("r50", 224)
    assert is_cnn
    assert flops == pytest.approx(2 * 4.09e9, rel=0.02), (
        "ResNet-50 has 4.09 G multiply-adds (He et al. 2016; torchvision)"
    )
