"""What a recipe does otherwise than its source is one list: in its help, and on a page that is what the code says."""

from dataclasses import replace

import pytest

from benchmarks.deviations import page
from benchmarks.plan import recipes_of
from engine.deviations import Source, deviations, sources_of
from segmentation.recipes import upernet_160k
from suite_tasks import TASKS
from tests.helpers import ROOT


def test_the_page_is_what_the_code_says():
    assert (ROOT / "docs" / "deviations.md").read_text() == page(), (
        "python -m benchmarks.deviations > docs/deviations.md"
    )


def test_a_setting_is_a_deviation_only_where_it_differs():
    source = Source(name="theirs", settings={"precision": "float32", "optimizer.momentum": 0.9}, other=("stem: 7x7",))
    assert deviations(upernet_160k(), source) == ["precision: bfloat16, there float32", "stem: 7x7"]
    assert deviations(replace(upernet_160k(), precision="float32"), source) == ["stem: 7x7"]


@pytest.mark.parametrize("task", [task.name for task in TASKS if task.kind != "measurement"])
def test_the_help_of_every_recipe_ends_with_its_deviations(task):
    for name, recipe in recipes_of(task).RECIPES.items():
        text, _, shown = recipe.__doc__.partition("Deviations from ")
        own = "Source: none" in text or (task, name) in {("pretrain", "any"), ("pretrain", "demo"), ("pretrain", "own")}
        assert bool(shown) == bool(sources_of(recipe)) != own, f"{task} {name}: what does it follow?"
        for source in sources_of(recipe):
            assert source.name in shown
            config = recipe(source.model) if source.model else recipe()
            assert all(f"- {line}" in shown for line in deviations(config, source)), name
            stated = len(source.settings) + len(source.other)
            assert len(deviations(config, source)) == stated, f"{task} {name}: a stated setting no longer differs"
