"""The prepared check of a GPU, small on a CPU: its parts, what it writes, and the packages it brings along."""

import csv
import importlib.metadata
import json
import os
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest

from benchmarks.speed import wheels
from benchmarks.speed.gpu import check
from benchmarks.speed.gpu.rows import Record, read
from benchmarks.speed.gpu.trace import busy_time
from engine.errors import ConfigError
from tests.helpers import ROOT, environment


def test_the_script_runs_on_a_cpu_and_writes_what_it_found(tmp_path):
    command = ["bash", str(ROOT / "benchmarks/speed/gpu.sh"), "--parts", "numbers", "--output", str(tmp_path / "out")]
    not_carried = "{'scipy', 'great_tables', 'orjson', 'tensorboard', 'submitit'}"
    (tmp_path / "sitecustomize.py").write_text(f"import sys\nsys.modules.update(dict.fromkeys({not_carried}))\n")
    env = {**environment(MIM_DEVICE="cpu", PYTHON=sys.executable), "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=200, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads((tmp_path / "out/gpu-check.json").read_text())["rows"]
    exact = [row for row in rows if "loss in float64" in row["check"]]
    assert [row["ok"] for row in exact] == [True, True]
    with (tmp_path / "out/gpu-check.csv").open() as file:
        assert [row["check"] for row in csv.DictReader(file)] == [row["check"] for row in rows]
    assert "numbers | whole part" in (tmp_path / "out/gpu-check.md").read_text()


def test_a_part_that_fails_or_is_too_slow_does_not_keep_the_others_from_running(tmp_path, monkeypatch):
    monkeypatch.setattr(check, "PARTS", {"no_such_part": 60, "numbers": 0.2, "speed": 0.2})
    monkeypatch.setattr(check, "TOGETHER", ("no_such_part", "numbers"))
    monkeypatch.setattr(check, "WORTH_STARTING_S", 0)
    monkeypatch.setenv("MIM_DEVICE", "cuda")  # whatever is here: nothing of a part is reached
    assert check.run_check(check.GpuCheck(output=tmp_path, parts=("no_such_part", "numbers", "speed"))) == 1
    rows = json.loads((tmp_path / "gpu-check.json").read_text())["rows"]
    assert [(row["part"], row["ok"]) for row in rows] == [
        (name, False) for name in ("no_such_part", "numbers", "speed")
    ]
    assert "exit code" in rows[0]["note"]
    assert "killed after 0 s" in rows[1]["note"]
    assert rows[1]["value"] < 10, "the time of a part is its own, not that of the slowest beside it"


def test_parts_without_budget_are_listed_as_not_run(tmp_path):
    assert check.run_check(check.GpuCheck(output=tmp_path, budget_seconds=1)) == 0
    rows = json.loads((tmp_path / "gpu-check.json").read_text())["rows"]
    assert [row["check"] for row in rows] == ["not run"] * len(check.PARTS)


def test_an_unknown_part_is_refused_with_the_known_ones(tmp_path):
    with pytest.raises(ConfigError, match="numbers, runs"):
        check.run_check(check.GpuCheck(output=tmp_path / "new", parts=("nmbers",)))
    assert not (tmp_path / "new").exists()


def test_findings_before_an_error_are_kept_and_the_error_is_one(tmp_path):
    record = Record("p", tmp_path / "rows.jsonl")
    record.at_most("not a number", float("nan"), 1.0)
    with record.attempt("the rest"):
        raise ValueError("what happened\nand more")
    with (tmp_path / "rows.jsonl").open("a") as file:
        file.write('{"part": "cut o')
    rows = read(tmp_path / "rows.jsonl")
    assert [(row["check"], row["ok"]) for row in rows] == [("not a number", False), ("the rest", False)]
    assert rows[1]["note"] == "ValueError: what happened"


def test_kernels_that_overlap_are_busy_once():
    spans = [(0, 10), (5, 8), (7, 12), (20, 25)]
    kernels = [SimpleNamespace(time_range=SimpleNamespace(start=start, end=end)) for start, end in spans]
    assert busy_time(kernels) == (17, 25)


def closure(*names):
    """Canonical names of packages and of all that they need."""
    found, left = set(), list(names)
    while left:
        name = re.sub(r"[-_.]+", "-", left.pop()).lower()
        if name in found:
            continue
        try:
            needs = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # for another platform
        found.add(name)
        left += [re.match(r"[\w.-]+", need).group() for need in needs if "extra ==" not in need]
    return found


def test_the_wheels_are_what_the_suite_needs_beyond_torch_and_timm():
    whole = closure("mim-benchmark", *wheels.SEGMENTATION, *wheels.TESTS)
    bare = closure("torch", "torchvision", "timm") - {"timm"}
    named = [re.sub(r"[-_.]+", "-", name).lower() for name in (*wheels.NEEDED, *wheels.SEGMENTATION, *wheels.TESTS)]
    left_out = closure("opencv-python", "tensorboard", "scipy", "orjson", "great-tables", "tzdata")
    assert len(named) == len(set(named))
    assert not set(named) & bare
    assert whole - bare - set(named) - {"mim-benchmark"} <= left_out


def test_a_wheel_is_taken_where_its_package_is_missing_or_older(tmp_path):
    here = importlib.metadata.version("rich")
    older, newer = tmp_path / "rich-0.1-py3-none-any.whl", tmp_path / f"rich-{here}.1-py3-none-any.whl"
    absent = tmp_path / "no_such_package-1.0-py3-none-any.whl"
    assert [wheels._is_wanted(path) for path in (older, newer, absent)] == [False, True, True]


def test_what_is_missing_is_named_before_anything_runs(tmp_path):
    command = [sys.executable, "-S", str(ROOT / "benchmarks/speed/wheels.py"), "install", str(tmp_path), str(tmp_path)]
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "lacks torch, torchvision, timm, tyro" in done.stderr
    assert "make wheelhouse" in done.stderr
