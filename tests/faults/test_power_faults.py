"""F32, and what a power cut, a lost node or a full disk may do to metrics.jsonl: no evaluation is ever missing."""

import json
import logging
import os
import shutil
from pathlib import Path

import pytest

from engine.errors import CheckpointError
from engine.run import checkpoint
from engine.run.metrics import JsonLines, make_durable
from tests.engine.tiny_task import TinyConfig, train
from tests.faults.power import ForgetfulDisk, cut_power, ext4
from tests.helpers import final_files

CONFIG = TinyConfig(steps=9, checkpoint_every=3, evaluate_every=2, log_every=1)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("power") / "run"
    train(CONFIG, folder)
    return folder


@pytest.fixture
def run(finished, tmp_path):
    """A run that ends before its last evaluation: checkpoints 6 and 9, lines of metrics.jsonl up to step 9."""
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run/finished.json").unlink()
    return tmp_path / "run"


def test_a_power_cut_after_any_fsync_leaves_a_run_that_ends_in_the_same_bytes(tmp_path, monkeypatch):
    config = TinyConfig(steps=4, checkpoint_every=2, evaluate_every=1, log_every=1)
    (tmp_path / "run").mkdir()
    with monkeypatch.context() as patch:
        disk = ForgetfulDisk(tmp_path / "run", patch)
        train(config, tmp_path / "run")
    assert disk.moments > 30, "the disk no longer sees the writes"
    reference = final_files(tmp_path / "run")
    for moment in range(1, disk.moments + 1):
        folder = tmp_path / "cut" / f"{moment:03d}"
        disk.lay_out(moment, folder)
        was_finished = (folder / "finished.json").exists()
        train(config, folder, resume=(folder / "config.json").exists())
        assert final_files(folder) == reference, f"power cut after fsync {moment}"
        assert was_finished == (moment == disk.moments), "finished.json was there before all it counts on"
        shutil.rmtree(folder)


def test_a_real_power_cut_on_ext4_leaves_a_run_that_ends_in_the_same_bytes(tmp_path, finished):
    with ext4(tmp_path) as disk:
        child = os.fork()
        if child == 0:
            at_log = JsonLines.append
            JsonLines.append = lambda lines, row, **more: (
                os._exit(9) if row["step"] == 9 else at_log(lines, row, **more)
            )
            train(CONFIG, disk / "run")
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
        cut_power(disk)
        offset = json.loads((disk / "run/checkpoints/00000006/manifest.json").read_text())["metrics_offset"]
        whole = (finished / "metrics.jsonl").read_bytes()
        assert (disk / "run/metrics.jsonl").read_bytes()[:offset] == whole[:offset]
        train(CONFIG, disk / "run", resume=True)
        assert final_files(disk / "run") == final_files(finished)


def shorten(path, offset):
    path.write_bytes(path.read_bytes()[:offset])


def lose_an_evaluation(path, step):
    """Leave out the line of the evaluation after a step, as a disk that was full for a moment did."""
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if f'"step": {step}, ' not in line or '"val"' not in line))


def offset_of(run, name):
    return json.loads((run / "checkpoints" / name / "manifest.json").read_text())["metrics_offset"]


@pytest.mark.parametrize("how", ["shorter", "inside a line", "an evaluation missing", "a byte changed"])
def test_metrics_that_lack_something_mean_an_older_checkpoint(run, finished, how, caplog):
    path, newest, older = run / "metrics.jsonl", offset_of(run, "00000009"), offset_of(run, "00000006")
    if how == "an evaluation missing":
        lose_an_evaluation(path, 8)
    elif how == "a byte changed":
        content = bytearray(path.read_bytes())
        content[newest - 5] ^= 1
        path.write_bytes(content)
    else:
        shorten(path, older if how == "shorter" else newest - 7)
    with caplog.at_level(logging.WARNING):
        train(CONFIG, run, resume=True)
    assert "skipping 00000009: metrics.jsonl" in caplog.text
    assert final_files(run) == final_files(finished)


@pytest.mark.parametrize("how", ["empty", "absent", "first evaluation missing"])
def test_metrics_that_no_checkpoint_was_written_beside_end_the_run_with_5(run, how):
    path = run / "metrics.jsonl"
    if how == "first evaluation missing":
        lose_an_evaluation(path, 2)
    else:
        path.write_text("")
        if how == "absent":
            path.unlink()
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file() and p.name != "error.json"}
    with pytest.raises(CheckpointError, match=r"no usable checkpoint in .*\n.*00000009: metrics.jsonl"):
        train(CONFIG, run, resume=True)
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file() and p.name != "error.json"} == before


