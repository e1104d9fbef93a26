"""Runs under a real Slurm: interrupted in every way it has, they end with the bytes of an undisturbed run."""

import json
import os
import subprocess
from types import SimpleNamespace

import pytest

from engine.run import lock
from slurm import record
from slurm.__main__ import main
from slurm.resources import Resources
from slurm.scheduler import queued
from tests.helpers import assert_same_bytes
from tests.slurm.runs import (
    events,
    job,
    let_go,
    state,
    submit_tiny,
    tiny_run,
    wait_for,
    wait_for_end,
    wait_for_step,
)

pytestmark = pytest.mark.slurm

TWO_RANKS = Resources(gpus_per_node=2, time=1.0)
TWO_NODES = Resources(gpus_per_node=1, nodes=2, partition="apart", time=1.0)
FIRST_NODE = {"partition": "apart", "sbatch": ("nodelist=0x7f000003",)}
TWO_RANKS_APART = Resources(gpus_per_node=2, time=1.0, **FIRST_NODE)
# Of ten minutes, of which submitit takes every signal for a time-out. Slurm looks at its clock every 30 s.
TEN_MINUTES = Resources(gpus_per_node=0, time=1 / 6, save_seconds=90, **FIRST_NODE)
HELD = {"hold": "7", "log_every": 1}  # in step 7, with a checkpoint of step 4 behind it


def command(*words: str) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True, timeout=120).stdout


@pytest.fixture(scope="module")
def limited(slurm, tmp_path_factory):
    """Under way while the other tests run: Slurm takes up to 30 s to notice a time limit."""
    run = tiny_run(tmp_path_factory.mktemp("limit") / "limited", **HELD)
    submit_tiny([run], TEN_MINUTES)
    wait_for_step(run, 6)
    minutes = int(command("squeue", "-h", "-j", job(run), "-o", "%M").split(":")[0])
    command("scontrol", "update", f"JobId={job(run)}", f"TimeLimit={minutes + 2}")
    return run


@pytest.fixture(scope="module")
def interrupted(slurm, limited, tmp_path_factory):
    """Five equal runs with loader workers, as one array: one undisturbed, four interrupted."""
    root = tmp_path_factory.mktemp("interrupted")
    # The last run of an array has the array's own number in Slurm: it must not be taken for the one before it.
    names = ("early", "by_hand", "killed", "undisturbed", "signalled")
    held = {"hold": "0,7", "log_every": 1}
    runs = SimpleNamespace(**{name: tiny_run(root / name, num_workers=1, **held) for name in names})
    let_go(runs.undisturbed)
    submit_tiny([getattr(runs, name) for name in names])
    wait_for(lambda: "started" in events(runs.early), "start", runs.early)
    command("scancel", "--signal=USR2", job(runs.early))
    for run in (runs.signalled, runs.by_hand, runs.killed):
        let_go(run, step=0)
        wait_for_step(run, 6)
    wait_for(lambda: job(runs.undisturbed) not in queued("root"), "end of the undisturbed run")
    command("scancel", "--signal=TERM", job(runs.signalled))  # all that preemption sends on many clusters
    command("scontrol", "requeue", job(runs.by_hand))
    os.kill(lock.owner(runs.killed.folder)["pid"], 9)
    wait_for(lambda: state(runs.killed).state == "failed", "failure", runs.killed)
    runs.killed_state = state(runs.killed)
    command("scontrol", "requeue", job(runs.killed))  # Slurm starts the same pickle again, as after a node's failure
    wait_for(lambda: "preempted" in events(runs.early), "first signal", runs.early)
    let_go(*(getattr(runs, name) for name in names))
    wait_for_end(*(getattr(runs, name) for name in names))
    return runs


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("early", ["started", "preempted", "started"]),
        ("signalled", ["started", "preempted", "started"]),
        ("by_hand", ["started", "requeued", "started"]),
        ("killed", ["started", "started"]),
    ],
)
def test_an_interrupted_job_ends_with_the_bytes_of_an_undisturbed_one(interrupted, name, expected):
    run = getattr(interrupted, name)
    assert events(run) == expected
    assert_same_bytes(interrupted.undisturbed.folder, run.folder)


def test_the_array_is_one_job_of_slurm(interrupted):
    assert len({job(run).split("_")[0] for run in vars(interrupted).values() if hasattr(run, "folder")}) == 1


def test_srun_gives_each_process_the_cores_of_its_loader_too(interrupted):
    """From Slurm 22.05 on it does not take them from sbatch; only where cores are bound, not here, would it be felt."""
    log = record.read(interrupted.undisturbed.folder).log
    (script,) = log.parent.glob("*submission.sh")
    (line,) = [line for line in script.read_text().splitlines() if line.startswith("srun ")]
    assert " --cpus-per-task=2 " in line


def test_a_job_stopped_before_its_first_step_did_none(interrupted):
    signal = record.read(interrupted.early.folder).last("preempted")["signal"]
    assert signal == "SIGUSR2" or "after step 0 " in signal


def test_a_killed_process_is_a_failure_with_the_end_of_its_log(interrupted):
    assert interrupted.killed_state.reason == "ended without a word (Slurm: FAILED)"


