"""The notebook: made from its script, without outputs, and it runs; here with a small network and few scenes."""

import importlib.util
import json
import time

import pytest

from tests.helpers import ROOT

SHORT = {"DEMO_MODEL": "test_resnet", "DEMO_SCENES": "40", "DEMO_EPOCHS": "1", "DEMO_SAMPLES": "2"}


@pytest.fixture(scope="module")
def render():
    spec = importlib.util.spec_from_file_location("render", ROOT / "notebooks" / "render.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_notebook_is_that_of_its_script_without_outputs(render):
    text = render.NOTEBOOK.read_text()
    assert text == render.notebook(render.SCRIPT.read_text()), "run python notebooks/render.py"
    content = json.loads(text)
    code = [cell for cell in content["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    first = "".join(code[0]["source"])
    assert "pip" in first and "clone" in first


def executed(render, folder, monkeypatch, **settings):
    for name, value in {**settings, "DEMO_FOLDER": str(folder / "work"), "MIM_TRACKERS": ""}.items():
        monkeypatch.setenv(name, value)
    render.render(render.SCRIPT.read_text(), folder / "page.md", folder / "pictures")
    return (folder / "page.md").read_text()


def check(page, folder):
    assert "missing [] left over []" in page
    pictures = sorted((folder / "pictures").glob("*.png"))
    assert len(pictures) == page.count("![") == 6
    assert all(path.stat().st_size < 150_000 for path in pictures)


def test_every_cell_runs(render, tmp_path, monkeypatch):
    check(executed(render, tmp_path, monkeypatch, **SHORT), tmp_path)


@pytest.mark.study
def test_the_whole_notebook_takes_less_than_five_minutes(render, tmp_path, monkeypatch):
    started = time.monotonic()
    check(executed(render, tmp_path, monkeypatch), tmp_path)
    assert time.monotonic() - started < 300
