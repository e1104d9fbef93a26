"""A process whose loader workers still read leaves when it is told to, and they leave when it is killed."""

import multiprocessing
import os
import sys
import time
from pathlib import Path

import pytest

from engine.data.loader import LoaderOptions, make_batches, worker_processes
from tests.helpers import run_python

_READ_ONE_BATCH = """
import multiprocessing, os, signal, sys
import numpy as np
from torch.utils.data import Dataset
from engine.data.loader import LoaderOptions, make_batches
from engine.data.order import SampleKey

multiprocessing.set_start_method("forkserver")  # as Python 3.14 does by itself

class Large(Dataset):
    def __getitem__(self, key):
        return np.zeros(100_000, np.uint8)

options = LoaderOptions(num_workers=1, collate=list)
stream = make_batches(Large(), lambda step: [SampleKey(0, step)], range(100), options)
next(stream)
"""
# `stream` lives on, as it does in the traceback of the error that ends a stopped run.
_LEAVE_EARLY = f"{_READ_ONE_BATCH}sys.exit(75)"
_BE_KILLED = f"""{_READ_ONE_BATCH}
print(multiprocessing.active_children()[0].pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_batches_that_nobody_closes_do_not_keep_the_process_from_leaving():
    done = run_python("-c", _LEAVE_EARLY)
    assert done.returncode == 75, done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent's death")
def test_workers_do_not_outlive_a_killed_process():
    pid = int(run_python("-c", _BE_KILLED).stdout)
    deadline = time.monotonic() + 30
    while is_running(pid):
        assert time.monotonic() < deadline, f"worker {pid} still waits"
        time.sleep(0.05)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="only Linux binds a process to cores")
def test_no_more_workers_start_than_there_are_cores(monkeypatch, caplog):
    cores = os.sched_getaffinity(0)
    caplog.set_level("INFO", logger="mim")
    try:
        os.sched_setaffinity(0, {min(cores)})
        options = LoaderOptions(num_workers=7, collate=list)
        stream = make_batches(range(4), lambda step: [step], range(2), options)
        assert [next(stream), next(stream)] == [[[0]], [[1]]]
        assert len(multiprocessing.active_children()) == 1
        stream.close()
        assert "reader processes: 1" in caplog.text and "(7 asked for)" in caplog.text
        assert worker_processes(0) == 0
    finally:
        os.sched_setaffinity(0, cores)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(len(cores)))
    assert worker_processes(2) == 1, "ranks share the cores"


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