def test_two_ranks_preempted_and_two_nodes_of_which_one_fails_end_as_two_ranks_undisturbed(slurm, limited, tmp_path):
    names = ("preempted", "nodes", "undisturbed")
    preempted, nodes, undisturbed = (tiny_run(tmp_path / name, **HELD) for name in names)
    let_go(undisturbed)
    submit_tiny([preempted], TWO_RANKS)
    submit_tiny([nodes], TWO_NODES)
    submit_tiny([undisturbed], TWO_RANKS_APART)
    for run in (preempted, nodes):
        wait_for_step(run, 6)
    command("scontrol", "update", "NodeName=0x7f000004", "State=DOWN", "Reason=test")
    # The whole of both nodes: whatever runs in the lower partition has to go.
    command("sbatch", "--partition=high", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap=sleep 1")
    wait_for(lambda: "preempted" in events(preempted), "preemption", preempted)
    wait_for(lambda: "requeued" in events(nodes), "failure of a node", nodes)
    let_go(preempted, nodes)
    wait_for_end(preempted, nodes, undisturbed)
    assert events(preempted) == ["started", "preempted", "started"]
    assert events(nodes) == ["started", "requeued", "started"]
    assert record.read(nodes.folder).last("started")["tasks"] == 2
    for run in (preempted, nodes):
        assert_same_bytes(undisturbed.folder, run.folder)


def test_what_runs_by_hand_inside_of_a_job_elsewhere_lives_as_long_as_the_job(slurm, tmp_path):
    run, waiting = tiny_run(tmp_path / "run"), tiny_run(tmp_path / "waiting")
    number = command("sbatch", "--parsable", "--output=/dev/null", "--wrap=sleep 600").strip()
    process = {**lock.identity(), "host": "elsewhere", "slurm_job": number}
    (run.folder / "run.lock").write_text(json.dumps(process))
    record.append(waiting.folder, "queued", **process)  # as `launch --local` does it
    assert (state(run).state, state(waiting).state) == ("running", "pending")
    command("scancel", number)
    wait_for(lambda: number not in queued("root"), "end of the job")
    assert (state(run).state, state(waiting).state) == ("new", "new")


@pytest.fixture(scope="module")
def family(slurm, limited, tmp_path_factory):
    """Two parents, of which one diverges, each with a child."""
    root = tmp_path_factory.mktemp("family")
    good, bad = tiny_run(root / "good"), tiny_run(root / "bad", poison_step=2)
    heir, orphan = tiny_run(root / "heir", needs=("good",)), tiny_run(root / "orphan", needs=("bad",))
    submit_tiny([bad, good, heir, orphan])
    wait_for_end(good, heir)
    wait_for(lambda: state(orphan).state == "cancelled", "orphan cancelled")
    return root


def test_a_failure_and_its_reason_reach_status_and_cancel_only_its_own_children(family, capsys):
    assert main(["status", "--runs-dir", str(family)]) == 1
    shown = capsys.readouterr().out
    assert "2 finished" in shown
    assert "bad failed: DivergedError: " in shown
    assert "waits for bad, failed" in shown
    assert "error: " in shown.split("bad failed")[1], "the end of its log"


def test_launching_again_starts_neither_what_is_finished_nor_what_failed(family, capsys):
    from slurm.launch import choose, recorded_run

    runs = [recorded_run(record.read(family / name)) for name in ("good", "bad", "heir", "orphan")]
    states = {run.name: state(run) for run in runs}
    choice = choose(runs, states, {"new", "cancelled", "stopped"})
    assert (choice.start, choice.finished, choice.failed, choice.blocked) == ([], 2, ["bad"], ["orphan"])


def test_retry_starts_a_failed_run_where_it_stood_and_then_its_child(slurm, tmp_path, capsys):
    parent, child = tiny_run(tmp_path / "parent", **HELD), tiny_run(tmp_path / "child", needs=("parent",))
    submit_tiny([parent, child])
    wait_for_step(parent, 6)
    os.kill(lock.owner(parent.folder)["pid"], 9)
    wait_for(lambda: state(child).state == "cancelled", "child cancelled", parent)
    let_go(parent)
    assert main(["retry", "--runs-dir", str(tmp_path)]) == 0
    assert "2 to start" in capsys.readouterr().out
    wait_for_end(parent, child)
    assert f"continuing {parent.folder} at step 4" in record.read(parent.folder).log.read_text()


def test_a_cancelled_run_saves_takes_its_children_along_and_can_be_started_again(slurm, tmp_path, capsys):
    parent, child = tiny_run(tmp_path / "parent", **HELD), tiny_run(tmp_path / "child", needs=("parent",))
    stranger = tiny_run(tmp_path / "stranger", **HELD)
    submit_tiny([parent, child, stranger])
    for run in (parent, stranger):
        wait_for_step(run, 6)
    assert main(["cancel", "parent", "--runs-dir", str(tmp_path)]) == 0
    wait_for(lambda: (state(parent).state, state(child).state) == ("stopped", "cancelled"), "end of both", parent)
    assert events(parent) == ["started", "stopped"], "not queued again"
    assert main(["status", "--runs-dir", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "waits for parent, stopped" in shown
    assert "3 runs: 1 running, 1 stopped, 1 cancelled" in shown
    let_go(parent, stranger)
    submit_tiny([parent, child])
    wait_for_end(parent, child, stranger)
    assert f"continuing {parent.folder} at step 7" in record.read(parent.folder).log.read_text()
    assert events(stranger) == ["started"]


def test_slurms_time_limit_saves_and_goes_on(limited):
    """Last, for it has been running since the first test."""
    wait_for(lambda: "timed out" in events(limited), "the time limit's signal", limited)
    let_go(limited)
    wait_for_end(limited)
    assert events(limited)[:3] == ["started", "timed out", "started"]
    assert main(["status", "--runs-dir", str(limited.folder.parent)]) == 0
