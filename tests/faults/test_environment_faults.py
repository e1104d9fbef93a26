"""F07 and its kin: what surrounds a run. Variables that make no sense are refused by name; decorative things that are
missing are recorded as unknown, said once, and stop nothing."""

import errno
import json
import logging
import shutil
import subprocess
import sys

import pytest
import torch
from torch._inductor.exc import CppCompileError, InductorError, InvalidCxxCompiler

from engine import distributed
from engine.errors import CheckpointError, ConfigError, MemoryExhaustedError
from engine.explain import explain
from engine.run import environment
from engine.training import progress
from tests.engine.tiny_task import TinyConfig, train
from tests.helpers import ROOT, run_python
from tests.helpers import environment as environment_of_tests


def can_mount():
    return shutil.which("unshare") and subprocess.run(["unshare", "--mount", "true"], check=False).returncode == 0


TWO_RANKS = {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        *[({"WORLD_SIZE": value}, "WORLD_SIZE") for value in ("", "0", "-2", "two", "1.5", "1_0", "\u0663")],
        ({"WORLD_SIZE": "2"}, "RANK"),  # left over from another shell
        *[({**TWO_RANKS, name: ""}, name) for name in ("RANK", "MASTER_ADDR", "MASTER_PORT")],
        ({**TWO_RANKS, "RANK": "2"}, "RANK"),
        ({**TWO_RANKS, "MASTER_PORT": "70000"}, "MASTER_PORT"),
        ({"LOCAL_RANK": "x"}, "LOCAL_RANK"),
        *[({"MIM_TIMEOUT_S": value}, "MIM_TIMEOUT_S") for value in ("10min", "", "0", "-1", "nan", "inf", "1e300")],
        ({"MIM_DEVICE": ""}, "MIM_DEVICE"),
        ({"MIM_DEVICE": "gpu"}, "MIM_DEVICE"),
        ({"MIM_TRACKERS": "paper"}, "MIM_TRACKERS"),
    ],
)
def test_a_variable_that_makes_no_sense_is_refused_by_name(tmp_path, monkeypatch, variables, named):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=named):
        train(TinyConfig(steps=1), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_ranks_that_never_come_are_waited_for_as_long_as_said_and_named(tmp_path, monkeypatch):
    for name, value in {**TWO_RANKS, "MASTER_PORT": "29741", "MIM_TIMEOUT_S": "1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=r"2 ranks that WORLD_SIZE announces did not meet at 127.0.0.1:29741"):
        train(TinyConfig(steps=1), tmp_path / "run")
    assert not torch.distributed.is_initialized()


@pytest.fixture
def _forgetful():
    """What is known of this process's surroundings is asked anew, before and after."""
    yield
    environment.git_commit.cache_clear()
    environment.version.cache_clear()


@pytest.mark.usefixtures("_forgetful")
def test_a_run_needs_no_git_no_metadata_no_processor_name_and_no_tensorboard(tmp_path, monkeypatch, caplog):
    environment.git_commit.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("MIM_TRACKERS", "tensorboard")
    monkeypatch.setattr(environment, "PACKAGES", ("torch", "never-installed"))
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)  # importing it now raises ImportError
    with caplog.at_level(logging.WARNING):
        train(TinyConfig(steps=2), tmp_path / "run")
        train(TinyConfig(steps=2), tmp_path / "again")
    recorded = json.loads((tmp_path / "run/environment.json").read_text())
    assert recorded["git_commit"] is None
    assert recorded["versions"] == {"torch": environment.version("torch"), "never-installed": None}
    said = caplog.text
    assert said.count("git cannot be asked for the commit, which is recorded as unknown") == 1
    assert said.count("no metadata of the package never-installed") == 1
    assert said.count("going on without tensorboard: ") == 2  # once a run
    assert json.loads((tmp_path / "run/finished.json").read_text())["metrics"]


def test_a_tracker_that_fails_in_mid_run_is_left_out_from_there_on(tmp_path, monkeypatch, caplog):
    class Full:
        def __init__(self, run, first_step):
            self.closed = False

        def write(self, split, step, values):
            raise OSError(errno.ENOSPC, "No space left on device")

        def close(self):
            raise AssertionError("closed after it failed")

    monkeypatch.setitem(progress._TRACKERS, "tensorboard", Full)
    monkeypatch.setenv("MIM_TRACKERS", "tensorboard")
    with caplog.at_level(logging.WARNING):
        train(TinyConfig(steps=6), tmp_path / "run")
    assert caplog.text.count("going on without tensorboard: OSError: [Errno 28] No space left on device") == 1


def test_a_terminal_of_another_alphabet_gets_escapes_instead_of_an_error():
    code = "from engine import cli\nwith cli.guard(): print('59 \\u00b1 0.3 \\u2192 \\U0001f600 \\udcff')"
    done = run_python("-c", code, PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "59 \\xb1 0.3 \\u2192 \\U0001f600 \\udcff\n"


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (OSError(errno.EROFS, "Read-only file system", "/runs/a/panels.png"), CheckpointError, "/runs/a/panels.png"),
        (OSError(errno.ENOSPC, "No space left on device"), CheckpointError, "No space left"),
        (RuntimeError("Error while serializing: I/O error (os error 30)"), CheckpointError, "Read-only file system"),
        (MemoryError(), MemoryExhaustedError, "batch_size 8"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 9 bytes."),
            MemoryExhaustedError,
            "9 bytes",
        ),
        (
            InductorError(CppCompileError(["g++"], "x.cpp:26:10: fatal error: Python.h: No such file"), None),
            ConfigError,
            "(x.cpp:26:10: fatal error: Python.h: No such file)",
        ),
        (InductorError(InvalidCxxCompiler("c++"), None), ConfigError, "(Compiler: c++ is not found.)"),
    ],
)
def test_what_the_machine_refuses_is_told_by_its_own_exit_code(error, kind, said):
    shown = explain(error, {"batch_size": 8})
    assert type(shown) is kind
    assert said in str(shown)
    assert explain(KeyError("x")).args == ("x",), "an error that says nothing of the machine stays what it is"


