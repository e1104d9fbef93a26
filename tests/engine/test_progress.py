"""What a person watches: the bar on a terminal, and the trackers that MIM_TRACKERS names."""

import os
import pty
import subprocess
import sys
import types

import pytest

from engine.errors import ConfigError
from engine.training import progress
from tests.engine.tiny_task import TinyConfig, train
from tests.helpers import ROOT, environment


def test_a_terminal_gets_a_bar_with_loss_speed_data_wait_and_time_left(tmp_path):
    master, slave = pty.openpty()
    command = [
        sys.executable,
        "-m",
        "tests.engine.tiny_task",
        "tiny",
        "--run-dir",
        str(tmp_path / "run"),
        "--slow",
        "0.1",
    ]
    shown = environment(TERM="xterm", COLUMNS="160")
    process = subprocess.Popen(command, cwd=ROOT, env=shown, stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    text = b""
    while True:
        try:
            text += os.read(master, 4096)
        except OSError:  # the other end is closed
            break
    assert process.wait(60) == 0
    seen = text.decode(errors="replace")
    for part in (
        "loss",
        "images/s",
        "data wait",
        "step 14/14, epoch 2.3/2.33",
        "elapsed",
        "reading images, first step",
    ):
        assert part in seen, seen[-2000:]
    assert "step 14/14 train" not in seen, "plain lines are for what is no terminal"


def test_a_notebook_gets_one_line_that_is_written_over_itself(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ipykernel", types.ModuleType("ipykernel"))
    train(TinyConfig(steps=6, log_every=2, evaluate_every=3), tmp_path / "run")
    said = capsys.readouterr().err
    last = [line for line in said.split("\r") if line.startswith("run")][-1]
    assert "step 6/6, epoch 1.0/1" in last
    assert "elapsed" in last
    assert "images/s" in last
    assert "step 3/6 val: accuracy" in said


@pytest.mark.parametrize("names", ["tensorbord", "tensorboard,wandbb"])
def test_an_unknown_tracker_is_refused_before_a_folder_is_made(tmp_path, monkeypatch, names):
    monkeypatch.setenv("MIM_TRACKERS", names)
    with pytest.raises(ConfigError, match=r"no tracker .*; there are tensorboard, wandb"):
        train(TinyConfig(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_trackers_are_a_list_that_may_be_empty(monkeypatch):
    monkeypatch.setenv("MIM_TRACKERS", "")
    assert progress.trackers() == []
    monkeypatch.setenv("MIM_TRACKERS", " tensorboard ,")
    assert progress.trackers() == ["tensorboard"]
    monkeypatch.delenv("MIM_TRACKERS")
    assert progress.trackers() == ["tensorboard"]
