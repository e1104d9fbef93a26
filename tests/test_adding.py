"""docs/adding-a-method.md and docs/adding-a-task.md, done as they say: from outside, and both are everywhere."""

import json
import re

import pandas as pd
import pytest

from benchmarks.scenes.demo_data import write_demo_data
from tests.helpers import ROOT, run_code, run_module

TINY = "test_resnet.r160_in1k"


def blocks(page):
    """The Python files of a page, in its order."""
    return re.findall(r"```python\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory):
    """The method beside training from scratch, in the task and in classification: (folder of runs, what it printed)."""
    folder = tmp_path_factory.mktemp("outside")
    (folder / "inpaint.py").write_text(blocks("adding-a-method.md")[0])
    (folder / "turns").mkdir()
    names = ("entry", "__main__", "recipes", "train")
    for name, text in zip(names, blocks("adding-a-task.md"), strict=True):
        (folder / "turns" / f"{name}.py").write_text(text)
    write_demo_data(folder / "scenes", num_train=40, num_val=110, seed=0)
    arguments = ["--model", TINY, "--methods", "scratch", "inpaint", "--tasks", "classification", "turns"]
    data = ["--imagenet", folder / "scenes" / "imagenet", "--runs-dir", folder / "runs"]
    outside = {"MIM_METHODS": "inpaint", "MIM_TASKS": "turns.entry", "PYTHONPATH": f"{ROOT}:{folder}"}
    done = run_module("benchmarks", "run", *arguments, *data, timeout=600, **outside)
    assert done.returncode == 0, done.stderr
    del outside["MIM_METHODS"]  # results learns of a method from its run folders
    report = run_module("results", "all", folder / "runs", timeout=300, **outside)
    assert report.returncode == 0, report.stderr
    return folder, done.stdout


def test_the_recipes_any_and_the_demo_know_the_method(benchmark):
    folder, _ = benchmark
    code = f"""
import os, sys
sys.path.insert(0, {str(folder)!r})
os.environ["MIM_METHODS"] = "inpaint"
from engine import cli
from pretrain.recipes import RECIPES
assert "  inpaint-r50-300e" in cli.describe("pretrain", RECIPES)
for words in ("inpaint-r50-300e", "any --method inpaint", "demo --method inpaint --options.visible-weight 0.2"):
    config = cli.parse("pretrain", RECIPES, [*words.split(), "--run-dir", "runs/new"]).config
    assert config.method == "inpaint" and config.options.visible_weight in (0.5, 0.2)
"""
    run_code(code)


def test_panels_tables_figures_and_page_name_the_method(benchmark):
    folder, printed = benchmark
    runs = folder / "runs"
    pretraining = runs / f"demo-{TINY}-inpaint-pretrain-s0"
    assert json.loads((pretraining / "finished.json").read_text())["method"]["title"] == "Inpaint"
    assert list((pretraining / "panels").glob("*.png"))
    assert "Inpaint" in printed
    rows = pd.read_csv(runs / "tables" / "results.csv")
    assert set(rows["method"]) >= {"scratch", "inpaint"}
    summary = next((runs / "tables").glob("summary*.md")).read_text()
    assert "Inpaint" in summary
    assert any("Inpaint" in path.read_text() for path in (runs / "figures").rglob("*.svg"))
    assert "Inpaint" in (runs / "report.html").read_text()


def test_the_benchmark_its_tables_figures_and_page_know_the_task(benchmark):
    folder, printed = benchmark
    runs = folder / "runs"
    tuned = json.loads((runs / f"demo-{TINY}-inpaint-turns-s0" / "config.json").read_text())
    assert tuned["config"]["init"] == str(runs / f"demo-{TINY}-inpaint-pretrain-s0")
    assert f"turns, accuracy of turns (last epoch), {TINY}: Inpaint" in printed, "a sentence says what it changed"
    rows = pd.read_csv(runs / "tables" / "results.csv")
    assert set(rows["method"][rows["task"] == "turns"]) == {"scratch", "inpaint"}
    table = (runs / "tables" / "turns.md").read_text()
    assert table.startswith("## Quarter turns: accuracy, %")
    assert "| accuracy of turns (last epoch)" in table and "Inpaint" in table
    assert any("turns" in path.name for path in (runs / "figures").rglob("*.svg"))
    assert "accuracy of turns (last epoch)" in (runs / "report.html").read_text()


@pytest.mark.parametrize(
    ("variable", "package", "missing"),
    [("MIM_METHODS", "pretrain", "no module with a METHOD"), ("MIM_TASKS", "benchmarks", "no module with an ENTRY")],
)
def test_a_module_that_holds_nothing_to_add_is_named(variable, package, missing):
    done = run_module(package, "--help", **{variable: "json"})
    assert done.returncode == 2
    assert f"{variable}: 'json' is {missing}" in done.stderr
    assert "Traceback" not in done.stderr