_SMALL_SHARED_MEMORY_THEN_READ_ONLY = """
import subprocess, sys
from pathlib import Path
import torch
from engine import cli
from tests.engine import tiny_task
from tests.engine.tiny_task import TinyConfig, TinyData, train

def mount(*arguments):
    subprocess.run(["mount", *arguments], check=True)

def collate(samples):  # like those of the tasks, whose batches are handed over by a thread of the worker
    return {name: torch.stack([torch.as_tensor(sample[name]) for sample in samples]) for name in samples[0]}

mount("-t", "tmpfs", "tmpfs", sys.argv[1])
folder = Path(sys.argv[1])
options = tiny_task.LoaderOptions
tiny_task.LoaderOptions = lambda **given: options(**given, collate=collate)
for size in ("4k", "48k"):  # no room for the workers' semaphores; none for their batches
    mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", "/dev/shm")
    try:
        with cli.guard():
            train(TinyConfig(steps=4, data=TinyData(num_workers=1)), folder / size)
    except SystemExit as left:
        print("shared memory", left.code, flush=True)

def evaluate(self, model, step, check_stop):
    mount("-o", "remount,ro", sys.argv[1])
    (self.run_dir / "panel.png").write_bytes(b"x")

tiny_task.Task.evaluate = evaluate
try:
    with cli.guard():
        train(TinyConfig(steps=8), folder / "read-only")
except SystemExit as left:
    print("read-only", left.code, flush=True)
"""


@pytest.mark.skipif(not can_mount(), reason="needs the right to mount")
def test_small_shared_memory_exits_3_and_storage_turned_read_only_exits_5_each_in_its_own_words(tmp_path):
    command = ["unshare", "--mount", sys.executable, "-c", _SMALL_SHARED_MEMORY_THEN_READ_ONLY, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment_of_tests(), cwd=ROOT)
    assert done.stdout.splitlines() == ["shared memory 3", "shared memory 3", "read-only 5"], done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    for error in errors[:2]:
        assert "/dev/shm" in error
        assert "--data.num-workers 0" in error
    assert errors[2].startswith(f"error: cannot read or write {tmp_path}/read-only/panel.png: Read-only file system")
    assert "Traceback" not in done.stderr


def test_a_single_process_needs_none_of_the_variables(monkeypatch):
    for name in (*TWO_RANKS, "LOCAL_RANK", "MIM_TIMEOUT_S"):
        monkeypatch.delenv(name, raising=False)
    distributed.check_environment()
    monkeypatch.setenv("WORLD_SIZE", "1")
    distributed.check_environment()
