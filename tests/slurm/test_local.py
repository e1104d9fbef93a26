"""The same job objects on this machine: order, interruption, limits and stopping."""

import dataclasses
import json
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.scenes.demo_data import write_demo_data
from engine.errors import ConfigError
from engine.run import lock
from slurm import record
from slurm.__main__ import main
from slurm.arrays import JobRun
from slurm.launch import check_batches, choose, look
from slurm.local import find_gpus, line_up, run_local
from slurm.resources import Resources
from tests.engine.tiny_task import TinyConfig, TinyData
from tests.helpers import ROOT, assert_same_bytes, environment, run_python
from tests.slurm.conftest import clean
from tests.slurm.runs import CPU, PACKAGE, PATIENCE_S, events, let_go, state, tiny_run, wait_for_step
from tests.slurm.tiny.train import train


@pytest.fixture(autouse=True)
def _clean(monkeypatch):
    clean(monkeypatch)


def start(*runs: JobRun, hours: float = 1.0, max_timeouts: int = 5, **more: int) -> multiprocessing.Process:
    """Run prepared folders from a process of its own, forked because importing torch again takes seconds."""
    resources = Resources(**{"gpus_per_node": 0, "time": hours, "max_timeouts": max_timeouts, **more})

    def body() -> None:
        os.setsid()
        line_up(runs)
        sys.exit(run_local(runs, resources, runs_dir=runs[0].folder.parent, label="tiny"))

    process = multiprocessing.get_context("fork").Process(target=body)
    process.start()
    return process


def end(process: multiprocessing.Process, seconds: float = PATIENCE_S) -> int | None:
    process.join(seconds)
    return process.exitcode


def signal_all(run) -> None:
    """USR2 to every process of the run, as Slurm does it: the loader's workers too."""
    process = lock.owner(run.folder)["pid"]
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    for each in (*map(int, children), process):
        os.kill(each, signal.SIGUSR2)


def test_children_follow_their_parent_and_only_a_failed_parents_are_left_out(tmp_path, capsys):
    good, bad = tiny_run(tmp_path / "good", steps=4), tiny_run(tmp_path / "bad", steps=4, poison_step=2)
    heir = tiny_run(tmp_path / "heir", needs=("good",), steps=4)
    orphan = tiny_run(tmp_path / "orphan", needs=("bad",))
    two_at_a_time = dataclasses.replace(CPU, array_parallelism=2)
    assert run_local([bad, good, heir, orphan], two_at_a_time, runs_dir=tmp_path, label="tiny") == 1
    assert [state(run).state for run in (good, heir, bad, orphan)] == ["finished", "finished", "failed", "new"]
    assert record.read(heir.folder).events[0]["time"] >= (good.folder / "finished.json").stat().st_mtime
    assert record.read(bad.folder).last("failed")["exit_code"] == 4
    assert main(["status", "--runs-dir", str(tmp_path)]) == 1
    shown = capsys.readouterr().out
    assert "bad failed: DivergedError: " in shown
    assert "waits for bad, failed" in shown


def test_what_waits_here_is_not_started_twice_and_a_cancelled_sweep_starts_nothing_more(tmp_path, capsys):
    parent, child = (
        tiny_run(tmp_path / "parent", hold="7", log_every=1),
        tiny_run(tmp_path / "child", needs=("parent",)),
    )
    other = tiny_run(tmp_path / "other")
    process = start(parent, child, other)
    wait_for_step(parent, 6)
    again = choose([parent, child, other], look([parent, child, other]), {"new", "cancelled", "stopped"}, local=True)
    assert (again.start, again.live) == ([], 3)
    assert main(["cancel", "tiny", "--runs-dir", str(tmp_path)]) == 0
    assert end(process) == 75
    assert "3 runs cancelled" in capsys.readouterr().out
    assert [state(run).state for run in (parent, child, other)] == ["stopped", "new", "new"]
    assert main(["cancel", "tiny", "--runs-dir", str(tmp_path)]) == 0
    assert "nothing to cancel" in capsys.readouterr().out


