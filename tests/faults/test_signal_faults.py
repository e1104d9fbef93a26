"""F42, F44, F45, F49, F50: a run that is asked to stop outside its loop, and ranks that lose one another."""

import json
import os
import platform
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from engine import cli
from engine.errors import StopRequested
from engine.run import lock
from engine.run.folder import Run
from engine.training.stop import StopFlag
from tests.engine.test_resume import start, wait_for_step
from tests.engine.test_workers import is_running
from tests.engine.tiny_task import tiny, train
from tests.helpers import environment

TASK = "tests.engine.tiny_task"


@pytest.fixture(autouse=True)
def _handlers():
    """The handlers of this process, as they were; a command that has done its work lets signals pass."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def command(*arguments):
    """Exit code of `python -m tiny tiny ...` in this process."""
    with pytest.raises(SystemExit) as left:
        cli.main("tiny", {"tiny": tiny}, train, ["tiny", "--style", "short", *map(str, arguments)])
    return left.value.code


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2, signal.SIGINT])
def test_outside_the_loop_a_signal_ends_the_run_where_it_is_once(number):
    with pytest.raises(StopRequested, match=f"stopped by {number.name} before the first step"), StopFlag(at_once=True):
        try:
            os.kill(os.getpid(), number)
            time.sleep(5)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)  # while it tidies up: not again
            time.sleep(0.01)


def test_a_loop_that_ended_before_it_could_stop_passes_the_signal_on():
    with pytest.raises(StopRequested, match="SIGUSR2"), StopFlag(at_once=True), StopFlag():
        os.kill(os.getpid(), signal.SIGUSR2)
    with StopFlag() as outer:
        with StopFlag():
            os.kill(os.getpid(), signal.SIGTERM)
        assert outer.asked
        with StopFlag() as inner:
            assert inner.asked


def test_sigterm_during_set_up_exits_75_and_says_the_command_that_runs_it(tmp_path, capsys):
    def when_it_is_set_up():
        while not (tmp_path / "run/environment.json").exists():
            time.sleep(0.005)
        time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=when_it_is_set_up)
    thread.start()
    assert command("--run-dir", tmp_path / "run", "--hold", "0") == 75
    thread.join()
    said = capsys.readouterr().err
    assert said.startswith("stopped by SIGTERM before the first step")
    assert said.count("stopped by") == 1
    assert json.loads((tmp_path / "run/error.json").read_text())["exit_code"] == 75
    assert not (tmp_path / "run/run.lock").exists()
    words = shlex.split(said.splitlines()[1])
    assert words[:3] == ["python", "-m", "tiny"]
    (tmp_path / "run.go").write_text("0")
    with pytest.raises(SystemExit) as left:
        cli.main("tiny", {"tiny": tiny}, train, words[3:])
    assert left.value.code == 0


def test_sigterm_during_export_exits_75_and_resume_does_the_rest(tmp_path, monkeypatch):
    real = Run.finish

    def interrupted(self, metrics, **more):
        os.kill(os.getpid(), signal.SIGTERM)
        real(self, metrics, **more)

    monkeypatch.setattr(Run, "finish", interrupted)
    assert command("--run-dir", tmp_path / "run") == 75
    assert not (tmp_path / "run/finished.json").exists()
    monkeypatch.undo()
    assert command("--run-dir", tmp_path / "run", "--resume") == 0
    assert (tmp_path / "run/finished.json").exists()


def test_an_error_that_the_interruption_caused_is_not_what_is_shown(tmp_path, capsys):
    def swallows(config, run_dir, **options):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        except StopRequested:
            raise ImportError("initialization failed") from None

    with pytest.raises(SystemExit) as left:
        cli.main("tiny", {"tiny": tiny}, swallows, ["tiny", "--run-dir", str(tmp_path / "my run")])
    assert left.value.code == 75
    said = capsys.readouterr().err
    assert said.startswith("stopped by SIGTERM")
    assert said.endswith(f"go on with\n    python -m tiny tiny --run-dir '{tmp_path}/my run'\n"), "nothing is there yet"


def test_a_killed_rank_is_named_by_the_others(tmp_path):
    folder = tmp_path / "run"
    ranks = []
    for rank in ("0", "1"):
        place = {"RANK": rank, "LOCAL_RANK": rank, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29733"}
        ranks.append(
            subprocess.Popen(
                [sys.executable, "-m", TASK, "tiny", "--run-dir", folder, "--hold", "3", "--log-every", "1"],
                env=environment(WORLD_SIZE="2", MIM_TIMEOUT_S="60", **place),
                stderr=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                text=True,
            )
        )
    wait_for_step(folder, 2, ranks[0])
    ranks[1].kill()
    ranks[1].communicate()
    folder.with_name("run.go").write_text("3")
    _, errors = ranks[0].communicate(timeout=60)
    assert ranks[0].returncode == 7, errors
    gone = f"rank 1 (process {ranks[1].pid} on {platform.node()}) is gone"
    assert f"error: rank 0 of 2 cannot go on: {gone}" in errors
    assert "Traceback" not in errors
    error = json.loads((folder / "error.json").read_text())
    assert (error["exit_code"], error["type"]) == (7, "RankLostError")
    assert not (folder / "run.lock").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent's death")
def test_ranks_whose_torchrun_was_killed_save_and_leave_the_run_folder(tmp_path):
    folder = tmp_path / "run"
    launcher = start("tiny", "--run-dir", folder, "--hold", "3", "--log-every", "1", ranks=2)
    wait_for_step(folder, 2, launcher)
    ranks = [int(pid) for pid in Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()]
    assert lock.owner(folder)["pid"] in ranks
    os.kill(launcher.pid, signal.SIGKILL)
    launcher.wait()
    deadline = time.monotonic() + 60
    while any(is_running(pid) for pid in ranks):
        assert time.monotonic() < deadline, "a rank trains on"
        time.sleep(0.05)
    assert lock.owner(folder) is None
    assert json.loads((folder / "error.json").read_text())["exit_code"] == 75
    assert (folder / "checkpoints/LATEST").read_text() == "00000003"
