"""F13, F32-F40: a checkpoint is complete and verified, or ignored."""

import json
import logging
import os
import resource
import shutil
from pathlib import Path

import pytest
import torch

from engine.errors import CheckpointError
from engine.run import checkpoint, storage
from tests.engine.tiny_task import TinyConfig, train
from tests.helpers import final_files, run_code, run_python

CONFIG = TinyConfig(steps=9, checkpoint_every=3)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("storage") / "run"
    train(CONFIG, folder)
    return folder


@pytest.fixture
def run(finished, tmp_path):
    """A finished run as it was before its last three steps: checkpoints 6 and 9 on disk, not marked finished."""
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run/finished.json").unlink()
    return tmp_path / "run"


def damage(folder, how):
    path = folder / "optimizer.pt"
    data = bytearray(path.read_bytes())
    if how == "bit flipped":
        data[len(data) // 2] ^= 4
    path.write_bytes(b"" if how == "empty" else bytes(data[: len(data) // 2] if how == "truncated" else data))


@pytest.mark.parametrize("how", ["truncated", "empty", "bit flipped"])
def test_a_damaged_newest_checkpoint_is_skipped_with_the_reason(run, finished, how, caplog):
    damage(run / "checkpoints/00000009", how)
    with caplog.at_level(logging.WARNING):
        train(CONFIG, run, resume=True)
    assert "skipping 00000009: optimizer.pt" in caplog.text
    assert final_files(run) == final_files(finished)


def test_without_any_good_checkpoint_the_run_refuses_to_start_over(run):
    for name in ("00000006", "00000009"):
        damage(run / "checkpoints" / name, "bit flipped")
    with pytest.raises(CheckpointError) as caught:
        train(CONFIG, run, resume=True)
    assert "00000006: optimizer.pt sha256 differs" in str(caught.value)
    assert "00000009: optimizer.pt sha256 differs" in str(caught.value)


@pytest.mark.parametrize("content", [None, "", "00000042"])
def test_a_bad_pointer_file_does_not_matter(run, content, caplog):
    latest = run / "checkpoints/LATEST"
    latest.unlink() if content is None else latest.write_text(content)
    with caplog.at_level(logging.WARNING):
        assert checkpoint.newest(run).name == "00000009"
    assert "LATEST is missing or names no checkpoint" in caplog.text


def test_order_is_by_step_number_not_by_time(run):
    os.utime(run / "checkpoints/00000006", (2e9, 2e9))
    os.utime(run / "checkpoints/00000009", (1, 1))
    assert checkpoint.newest(run).name == "00000009"


def test_broken_checkpoints_never_push_out_good_ones(run):
    snapshot = checkpoint.load(run / "checkpoints/00000009")
    for step in (12, 15):
        checkpoint.save(run, checkpoint.Snapshot(step, snapshot.model, snapshot.training, 0))
    damage(run / "checkpoints/00000012", "truncated")
    damage(run / "checkpoints/00000015", "truncated")
    checkpoint.save(run, checkpoint.Snapshot(18, snapshot.model, snapshot.training, 0))
    assert sorted(p.name for p in (run / "checkpoints").glob("0*")) == ["00000012", "00000015", "00000018"]
    checkpoint.save(run, checkpoint.Snapshot(21, snapshot.model, snapshot.training, 0))
    names = sorted(p.name for p in (run / "checkpoints").glob("*0*"))
    assert names == ["00000018", "00000021"], "what is older than two good ones is of no use, broken or not"
    damage(run / "checkpoints/00000021", "empty")
    checkpoint.save(run, checkpoint.Snapshot(24, snapshot.model, snapshot.training, 0))
    assert (run / "checkpoints/00000018").exists(), "the only other good one was deleted"


@pytest.mark.parametrize("seal", [storage.sealed, dict])  # a newer version may seal it otherwise
def test_a_checkpoint_from_a_newer_version_is_refused(run, seal):
    path = run / "checkpoints/00000009/manifest.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps(seal({**manifest, "suite_version": "9.4.0"})))
    with pytest.raises(CheckpointError, match=r"written by version 9.4.0, this is"):
        train(CONFIG, run, resume=True)


def test_a_checkpoint_with_code_in_it_is_not_executed(run, tmp_path):
    class Payload:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "executed",))

    path = run / "checkpoints/00000009"
    torch.save({"optimizer": Payload()}, path / "optimizer.pt")
    manifest = json.loads((path / "manifest.json").read_text())
    data = path / "optimizer.pt"
    manifest["files"]["optimizer.pt"] = {"size": data.stat().st_size, "sha256": storage.sha256_of(data)}
    (path / "manifest.json").write_text(json.dumps(storage.sealed(manifest)))
    with pytest.raises(CheckpointError, match="contains code"):
        train(CONFIG, run, resume=True)
    assert not (tmp_path / "executed").exists()


KILLER = """
import os, sys
from pathlib import Path
from tests.engine.tiny_task import *
count, limit = 0, int(sys.argv[2])
def counted(function):
    def wrapper(*args, **kwargs):
        global count
        count += 1
        if count == limit:
            os.kill(os.getpid(), 9)
        return function(*args, **kwargs)
    return wrapper
def fork_point():
    for name in ("fsync", "rename", "replace", "rmdir", "unlink", "mkdir"):
        setattr(os, name, counted(getattr(os, name)))
fork_point()
train(TinyConfig(steps=4, checkpoint_every=2), Path(sys.argv[1]))
print(count)
"""


def test_kill_9_at_every_write_of_every_save_leaves_a_run_that_resumes(tmp_path):
    """Forks one warm process per moment: the n-th fsync, rename, replace, rmdir, unlink or mkdir, for every n."""
    driver = f"""
import os, sys
sys.argv = ["x", {str(tmp_path / "run")!r}, "0"]
source = {KILLER!r}
exec(compile(source.rsplit("fork_point()", 1)[0], "killer", "exec"))
def child(folder, n):
    pid = os.fork()
    if pid == 0:
        global limit
        limit = n
        fork_point()
        train(TinyConfig(steps=4, checkpoint_every=2), Path(folder))
        os._exit(0 if count else 9)
    return os.waitpid(pid, 0)[1]
base = {str(tmp_path)!r}
train(TinyConfig(steps=1), Path(base) / "warm")  # torch imports its own parts at the first step
n = 1
while child(f"{{base}}/{{n:03d}}", n) != 0:
    n += 1
print(n - 1)
"""
    done = run_code(driver, timeout=300)
    moments = int(done.stdout.split()[-1])
    assert moments > 30, "the wrapper no longer sees the writes"
    reference = final_files(tmp_path / f"{moments + 1:03d}")
    config = TinyConfig(steps=4, checkpoint_every=2)
    for n in range(1, moments + 1):
        folder = tmp_path / f"{n:03d}"
        train(config, folder, resume=(folder / "config.json").exists())
        assert final_files(folder) == reference, f"killed at write {n}"
        assert not list(folder.rglob(".*.partial")), f"left over at write {n}"


def test_a_full_disk_is_named_and_training_goes_on_until_the_third_failure(tmp_path, monkeypatch, caplog):
    config = TinyConfig(steps=12, checkpoint_every=2)
    real = storage.HashingFile.write

    def fails_at(*steps):
        def write(self, data):
            if any(f".{step:08d}.partial" in self._file.name for step in steps):
                self.error = OSError(28, "No space left on device")
                raise self.error
            return real(self, data)

        return write

    monkeypatch.setattr(storage.HashingFile, "write", fails_at(2, 4))
    with caplog.at_level(logging.WARNING):
        train(config, tmp_path / "recovers")
    assert "training goes on: no space: need" in caplog.text
    assert (tmp_path / "recovers/finished.json").exists()
    assert not list((tmp_path / "recovers/checkpoints").glob(".*"))
    monkeypatch.setattr(storage.HashingFile, "write", fails_at(*range(2, 13)))
    with pytest.raises(CheckpointError, match="no space"):
        train(config, tmp_path / "gives_up")
    assert checkpoint.newest(tmp_path / "gives_up").name == "00000000"
    timing = (tmp_path / "gives_up/timing.jsonl").read_text()
    assert '"step": 6' in timing
    assert '"step": 9' not in timing


def test_a_file_size_limit_leaves_no_half_written_checkpoint(tmp_path):
    code = (
        "import resource, sys; from pathlib import Path; from engine import cli; from tests.engine.tiny_task import *\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "with cli.guard(): train(TinyConfig(), Path(sys.argv[1]))"
    )
    done = run_python("-c", code, tmp_path / "run")
    assert done.returncode == 5, done.stderr
    assert "error: no space: need" in done.stderr
    assert list((tmp_path / "run/checkpoints").iterdir()) == []
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 1000


def test_a_folder_that_cannot_be_written_ends_the_run_before_any_computation(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(CheckpointError, match="cannot be written"):
        train(CONFIG, blocked / "run")
