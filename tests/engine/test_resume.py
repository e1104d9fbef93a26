"""Promise 1: a run killed at any instant and resumed ends with the same bytes as one that never stopped."""

import json
import os
import signal
import time
from pathlib import Path

import pytest

from tests.forked import run_module
from tests.helpers import assert_same_bytes, final_files, on_ranks, start_python

TASK = "tests.engine.tiny_task"


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    """Run folders of undisturbed runs by their options."""
    known = {}

    def get(*options, ranks=1):
        key = (options, ranks)
        if key not in known:
            folder = tmp_path_factory.mktemp("undisturbed") / "run"
            finish(folder, *options, ranks=ranks)
            known[key] = folder
        return known[key]

    return get


def start(*arguments, ranks=1, **env):
    launcher = on_ranks(ranks) if ranks > 1 else []
    return start_python(*launcher, "-m", TASK, *arguments, **env)


def finish(folder, *options, ranks=1):
    """Run the task to its end."""
    done = run_module(TASK, "tiny", "--run-dir", folder, *options, ranks=ranks)
    assert done.returncode == 0, done.stderr


def wait_for_step(folder, step, process):
    deadline = time.monotonic() + 60
    timing = folder / "timing.jsonl"
    while time.monotonic() < deadline and process.poll() is None:
        if timing.exists() and any(f'"step": {s},' in timing.read_text() for s in range(step, 200)):
            return
        time.sleep(0.005)
    raise AssertionError(f"the run ended before step {step}: {process.stderr.read()}")


@pytest.mark.parametrize("workers", [0, 2])
def test_kill_9_in_the_middle_of_an_epoch_then_resume_gives_the_same_bytes(tmp_path, undisturbed, workers):
    options = ("--data.num-workers", str(workers), "--accumulation", "2", "--precision", "bfloat16", "--ema", "True")
    process = start("tiny", "--run-dir", tmp_path / "run", *options, "--slow", "0.02")
    wait_for_step(tmp_path / "run", 6, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "run" / "finished.json").exists()
    finish(tmp_path / "run", *options, "--slow", "0.02", "--resume")
    assert_same_bytes(tmp_path / "run", undisturbed(*options, "--slow", "0.02"))


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR2", "SIGINT"])
def test_a_signal_saves_within_the_step_and_exits_75(tmp_path, undisturbed, name):
    number = int(getattr(signal, name))
    stopped = run_module(TASK, "tiny", "--run-dir", tmp_path / "run", "--signal-at", f"6:{number}")
    assert stopped.returncode == 75, stopped.stderr
    assert f"stopped by {name} after step 6 of 14" in stopped.stderr
    assert (tmp_path / "run/checkpoints/LATEST").read_text() == "00000006"
    resumed = run_module(TASK, "tiny", "--run-dir", tmp_path / "run", "--signal-at", f"6:{number}", "--resume")
    assert resumed.returncode == 0, resumed.stderr
    reference = undisturbed()
    ours, theirs = final_files(tmp_path / "run"), final_files(reference)
    ours.pop("config.json"), theirs.pop("config.json")
    assert ours == theirs


