"""Commands where no cluster is needed: what is refused, what --dry-run prints, what launching again starts."""

import dataclasses
import io
import pickle
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.__main__ import Benchmark
from benchmarks.axes import Axes, request_of
from benchmarks.plan import make_stages
from benchmarks.scenes.demo_data import write_demo_data
from engine import config
from slurm import record
from slurm.__main__ import main
from slurm.arrays import JobRun
from slurm.job import RunJob
from slurm.launch import choose
from slurm.record import Record
from slurm.resources import Resources
from slurm.status import status_table
from slurm.survey import RunState, interruptions, survey
from slurm.sweeps import SWEEPS, Sweep, expand
from tests.slurm.runs import tiny_run

MODEL = "test_resnet.r160_in1k"


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("scenes") / "demo"
    write_demo_data(folder, num_train=40, num_val=20)
    return folder / "imagenet"


@pytest.fixture
def launch(no_slurm, scenes, tmp_path):
    shared = ["launch", "demo", "--models", MODEL, "--imagenet", str(scenes), "--runs-dir", str(tmp_path / "runs")]
    return lambda *more: main([*shared, *more])


def test_without_slurm_launch_says_so_and_writes_nothing(launch, tmp_path, capsys):
    assert launch() == 2
    assert "no Slurm here (no sbatch and srun on PATH); add --local" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_a_dry_run_prints_jobs_dependencies_and_cost_and_writes_nothing(launch, tmp_path, capsys):
    assert launch("--dry-run", "--seeds", "3") == 0
    shown = capsys.readouterr().out
    assert ": classification, 3 runs, starts at once" in shown
    assert f": classification, 3 runs, after demo-{MODEL}-a2mim-pretrain-s0" in shown
    assert f"demo-{MODEL}-a2mim-classification-s2  after demo-{MODEL}-a2mim-pretrain-s0" in shown
    assert "11 to start, 0 finished" in shown
    assert "GPU-hours" in shown
    assert not (tmp_path / "runs").exists()


def test_a_dry_run_of_a_single_run_prints_its_job_and_cost_and_writes_nothing(no_slurm, tmp_path, capsys):
    folder = tmp_path / "runs/vit"
    assert main(["run", "--gpus-per-node", "8", "--nodes", "2", "--dry-run", "pretrain", "simmim-vit_s-800e",
                 "--run-dir", str(folder), "--data.root", str(tmp_path)]) == 0  # fmt: skip
    shown = capsys.readouterr().out
    assert f"{folder}: simmim-vit_s-800e as one job of 16 processes, starts at once" in shown
    assert "GPU-hours" in shown
    assert not folder.parent.exists()


def test_a_process_computes_with_as_many_threads_as_its_loader_leaves_cores():
    assert [Resources().threads(workers) for workers in (0, 8)] == [1, 1]
    assert [Resources(cpus_per_task=8).threads(workers) for workers in (0, 6, 8)] == [8, 2, 1]


def test_a_time_limit_of_ten_minutes_is_refused_and_explained(launch, capsys):
    assert launch("--time", "0.16") == 2
    error = capsys.readouterr().err
    assert "allowed: more than 10" in error
    assert "time-out" in error
    assert "max_timeouts" in error


