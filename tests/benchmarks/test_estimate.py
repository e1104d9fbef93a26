"""What `python -m benchmarks run` says before it starts: measured times, and lengths that fit the machine."""

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import estimate, pace
from benchmarks.axes import Axes
from benchmarks.estimate import Load, duration, finished_after, outline, proposal
from benchmarks.pace import Pace, kind_of, measure_here
from benchmarks.plan import Request, Stage, data_sets, make_stages
from engine.errors import DataError
from tests.classification.folders import make_folder

SPEED = Pace(steps=1000, batch_size=10, computing=0.02, reading=0.01, overlap=False, evaluated=3000, beginning=20)


def test_runs_take_turns_as_the_pipeline_lets_them():
    needs = {"p": (), "q": (), "a": (), "p1": ("p",), "q1": ("q",)}
    seconds = {"p": 10.0, "q": 4.0, "a": 3.0, "p1": 5.0, "q1": 5.0}
    assert finished_after(seconds, needs, 1) == 27
    assert finished_after(seconds, needs, 2) == 15  # q until 4, a until 7, q1 until 12 beside p until 10, then p1
    assert finished_after(seconds, needs, 9) == 15
    assert finished_after({"p1": 5.0}, needs, 2) == 5, "what it needs is finished"


def test_a_run_is_steps_evaluations_and_its_beginning():
    assert SPEED.seconds() == pytest.approx(20 + 10_000 * 0.03 + 3000 * (0.02 / 3 + 0.01))
    assert SPEED.seconds(0.5) == pytest.approx(20 + (SPEED.seconds() - 20) / 2)
    assert replace(SPEED, overlap=True).images_per_second == pytest.approx(50)
    smaller = SPEED.at(area=0.25, length=0.1)
    assert (smaller.steps, smaller.computing, smaller.reading, smaller.evaluated) == (100, 0.005, 0.01, 300)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return make_folder(tmp_path_factory.mktemp("estimated"), num_train=80, num_val=4)


def own_stages(folder: Path, runs_dir: Path, **more) -> list[Stage]:
    data = data_sets("own", folder)
    return make_stages(Request(model="test_resnet", profile="own", data=data, runs_dir=runs_dir, seeds=3, **more))


def test_each_kind_of_run_is_measured_by_its_own_steps(folder, tmp_path):
    stages = own_stages(folder, tmp_path, methods=("scratch", "simmim"), steps=(90, 45))
    kinds = list(dict.fromkeys(map(kind_of, stages)))
    assert [package for package, _ in kinds] == ["pretrain", "classification"], "seeds and starts are no kinds"
    pretrained, tuned = (measure_here(kind) for kind in kinds)
    assert (pretrained.steps, pretrained.batch_size, pretrained.evaluated) == (91, 32, 0)
    assert (tuned.steps, tuned.batch_size, tuned.evaluated) == (45, 16, 3 * 12)
    assert min(pretrained.computing, pretrained.reading, pretrained.beginning, tuned.computing) > 0
    assert min(pretrained.busy, tuned.busy) >= 1
    assert not list(tmp_path.iterdir()), "nothing is left where the runs will be"
    said = outline(stages, tmp_path)
    assert "7 runs under" in said and "6 x classification, 3 epochs at 64 pixels" in said


def test_what_a_run_would_stop_at_is_said_before_hours_are_spent(folder, tmp_path):
    make_folder(tmp_path, num_train=80, num_val=4)
    (tmp_path / "train/red/bad.png").write_text("<html>")
    for name in (tmp_path / "train/red").glob("0*.jpg"):
        name.write_bytes(b"\xff\xd8\xff no image")
    (stage,) = own_stages(tmp_path, tmp_path / "runs", methods=("scratch",))[:1]
    with pytest.raises(DataError, match="train/red"):
        measure_here(kind_of(stage))


def a_load(seconds_for_an_image: float, tmp_path: Path, folder: Path) -> Load:
    stages = own_stages(folder, tmp_path, methods=("scratch", "a2mim"), image_size=224)
    slow = replace(SPEED, computing=seconds_for_an_image, steps=3000, batch_size=32, evaluated=0, reading=0.0)
    return Load(stages, {stage.name: 1.0 for stage in stages}, {kind_of(stage): slow for stage in stages}, 2)


def test_lengths_are_proposed_that_take_about_an_hour_with_words_that_the_command_knows(folder, tmp_path):
    known = {f"--{name.replace('_', '-')}" for name in Axes.__dataclass_fields__}
    for seconds, size in ((0.02, None), (0.1, "96"), (10.0, "64")):
        load = a_load(seconds, tmp_path, folder)
        said = proposal(load)
        options = dict(zip(*[iter(said.partition(" would take")[0].split())] * 2, strict=True))
        assert options.keys() <= known
        assert options.get("--image-size") == size, said
        assert 0 < int(options["--pretrain-steps"]) <= 3000
    assert options["--pretrain-steps"] == "300", "fewer are not worth proposing, however slow the machine"
    assert "days" in duration(load.seconds()) and "hours" in said


def test_durations_have_two_digits():
    said = [duration(seconds) for seconds in (3, 61, 1234, 6000, 40_000, 900_000)]
    assert said == [
        f"about {text}" for text in ("10 seconds", "60 seconds", "21 minutes", "1.7 hours", "11 hours", "10 days")
    ]


def test_without_anything_left_nothing_is_measured(tmp_path):
    assert estimate.tell([], tmp_path, 2) == ""
    assert pace.measure([], at_once=0, threads=None) == []
