"""F13, F35, F36, F39: whatever is wrong with a checkpoint is its own fault, and the older one is taken. What was left
over, edited or linked is neither believed nor written through."""

import errno
import json
import logging
import os
import shutil
from pathlib import Path

import pytest

from engine.errors import CheckpointError
from engine.run import checkpoint, storage
from tests.engine.tiny_task import TinyConfig, train
from tests.helpers import final_files

CONFIG = TinyConfig(steps=9, checkpoint_every=3)
OLDER, NEWEST = "00000006", "00000009"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints") / "run"
    train(CONFIG, folder)
    return folder


@pytest.fixture
def run(finished, tmp_path):
    """A run with checkpoints 6 and 9, not marked finished."""
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run/finished.json").unlink()
    return tmp_path / "run"


def test_no_flipped_bit_of_a_manifest_is_believed(run):
    path = run / f"checkpoints/{NEWEST}/manifest.json"
    good = path.read_bytes()
    meaning = json.loads(good)
    assert len(good) > 500
    harmless = 0
    for bit in range(0, len(good) * 8, 3):
        damaged = bytearray(good)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        reason = checkpoint.fault(path.parent)
        if reason is None:  # a space for another between two values
            assert json.loads(damaged) == meaning
            harmless += 1
    assert harmless < 20
    for step in range(0, len(good), 7):  # and no shorter one
        path.write_bytes(good[:step])
        assert checkpoint.fault(path.parent) is not None


def write_sealed(path, **changes):
    path.write_text(json.dumps(storage.sealed({**json.loads(path.read_text()), **changes})))


def make_odd(path, how):
    content = path.read_bytes()
    path.unlink()
    if how == "pipe":
        os.mkfifo(path)
    elif how == "folder":
        path.mkdir()
    elif how == "link to itself":
        path.symlink_to(path.name)
    elif how == "link to zeros":
        path.symlink_to("/dev/zero")
    elif how == "link to a good one":
        path.with_name("elsewhere").write_bytes(content)
        path.symlink_to("elsewhere")


MANIFESTS = {
    "no JSON": "{",
    "deep": "[" * 100_000,
    "a list": "[]",
    "bytes": "\udcff",
    "another step": {"step": 6},
    "a step that is true": {"step": True},
    "no files": {"files": {}},
    "files a list": {"files": [1]},
    "a file elsewhere": {"files": {"model.safetensors": {}, "optimizer.pt": {}, "../../config.json": {}}},
    "an odd version": {"suite_version": "one"},
    "no version": {"suite_version": None},
    "an odd offset": {"metrics_offset": "12"},
    "a negative offset": {"metrics_offset": -1},
}


@pytest.mark.parametrize("how", MANIFESTS)
def test_a_malformed_manifest_means_the_older_checkpoint(run, how):
    path, content = run / f"checkpoints/{NEWEST}/manifest.json", MANIFESTS[how]
    if isinstance(content, dict):
        write_sealed(path, **content)
    else:
        path.write_bytes(os.fsencode(content))
    assert checkpoint.newest(run, [5]).name == OLDER


@pytest.mark.parametrize("name", ["manifest.json", "optimizer.pt", "model.safetensors"])
@pytest.mark.parametrize("how", ["pipe", "folder", "link to itself", "link to zeros", "link to a good one", "gone"])
def test_an_odd_file_means_the_older_checkpoint(run, name, how):
    make_odd(run / "checkpoints" / NEWEST / name, how)
    assert checkpoint.newest(run, [5]).name == OLDER


@pytest.mark.parametrize("code", [errno.EIO, errno.EACCES, errno.ESTALE])
@pytest.mark.parametrize("name", ["manifest.json", "optimizer.pt", "model.safetensors", ""])
def test_what_cannot_be_read_means_the_older_checkpoint(run, finished, name, code, monkeypatch, caplog):
    bad, real_open, real_list = run / "checkpoints" / NEWEST / name, Path.open, Path.iterdir

    def refuse(path):
        if path == bad:
            raise OSError(code, os.strerror(code), str(path))

    def fails(self, *args, **more):
        refuse(self)
        return real_open(self, *args, **more)

    monkeypatch.setattr(Path, "open", fails)
    monkeypatch.setattr(Path, "iterdir", lambda self: refuse(self) or real_list(self))
    monkeypatch.setattr(checkpoint, "_verified", {})
    with caplog.at_level(logging.WARNING):
        assert checkpoint.newest(run, [5]).name == OLDER
    assert os.strerror(code) in caplog.text