def test_a_batch_that_does_not_divide_among_the_gpus_is_refused(launch, capsys):
    assert launch("--gpus-per-node", "3", "--dry-run") == 2
    assert "cannot keep their batch on 1 nodes x 3 GPUs" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["launch", "papr-table"], "no sweep 'papr-table'; nearest: paper-table"),
        (["launch", "cnn"], "--imagenet"),
        (["launch", "cnn", "--imagenet", "x", "--tasks", "captioning"], "no task 'captioning'"),
        (["launch", "cnn", "--imagenet", "x", "--tasks", "detection"], "no data for detection"),
        (["run", "--gpus-per-node", "1"], "run needs a task package"),
        (["start"], "no command 'start'"),
        (["status", "--runs-dir", "nowhere"], "nowhere: no such folder of runs"),
        (["cancel"], "needs the names of sweeps or runs, or --all"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(no_slurm, capsys, arguments, said):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert said in error


@pytest.mark.parametrize("name", sorted(SWEEPS))
def test_every_shipped_sweep_expands_into_valid_runs_parents_first(name, tmp_path):
    sweep = dataclasses.replace(SWEEPS[name](), imagenet=tmp_path)
    stages = expand(sweep, tmp_path, num_tasks=8)
    seen: set[str] = set()
    for stage in stages:
        assert stage.name not in seen
        assert set(stage.needs) <= seen
        config.check(stage.config)
        seen.add(stage.name)


@pytest.mark.parametrize("num_tasks", [1, 8, 16, 64])
def test_the_global_batch_is_that_of_the_recipe_whatever_the_number_of_gpus(num_tasks, tmp_path):
    sweep = Sweep(models=("r50", "vit_b"), imagenet=tmp_path)
    alone = {stage.name: stage.config for stage in expand(sweep, tmp_path, num_tasks=1)}
    for stage in expand(sweep, tmp_path, num_tasks=num_tasks):
        assert stage.config.batch_size == alone[stage.name].batch_size
        assert stage.config.batch_size % (num_tasks * stage.config.accumulation) == 0


def test_the_pickle_holds_the_run_folder_and_nothing_else(tmp_path):
    job = pickle.loads(pickle.dumps(RunJob(tmp_path)))
    assert vars(job) == {"run_dir": str(tmp_path)}
    again = job.checkpoint()
    assert (type(again.function), vars(again.function)) == (RunJob, vars(job))


def state(name: str, what: str) -> RunState:
    return RunState(Record(Path(name)), what)


@pytest.mark.parametrize(
    ("wanted", "started", "blocked"),
    [
        ({"new", "cancelled", "stopped"}, ["new", "stopped", "heir", "next"], ["orphan", "unborn"]),
        (
            {"new", "cancelled", "stopped", "failed"},
            ["failed", "new", "stopped", "orphan", "unborn", "heir", "next"],
            [],
        ),
        ({"failed"}, ["failed", "orphan", "unborn"], []),
    ],
)
def test_only_what_is_neither_finished_nor_running_starts(wanted, started, blocked):
    """launch, launch --retry, retry: the last leaves alone what was cancelled by hand.

    A failed parent's child was cancelled by Slurm, or with --local was never submitted.
    """
    states = {"finished": "finished", "running": "running", "pending": "pending", "failed": "failed", "new": "new",
              "stopped": "stopped", "orphan": "cancelled", "unborn": "new", "heir": "cancelled",
              "next": "new"}  # fmt: skip
    needs = {"orphan": ("failed",), "unborn": ("failed",), "heir": ("running",), "next": ("new",)}
    runs = [JobRun(Path(name), "pretrain", needs=needs.get(name, ())) for name in states]
    choice = choose(runs, {name: state(name, what) for name, what in states.items()}, wanted)
    assert [run.name for run in choice.start] == started
    assert choice.blocked == blocked
    assert (choice.finished, choice.live) == (1, 2)


def test_a_record_survives_torn_lines_and_a_job_that_starts_before_its_submission_is_noted(tmp_path):
    run = tiny_run(tmp_path / "run", needs=("parent",), sweep="first")
    record.append(run.folder, "listed", sweep="second", needs=("parent",))
    record.append(run.folder, "started", job="7_1", host="here", tasks=1)
    record.append(run.folder, "submitted", job="7_1", logs=str(tmp_path))
    with (run.folder / record.FILE).open("a") as file:
        file.write('{"event": "preem\n')
    for event in ("preempted", "started", "timed out", "started", "started"):
        record.append(run.folder, event, job="7_1")
    known = record.read(run.folder)
    assert (known.sweeps, known.needs, known.job) == (("first", "second"), ("parent",), "7_1")
    assert interruptions(known) == "preempted 1x, timed out 1x, restarted 1x"
    assert known.log == tmp_path / "7_1_0_log.out"


def test_in_a_narrow_terminal_nothing_is_cut_short_and_empty_columns_are_left_out():
    numbers = ("0.6/4 epochs", "0.6749", "110", "8.0 min")
    row = (
        "paper-convnext_t-a2mim-pretrain-s0",
        "running",
        "52659288_0",
        *numbers,
        "",
        "its turn on a machine far away",
    )
    console = Console(width=80, file=io.StringIO())
    console.print(status_table([row], "runs", console.width))
    lines = console.file.getvalue().splitlines()
    cells = [
        "".join(parts).replace(" ", "") for parts in zip(*(line.split("│")[1:-1] for line in lines[4:-1]), strict=True)
    ]
    assert cells == [word.replace(" ", "") for word in row if word not in ("", "52659288_0")]


def test_status_of_a_run_that_was_only_prepared(no_slurm, tmp_path, capsys):
    run = tiny_run(tmp_path / "run")
    assert survey([record.read(run.folder)])[0].state == "new"
    assert main(["status", "tiny", "--runs-dir", str(tmp_path)]) == 0
    assert "1 runs: 1 new" in capsys.readouterr().out
    assert main(["logs", "run", "--runs-dir", str(tmp_path)]) == 2
    assert "run has no log yet: it was not submitted" in capsys.readouterr().err


def test_a_sweep_can_be_asked_whatever_a_benchmark_can(tmp_path):
    imagenet, coco = tmp_path / "imagenet", tmp_path / "coco"
    options = {"imagenet": imagenet, "coco": coco, "labels": (0.1, 1.0), "framework": "torchvision", "seeds": 2}
    sweep = Sweep(models=("r50",), methods=("scratch",), num_workers=0, **options)
    stages = expand(sweep, tmp_path / "runs", num_tasks=1)
    run = Benchmark(model="r50", methods=("scratch",), num_workers=0, profile="paper", **options)
    alone = make_stages(request_of(run, "r50", runs_dir=tmp_path / "runs", finetune=None, num_devices=1))
    assert stages == alone
    assert {s.config.framework for s in stages if s.package == "detection"} == {"torchvision"}
    assert {s.config.data.train_fraction for s in stages if s.package == "classification"} == {0.1, 1.0}
    assert {field.name for field in dataclasses.fields(Axes)} <= {field.name for field in dataclasses.fields(Sweep)}
