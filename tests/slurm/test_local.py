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

from engine import lock
from slurm import record
from slurm.__main__ import main
from slurm.arrays import Run
from slurm.local import run_local
from slurm.resources import Resources
from tests.engine.tiny_task import TinyConfig, TinyData
from tests.helpers import ROOT, assert_same_bytes, environment
from tests.slurm.conftest import clean
from tests.slurm.runs import CPU, events, last_step, state, tiny_run, wait_for
from tests.slurm.tiny.train import train


@pytest.fixture(autouse=True)
def _clean(monkeypatch):
    clean(monkeypatch)


def start(run: Run, *, hours: float = 1.0, max_timeouts: int = 5) -> multiprocessing.Process:
    """Run a prepared folder from a process of its own, forked because importing torch again takes seconds."""
    resources = Resources(gpus_per_node=0, time=hours, max_timeouts=max_timeouts)

    def body() -> None:
        os.setsid()
        sys.exit(run_local([run], resources, runs_dir=run.folder.parent, label="tiny"))

    process = multiprocessing.get_context("fork").Process(target=body)
    process.start()
    return process


def end(process: multiprocessing.Process, seconds: float = 90) -> int | None:
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


def test_a_signal_to_every_process_of_a_run_saves_once_and_continues_to_the_same_bytes(tmp_path):
    run, undisturbed = (tiny_run(tmp_path / name, slow=0.2, num_workers=2, log_every=1) for name in ("a", "b"))
    process = start(run)
    wait_for(lambda: last_step(run) >= 5, "five steps", run)
    signal_all(run)
    train(TinyConfig(slow=0.2, log_every=1, data=TinyData(num_workers=2)), undisturbed.folder, resume=True)
    assert end(process) == 0
    assert events(run) == ["started", "preempted", "started"]
    assert_same_bytes(undisturbed.folder, run.folder)


def test_a_run_that_times_out_too_often_stops_with_its_state_saved_and_says_how_to_go_on(tmp_path):
    """With a limit of six minutes submitit takes every signal for a time-out, which is why launch refuses it."""
    run = tiny_run(tmp_path / "run", slow=0.3, log_every=1)
    process = start(run, hours=0.1, max_timeouts=1)
    wait_for(lambda: last_step(run) >= 2, "two steps", run)
    signal_all(run)
    wait_for(lambda: events(run).count("started") == 2 and last_step(run) >= 5, "the second start", run)
    signal_all(run)
    assert end(process) == 1
    assert events(run) == ["started", "timed out", "started", "timed out", "failed"]
    error = json.loads((run.folder / "error.json").read_text())
    assert error["message"].startswith("timed-out too many times. The state is saved: python -m slurm retry run ")
    assert state(run).state == "failed"
    assert main(["retry", "run", "--runs-dir", str(tmp_path)]) == 0
    assert state(run).state == "finished"


def test_ctrl_c_saves_and_the_same_command_continues(tmp_path):
    command = [sys.executable, "-m", "slurm", "run", "--local", "--gpus-per-node", "0", "tests.slurm.tiny", "tiny",
               "--run-dir", str(tmp_path / "run"), "--slow", "0.3", "--log-every", "1"]  # fmt: skip
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )
    folder = tmp_path / "run"
    wait_for(lambda: (folder / "checkpoints/LATEST").exists(), "a first checkpoint")
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does it
    output = process.communicate(timeout=60)[0].decode()
    assert process.returncode == 75, output
    again = subprocess.run(
        command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=90, check=False
    )
    assert again.returncode == 0, again.stdout + again.stderr
    assert (folder / "finished.json").exists()
    assert record.read(folder).last("started") is not None