def test_each_run_has_gpus_of_its_own_among_those_it_may_use(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    runs = [tiny_run(tmp_path / name, hold="7", log_every=1) for name in "ab"]
    process = start(*runs, gpus_per_node=1, array_parallelism=2)
    seen = []
    for run in runs:
        wait_for_step(run, 6)
        variables = Path(f"/proc/{lock.owner(run.folder)['pid']}/environ").read_text().split("\0")
        seen.append(dict(line.split("=", 1) for line in variables if line)["CUDA_VISIBLE_DEVICES"])
    let_go(*runs)
    assert end(process) == 0
    assert seen == ["3", "5"]
    with pytest.raises(ConfigError, match="--gpus-per-node 3 with --local: 2 to be used here"):
        check_batches({}, Resources(gpus_per_node=3), local=True)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert find_gpus() == ()


def test_here_nothing_starts_before_a_parent_that_another_launch_runs(tmp_path):
    parent, child = (
        tiny_run(tmp_path / "parent", hold="7", log_every=1),
        tiny_run(tmp_path / "child", needs=("parent",)),
    )
    process = start(parent)
    wait_for_step(parent, 6)
    states = look([parent, child])
    assert choose([parent, child], states, {"new"}, local=True).blocked == ["child"]
    assert choose([parent, child], states, {"new"}).start == [child], "Slurm would let it wait"
    let_go(parent)
    assert end(process) == 0


def test_a_signal_to_every_process_of_a_run_saves_once_and_continues_to_the_same_bytes(tmp_path):
    run, undisturbed = (tiny_run(tmp_path / name, hold="7", num_workers=2, log_every=1) for name in ("a", "b"))
    process = start(run)
    wait_for_step(run, 6)
    signal_all(run)
    let_go(undisturbed)
    train(TinyConfig(hold="7", log_every=1, data=TinyData(num_workers=2)), undisturbed.folder, resume=True)
    assert end(process) == 0
    assert events(run) == ["started", "preempted", "started"]
    assert_same_bytes(undisturbed.folder, run.folder)


def test_a_run_that_times_out_too_often_stops_with_its_state_saved_and_says_how_to_go_on(tmp_path):
    """With a limit of six minutes submitit takes every signal for a time-out, which is why launch refuses it."""
    run = tiny_run(tmp_path / "run", hold="3,7", log_every=1)
    process = start(run, hours=0.1, max_timeouts=1)
    wait_for_step(run, 2)
    signal_all(run)
    wait_for_step(run, 6)
    signal_all(run)
    assert end(process) == 1
    assert events(run) == ["started", "timed out", "started", "timed out", "failed"]
    error = json.loads((run.folder / "error.json").read_text())
    assert error["message"].startswith("timed-out too many times. The state is saved: python -m slurm retry run ")
    assert state(run).state == "failed"
    assert main(["retry", "run", "--runs-dir", str(tmp_path)]) == 0
    assert state(run).state == "finished"


def test_ctrl_c_saves_and_the_same_command_continues(tmp_path):
    command = ["-m", "slurm", "run", "--local", "--gpus-per-node", "0", "tests.slurm.tiny", "tiny",
               "--run-dir", str(tmp_path / "run"), "--hold", "7", "--log-every", "1"]  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, *command],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    run = JobRun(tmp_path / "run", PACKAGE)
    wait_for_step(run, 6)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does it
    output = process.communicate(timeout=PATIENCE_S)[0].decode()
    assert process.returncode == 75, output
    let_go(run)
    again = run_python(*command, timeout=PATIENCE_S)
    assert again.returncode == 0, again.stdout + again.stderr
    assert state(run).state == "finished"
    assert f"continuing {run.folder} at step 7" in record.read(run.folder).log.read_text()


def test_full_memory_fails_with_the_way_out_and_without_another_try(tmp_path):
    run = tiny_run(tmp_path / "run", poison_step=2, poison_memory=True)
    assert run_local([run], CPU, runs_dir=tmp_path, label="tiny") == 1
    assert events(run) == ["started", "failed"]
    failure = record.read(run.folder).last("failed")
    assert failure["exit_code"] == 6
    assert "peak 0.0 GB, batch_size 8, accumulation 1)" in state(run).reason
    assert "with --accumulation 2 or more" in state(run).reason
    assert json.loads((run.folder / "error.json").read_text())["exit_code"] == 6


def test_a_sweep_runs_here_and_again_does_nothing(tmp_path, capsys):
    write_demo_data(tmp_path / "demo", num_train=40, num_val=20)
    launch = ["launch", "demo", "--local", "--gpus-per-node", "0", "--models", "test_resnet.r160_in1k",
              "--methods", "scratch", "--imagenet", str(tmp_path / "demo/imagenet"), "--num-workers", "0",
              "--runs-dir", str(tmp_path / "runs")]  # fmt: skip
    assert main(launch) == 0
    assert "demo-test_resnet.r160_in1k-scratch-classification-s0: finished" in capsys.readouterr().out
    assert main(launch) == 0
    assert "demo: 0 to start, 1 finished" in capsys.readouterr().out
    assert main(["status", "demo", "--runs-dir", str(tmp_path / "runs")]) == 0
    assert "1 runs: 1 finished" in capsys.readouterr().out