def test_a_manifest_of_before_is_believed_if_it_has_nothing_else(run, finished):
    for name in (OLDER, NEWEST):
        path = run / "checkpoints" / name / "manifest.json"
        manifest = json.loads(path.read_text())
        path.write_text(json.dumps({key: manifest[key] for key in checkpoint.EARLY_KEYS}))
    assert checkpoint.newest(run, [5]).name == NEWEST
    path.write_text(json.dumps({**json.loads(path.read_text()), "sha257": "flipped"}))
    assert checkpoint.newest(run, [5]).name == OLDER


def test_weights_of_another_network_are_named(run):
    folder = run / "checkpoints" / NEWEST
    shutil.rmtree(run / "checkpoints" / OLDER)
    snapshot = checkpoint.load(folder)
    names = list(snapshot.model)
    weights = {**snapshot.model, "another.weight": snapshot.model[names[0]].clone()}
    shutil.rmtree(folder)
    checkpoint.save(run, checkpoint.Snapshot(9, weights, snapshot.training, snapshot.metrics_offset))
    with pytest.raises(CheckpointError, match=r"(?s)00000009 does not fit this model and optimizer: .*another.weight"):
        train(CONFIG, run, resume=True)


@pytest.mark.parametrize("left", ["complete", "half", "renamed"])
def test_what_a_kill_left_while_older_checkpoints_were_removed_goes_at_the_next_start(run, finished, left):
    old = run / "checkpoints/00000003"
    snapshot = checkpoint.load(run / "checkpoints" / OLDER)
    checkpoint.save(run, checkpoint.Snapshot(3, snapshot.model, snapshot.training, 0))
    if not old.exists():  # it is the third newest, so that save removed it
        shutil.copytree(run / "checkpoints" / OLDER, old)
    if left != "complete":
        (old / "manifest.json").unlink()
    if left == "renamed":
        old.rename(old.with_name(".00000003.partial"))
    train(CONFIG, run, resume=True)
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == [OLDER, NEWEST, "LATEST"]
    assert final_files(run) == final_files(finished)


def test_an_old_checkpoint_that_cannot_be_removed_is_named_and_no_failure(run, monkeypatch, caplog):
    snapshot = checkpoint.load(run / "checkpoints" / NEWEST)
    monkeypatch.setattr(Path, "rename", lambda self, to: (_ for _ in ()).throw(OSError(errno.EBUSY, "busy")))
    shutil.copytree(run / "checkpoints" / OLDER, run / "checkpoints/00000003")
    with caplog.at_level(logging.WARNING):
        checkpoint.prune(run)
    assert "00000003 is no longer needed, but cannot be removed" in caplog.text
    assert snapshot.step == 9


@pytest.mark.parametrize("name", ["checkpoints", "metrics.jsonl", "timing.jsonl"])
def test_nothing_is_written_through_a_link(run, tmp_path, name):
    (run / name).rename(tmp_path / "elsewhere")
    (run / name).symlink_to(tmp_path / "elsewhere")
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with pytest.raises(CheckpointError, match=f"{name} is a link .*does not write through links"):
        train(CONFIG, run, resume=True)
    (run / "error.json").unlink(missing_ok=True)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_a_checkpoint_that_is_a_link_is_neither_used_nor_written_through(run, finished, tmp_path):
    newest = run / "checkpoints" / NEWEST
    newest.rename(tmp_path / "elsewhere")
    newest.symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/optimizer.pt").write_bytes(b"mine")
    train(CONFIG, run, resume=True)
    assert (tmp_path / "elsewhere/optimizer.pt").read_bytes() == b"mine"
    assert final_files(run) == final_files(finished)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"../..", b"00000042\n"])
def test_a_pointer_file_of_any_content_does_not_matter(run, content):
    (run / "checkpoints/LATEST").write_bytes(content)
    assert checkpoint.newest(run, [5]).name == NEWEST
