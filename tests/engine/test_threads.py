"""A run on the CPU takes no more threads than its share of the machine is good for, resumed as many as before."""

import json
import os

import pytest
import torch

from engine import cores
from engine.training import threads


@pytest.fixture(autouse=True)
def four_threads(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 0.0, 0.0))
    monkeypatch.setattr(cores, "QUOTAS", ())
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)))
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def test_an_idle_machine_is_used_whole(tmp_path):
    threads.choose_threads(tmp_path)
    assert torch.get_num_threads() == 4


def test_the_quota_of_a_container_is_kept(tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO")
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    monkeypatch.setattr(cores, "QUOTAS", ((str(tmp_path / "cpu.max"),),))
    threads.choose_threads(tmp_path)
    assert torch.get_num_threads() == 2
    assert "may use no more cores" in caplog.text
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert cores.allowed_cores() == 4
    halves = [tmp_path / name for name in ("quota", "period")]  # cgroup v1
    monkeypatch.setattr(cores, "QUOTAS", (tuple(map(str, halves)),))
    for quota, expected in (("250000", 3), ("-1", 4)):
        for half, text in zip(halves, (quota, "100000"), strict=True):
            half.write_text(f"{text}\n")
        assert cores.allowed_cores() == expected


def test_on_a_busy_machine_what_is_measured_decides(tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setattr(os, "getloadavg", lambda: (9.0, 9.0, 9.0))
    clock = iter(range(10**6))
    seconds = {4: 8, 2: 3, 1: 4}

    def perf_counter():
        return next(clock) * seconds[torch.get_num_threads()]

    monkeypatch.setattr(threads.time, "perf_counter", perf_counter)
    threads.choose_threads(tmp_path)
    assert torch.get_num_threads() == 2
    assert "load 9.0" in caplog.text
    assert "2.7 times as fast" in caplog.text


def test_the_users_number_and_that_of_the_start_stand(tmp_path, monkeypatch):
    (tmp_path / "checkpoints/00000012").mkdir(parents=True)
    (tmp_path / "environment.json").write_text(json.dumps({"num_threads": 3}))
    monkeypatch.setattr(os, "getloadavg", lambda: (9.0, 9.0, 9.0))
    threads.choose_threads(tmp_path)
    assert torch.get_num_threads() == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    torch.set_num_threads(4)
    threads.choose_threads(tmp_path)
    assert torch.get_num_threads() == 4
