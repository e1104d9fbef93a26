"""A whole sweep on a real Slurm: the table of `python -m benchmarks run`, and a thousand runs in seconds."""

import resource
import subprocess
import time

import numpy as np
import pandas as pd
import pytest

from benchmarks.progress import is_finished
from benchmarks.scenes.demo_data import write_demo_data
from results.runs.collect import collect
from results.tables.rows import benchmark_table
from slurm import record, scheduler
from slurm.__main__ import main
from tests.helpers import run_module
from tests.slurm.runs import wait_for

pytestmark = pytest.mark.slurm

MODEL = "test_resnet.r160_in1k"  # timm's own smallest ResNet
METHODS = ("scratch", "simmim", "a2mim")
MEASURED_TIMES = ["hours", "pretrain_hours", "images_per_second"]


def clocks() -> np.ndarray:
    """Seconds on the wall, and of processor time of this process and its ended children: a busy machine needs no more
    of the latter."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return np.array([time.perf_counter(), sum(usage.ru_utime + usage.ru_stime for usage in usages)])


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes") / "demo"
    write_demo_data(folder, num_train=200, num_val=20)
    return folder / "imagenet"


def test_a_demo_sweep_with_a_preempted_job_gives_the_table_of_the_benchmark_command(slurm, scenes, tmp_path, capsys):
    shared = ["--methods", *METHODS, "--imagenet", str(scenes), "--num-workers", "0"]
    runs_dir, alone_dir = tmp_path / "runs", tmp_path / "alone"
    launch = ["launch", "demo", "--models", MODEL, "--runs-dir", str(runs_dir), "--gpus-per-node", "0", *shared]
    assert main(launch) == 0
    assert "5 runs submitted as 3 jobs and arrays" in capsys.readouterr().out

    folders = {folder.parent.name: folder.parent for folder in runs_dir.glob(f"*/{record.FILE}")}
    parents = [folder for name, folder in folders.items() if "pretrain" in name]
    wait_for(lambda: any((folder / "checkpoints/LATEST").exists() for folder in parents), "a first checkpoint")
    preemptor = ["sbatch", "--partition=high", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap=sleep 1"]
    subprocess.run(preemptor, check=True, capture_output=True)
    assert main(launch) == 0
    assert "demo: 0 to start, " in capsys.readouterr().out
    alone = run_module("benchmarks", "run", "--model", MODEL, "--runs-dir", str(alone_dir), *shared, timeout=600)
    assert alone.returncode == 0, alone.stdout + alone.stderr
    wait_for(lambda: all(is_finished(folder) for folder in folders.values()), "the sweep", seconds=600)

    assert any(record.read(folder).count("preempted") for folder in folders.values())
    for folder in folders.values():  # a child began when its own parent had finished
        for need in record.read(folder).needs:
            assert (folders[need] / "finished.json").stat().st_mtime <= record.read(folder).events[0]["time"]
    assert main(["status", "demo", "--runs-dir", str(runs_dir)]) == 0
    assert "5 runs: 5 finished" in capsys.readouterr().out
    tables = [benchmark_table(collect([each / name for name in folders])[0]) for each in (runs_dir, alone_dir)]
    ours, theirs = (table.drop(columns=MEASURED_TIMES) for table in tables)
    assert len(ours), "an empty table equals another"
    pd.testing.assert_frame_equal(ours, theirs, check_exact=True)


def test_a_thousand_runs_are_submitted_and_shown_in_seconds(slurm, scenes, tmp_path, capsys):
    models = ["r50", "r101", "r152", "r200", "convnext_t", "convnext_s", "convnext_b", "vit_s", "vit_b", "vit_l"]
    launch = ["launch", "paper-table", "--models", *models, "--seeds", "20", "--pretrain-seeds", "20", "--imagenet",
              str(scenes), "--runs-dir", str(tmp_path), "--partition", "closed", "--cpus-per-task", "2"]  # fmt: skip
    began = clocks()
    assert main(launch) == 0
    submitting = clocks() - began
    assert "1000 runs submitted as 3 jobs and arrays" in capsys.readouterr().out
    began = clocks()
    shown = run_module("slurm", "status", "paper-table", "--runs-dir", str(tmp_path), **slurm.environment)
    showing = clocks() - began
    assert "1000 runs: 1000 pending" in shown.stdout, shown.stderr
    with capsys.disabled():
        print("\n1000 runs expanded and submitted in {} s ({} s of processor time), ".format(*submitting.round(1)))
        print("and shown in {} s ({} s of processor time)".format(*showing.round(1)))
    assert submitting[1] < 60
    assert showing[1] < 5
    assert main(launch) == 0
    assert "0 to start, 0 finished, 1000 in the queue or running" in capsys.readouterr().out
    assert main(["cancel", "paper-table", "--runs-dir", str(tmp_path)]) == 0
    user = (tmp_path / "slurm").owner()
    wait_for(lambda: not scheduler.queued(user), "an empty queue")
    shown = run_module("slurm", "status", "paper-table", "--runs-dir", str(tmp_path), **slurm.environment)
    assert "1000 runs: 1000 cancelled" in shown.stdout, shown.stdout[-2000:] + shown.stderr