def early(run):
    """Take the hashes of newer versions out of the manifests."""
    for path in (run / "checkpoints").glob("*/manifest.json"):
        manifest = json.loads(path.read_text())
        path.write_text(json.dumps({name: manifest[name] for name in checkpoint.EARLY_KEYS}))


def test_checkpoints_that_know_no_hash_of_the_metrics_are_checked_by_their_length_lines_and_evaluations(run, finished):
    early(run)
    shutil.copytree(run, run.with_name("torn"))
    train(CONFIG, run, resume=True)
    assert (run / "metrics.jsonl").read_bytes() == (finished / "metrics.jsonl").read_bytes()
    torn = run.with_name("torn")
    content = (torn / "metrics.jsonl").read_bytes()
    place = content.index(b'"step": 8')
    for damage in (content[:place] + b"\n" + content[place:], content[: offset_of(torn, "00000009") - 3]):
        (torn / "metrics.jsonl").write_bytes(damage)
        assert checkpoint.newest(torn, [2, 4, 6, 8, 9]).name == "00000006"
    lines = [line for line in content.splitlines(keepends=True) if b'"step": 4, ' not in line]
    (torn / "metrics.jsonl").write_bytes(b"".join(lines) + b" " * (len(content) - len(b"".join(lines)) - 1) + b"\n")
    with pytest.raises(CheckpointError):
        checkpoint.newest(torn, [2, 4, 6, 8, 9])


def full_disk(monkeypatch, path, full):
    """Let writes to a file fail as on a full disk, half-way through, while `full` holds of the bytes."""
    real = os.write

    def write(handle, data):
        if Path(f"/proc/self/fd/{handle}").readlink() != path or not full(bytes(data)):
            return real(handle, data)
        return real(handle, data[: len(data) // 2])

    monkeypatch.setattr(os, "write", write)


def test_a_line_that_finds_the_disk_full_waits_and_is_not_lost(tmp_path, finished, monkeypatch, caplog):
    refusals = []
    full_disk(
        monkeypatch,
        tmp_path / "run/metrics.jsonl",
        lambda data: b'"step": 4, ' in data and b'"val"' in data and not refusals.append(data) and len(refusals) < 2,
    )
    with caplog.at_level(logging.WARNING):
        train(CONFIG, tmp_path / "run")
    assert caplog.text.count("cannot append to") == 1
    assert final_files(tmp_path / "run") == final_files(finished)


def test_a_disk_that_stays_full_for_an_evaluation_ends_the_run_with_5_and_it_can_go_on(tmp_path, finished, monkeypatch):
    with monkeypatch.context() as patch:
        full_disk(patch, tmp_path / "run/metrics.jsonl", lambda data: b'"step": 9, ' in data and b'"val"' in data)
        with pytest.raises(CheckpointError, match="no space"):
            train(CONFIG, tmp_path / "run")
    assert not (tmp_path / "run/finished.json").exists()
    train(CONFIG, tmp_path / "run", resume=True)
    assert final_files(tmp_path / "run") == final_files(finished)


def test_no_checkpoint_counts_on_lines_that_are_not_there(tmp_path, monkeypatch):
    full_disk(monkeypatch, tmp_path / "run/metrics.jsonl", lambda data: b'"step": 2, ' in data)
    with pytest.raises(CheckpointError, match="no space"):
        train(TinyConfig(steps=9, checkpoint_every=2, log_every=1), tmp_path / "run")
    assert [p.name for p in (tmp_path / "run/checkpoints").glob("0*")] == ["00000000"]
    assert (tmp_path / "run/metrics.jsonl").read_text().count("\n") == 1


def test_times_that_find_the_disk_full_are_lost_with_one_warning_a_minute(tmp_path, monkeypatch, caplog):
    timing = JsonLines(tmp_path / "timing.jsonl")
    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
        full_disk(patch, timing.path, lambda data: True)
        for step in range(3):
            timing.append({"step": step}, keep=False)
    assert caplog.text.count("cannot append to") == 1
    timing.append({"step": 4}, keep=False)
    assert timing.rows() == [{"step": 4}]


def test_lines_that_vanish_while_the_run_goes_on_are_noticed(tmp_path):
    metrics = JsonLines(tmp_path / "metrics.jsonl")
    metrics.append({"step": 1})
    metrics.path.write_text("")
    metrics.append({"step": 2})
    with pytest.raises(OSError, match="it has 0 bytes where this run left 12"):
        metrics.flush()
    with pytest.raises(CheckpointError, match="has 0 bytes, this run wrote 24"):
        make_durable(metrics.path, metrics.size())
