"""docs/adding-a-method.md, done as it says: one file outside the packages, and the method is everywhere."""

import json
import re

import pandas as pd
import pytest

from benchmarks.scenes.demo_data import write_demo_data
from tests.helpers import ROOT, run_code, run_module

PAGE = (ROOT / "docs" / "adding-a-method.md").read_text()
TINY = "test_resnet.r160_in1k"


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory):
    """The method beside training from scratch, as the page's last command has it: (folder of runs, what it printed)."""
    folder = tmp_path_factory.mktemp("method")
    (folder / "inpaint.py").write_text(re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)[1])
    write_demo_data(folder / "scenes", num_train=40, num_val=110, seed=0)
    arguments = ["--model", TINY, "--methods", "scratch", "inpaint", "--tasks", "classification"]
    data = ["--imagenet", folder / "scenes" / "imagenet", "--runs-dir", folder / "runs"]
    path = {"MIM_METHODS": "inpaint", "PYTHONPATH": f"{ROOT}:{folder}"}
    done = run_module("benchmarks", "run", *arguments, *data, timeout=600, **path)
    assert done.returncode == 0, done.stderr
    report = run_module("results", "all", folder / "runs", timeout=300)  # reads run folders only: no MIM_METHODS
    assert report.returncode == 0, report.stderr
    return folder, done.stdout


def test_the_recipes_any_and_the_demo_know_it(benchmark):
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


def test_its_panels_tables_figures_and_page_name_it(benchmark):
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


def test_a_module_that_holds_no_method_is_named():
    done = run_module("pretrain", "--help", MIM_METHODS="json")
    assert done.returncode == 2
    assert "MIM_METHODS: 'json' is no module with a METHOD" in done.stderr
    assert "Traceback" not in done.stderr