def test_two_ranks_killed_and_resumed_give_the_same_bytes_as_two_undisturbed_ranks(tmp_path, undisturbed):
    options = ("--data.num-workers", "1", "--slow", "0.03")
    process = start("tiny", "--run-dir", tmp_path / "run", *options, ranks=2)
    wait_for_step(tmp_path / "run", 6, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(0.5)
    finish(tmp_path / "run", *options, "--resume", ranks=2)
    assert_same_bytes(tmp_path / "run", undisturbed(*options, ranks=2))


def test_a_signal_to_every_process_of_the_task_is_survived_by_the_loader_workers(tmp_path, undisturbed):
    options = ("--data.num-workers", "2", "--slow", "0.02")
    process = start("tiny", "--run-dir", tmp_path / "run", *options)
    wait_for_step(tmp_path / "run", 3, process)
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(30) == 75, process.stderr.read()
    finish(tmp_path / "run", *options, "--resume")
    assert_same_bytes(tmp_path / "run", undisturbed(*options))


@pytest.mark.parametrize(("ranks", "workers"), [(1, 2), (2, 0)])
def test_unreadable_data_on_any_rank_saves_the_state_of_all_and_can_be_continued(tmp_path, undisturbed, ranks, workers):
    # An evaluation before every step: the one before the unreadable sample is done again, and stands there once.
    options = ("--data.num-workers", str(workers), "--evaluate-every", "1", "--checkpoint-every", "50")
    broken = run_module(TASK, "tiny", "--run-dir", tmp_path / "run", *options, ranks=ranks, TINY_BAD_SAMPLE="40")
    assert broken.returncode != 0
    error = json.loads((tmp_path / "run/error.json").read_text())
    assert (error["exit_code"], error["message"]) == (3, "sample 40: cannot be read")
    stopped_at = int((tmp_path / "run/checkpoints/LATEST").read_text())
    assert 6 <= stopped_at < 12, "the sample is used in the second epoch, steps 7 to 12"
    finish(tmp_path / "run", *options, "--resume", ranks=ranks)
    assert_same_bytes(tmp_path / "run", undisturbed(*options, ranks=ranks))


def kill_workers(process, number):
    workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    for worker in workers[-number:]:
        os.kill(int(worker), signal.SIGKILL)


def test_a_killed_loader_worker_is_named_and_the_run_can_be_continued(tmp_path, undisturbed):
    options = ("--data.num-workers", "2", "--slow", "0.1")
    process = start("tiny", "--run-dir", tmp_path / "run", *options)
    wait_for_step(tmp_path / "run", 3, process)
    kill_workers(process, 1)
    killed = time.monotonic()
    assert process.wait(30) == 3, process.stderr.read()
    assert time.monotonic() - killed < 15, "torch looks every five seconds"
    message = json.loads((tmp_path / "run/error.json").read_text())["message"]
    assert "loader worker" in message
    assert "memory" in message
    finish(tmp_path / "run", *options, "--resume")
    assert_same_bytes(tmp_path / "run", undisturbed(*options))


def test_workers_killed_with_batches_not_yet_handed_over_are_named_too(tmp_path):
    process = start("tiny", "--run-dir", tmp_path / "run", "--data.num-workers", "2", "--hold", "3", "--log-every", "1")
    wait_for_step(tmp_path / "run", 2, process)
    time.sleep(1)  # they read ahead and wait
    kill_workers(process, 2)
    (tmp_path / "run.go").write_text("3")
    assert process.wait(30) == 3, process.stderr.read()
    assert "a loader worker died" in json.loads((tmp_path / "run/error.json").read_text())["message"]
    assert int((tmp_path / "run/checkpoints/LATEST").read_text()) >= 3, "a step or two had their batches already"


def test_a_second_interrupt_leaves_at_once(tmp_path):
    process = start("tiny", "--run-dir", tmp_path / "run", "--slow", "3")
    deadline = time.monotonic() + 30
    while not (tmp_path / "run/checkpoints/00000000").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    assert process.wait(2) == 130


def test_the_same_samples_whatever_the_ranks_and_accumulation():
    from engine.data.loader import LoaderOptions, micro_batches
    from engine.data.order import SamplePlan

    plan = SamplePlan(50, 12, seed=3)
    for step in range(9):
        whole = plan.batch(step)
        for ranks, accumulation in [(1, 1), (2, 1), (3, 2), (1, 4)]:
            parts = [
                key
                for rank in range(ranks)
                for micro in micro_batches(whole, LoaderOptions(rank=rank, world_size=ranks, accumulation=accumulation))
                for key in micro
            ]
            assert parts == whole
    first_epoch = [key.index for step in range(4) for key in plan.batch(step)]
    assert len(set(first_epoch)) == 48, "an image appears twice in one epoch"
