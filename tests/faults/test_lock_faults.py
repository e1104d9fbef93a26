"""F04: one process per run folder, whatever container, machine or file system the second one comes from."""

import errno
import fcntl
import json
import logging
import os
import platform
import shutil
import subprocess
import sys

import pytest

from engine.errors import ConfigError
from engine.run import lock

TAKE = "import sys; from pathlib import Path; from engine.run import lock; lock.take(Path(sys.argv[1])); "
HOLD = f"{TAKE} print('mine', flush=True); sys.stdin.read()"
IN_ANOTHER_CONTAINER = ["unshare", "--pid", "--fork", "--mount-proc"]


def can_unshare():
    works = shutil.which("unshare") and subprocess.run([*IN_ANOTHER_CONTAINER, "true"], check=False).returncode == 0
    return sys.platform == "linux" and bool(works)


def without_flock(monkeypatch):
    def refuse(handle, operation):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", refuse)


def holder(folder, **values):
    written = {**lock.identity(), "flock": True, **values}
    (folder / "run.lock").write_text(json.dumps(written))
    return written


@pytest.fixture
def held(tmp_path):
    """A folder that another process holds, with that process."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "mine\n"
    yield tmp_path, process
    process.kill()
    process.wait()


def test_a_folder_held_by_a_living_process_is_refused_and_free_when_it_is_killed(held):
    folder, process = held
    with pytest.raises(ConfigError, match=rf"is in use by process {process.pid} on {platform.node()} since"):
        lock.take(folder)
    process.kill()
    process.wait()
    lock.take(folder)
    assert lock.owner(folder)["pid"] == os.getpid()
    with pytest.raises(ConfigError, match="already open in this process"):
        lock.take(folder)
    lock.release(folder)
    assert not (folder / "run.lock").exists()


@pytest.mark.skipif(not can_unshare(), reason="needs the right to make a process namespace")
def test_a_second_writer_from_another_container_of_the_same_host_name_is_refused(held):
    folder, process = held
    command = [*IN_ANOTHER_CONTAINER, sys.executable, "-c", TAKE, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert f"in use by process {process.pid} on {platform.node()} in another container" in done.stderr
    process.kill()
    process.wait()
    assert subprocess.run(command, capture_output=True, text=True, check=False).returncode == 0


def test_without_flock_the_file_decides_and_says_so_once(tmp_path, monkeypatch, caplog):
    without_flock(monkeypatch)
    with caplog.at_level(logging.WARNING):
        lock.take(tmp_path)
    assert "its file system has no flock" in caplog.text
    assert lock.owner(tmp_path)["flock"] is False
    lock.release(tmp_path)
    holder(tmp_path, pid=2**22 + 1)  # beyond every process number
    lock.take(tmp_path)
    lock.release(tmp_path)
    holder(tmp_path, namespace="pid:[1]", pid=1, flock=False)
    with pytest.raises(ConfigError, match=r"in another container, since .* if it is gone, delete .*run.lock"):
        lock.take(tmp_path)


def test_without_flock_the_last_of_two_simultaneous_starts_wins(tmp_path, monkeypatch):
    without_flock(monkeypatch)
    other = lock.identity() | {"pid": os.getppid(), "process_start": None}
    monkeypatch.setattr(lock.time, "sleep", lambda _: holder(tmp_path, **other))
    with pytest.raises(ConfigError, match=f"in use by process {os.getppid()}"):
        lock.take(tmp_path)
    assert lock.owner(tmp_path)["pid"] == os.getppid()


@pytest.mark.parametrize(
    ("values", "free"),
    [
        ({"boot": "before", "machine": "same", "pid": 1}, True),  # this machine, before it was restarted
        ({"boot": "other", "machine": "other", "pid": 2**22 + 1}, False),  # another machine of the same name
        ({"namespace": "pid:[1]", "pid": 1}, True),  # it held the kernel's lock, which we got
        ({"namespace": "pid:[1]", "pid": 1, "flock": False}, False),
        ({"host": "elsewhere", "boot": None, "machine": None, "namespace": None}, False),
        ({"process_start": "1", "boot": None, "machine": None, "namespace": None, "flock": None}, True),  # old format
    ],
)
def test_who_may_still_be_running(tmp_path, monkeypatch, values, free):
    here = {"boot": "now", "machine": "same", "namespace": "pid:[2]"}
    monkeypatch.setattr(lock, "_place", lambda: here)
    written = holder(tmp_path, **values)
    if free:
        lock.take(tmp_path)
        lock.release(tmp_path)
    else:
        with pytest.raises(ConfigError, match=f"in use by process {written['pid']} on {written['host']}"):
            lock.take(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\0" * 50, b'{"host": "a"', b"[" * 4000, b'{"host": 1, "pid": "x"}', b"7"])
def test_a_torn_or_foreign_lock_that_nobody_holds_is_taken(tmp_path, content):
    (tmp_path / "run.lock").write_bytes(content)
    assert lock.owner(tmp_path) is None
    lock.take(tmp_path)
    lock.release(tmp_path)


def test_a_lock_that_is_no_file_is_named_and_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "run.lock")
    with pytest.raises(ConfigError, match=r"run.lock is not a file"):
        lock.take(tmp_path)
    assert lock.owner(tmp_path) is None


def test_a_lock_that_cannot_be_removed_does_not_hide_the_error_on_its_way(tmp_path, caplog):
    (tmp_path / "run.lock").mkdir()  # unlink refuses it, as it refuses everything on a file system turned read-only
    with pytest.raises(ZeroDivisionError), caplog.at_level(logging.WARNING):
        try:
            raise ZeroDivisionError
        finally:
            lock.release(tmp_path)
    assert "cannot remove" in caplog.text
