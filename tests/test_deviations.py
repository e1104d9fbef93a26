"""What a recipe does otherwise than its source is one list: in its help, and on a page that is what the code says."""

from dataclasses import replace

import pytest

from benchmarks.deviations import page
from benchmarks.plan import recipes_of
from engine.deviations import Source, deviations, with_deviations
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
    recipes, sources = recipes_of(task).RECIPES, recipes_of(task).SOURCES
    for name, recipe in recipes.items():
        shown = recipe.__doc__.partition("Deviations from ")[2]
        assert bool(shown) == bool(sources[name]), name
        for source in sources[name]:
            assert source.name in shown
            config = recipe(source.model) if source.model else recipe()
            assert all(f"- {line}" in shown for line in deviations(config, source)), name
            stated = len(source.settings) + len(source.other)
            assert len(deviations(config, source)) == stated, f"{task} {name}: a stated setting no longer differs"


def test_a_recipe_without_sources_is_refused():
    with pytest.raises(ValueError, match=r"recipes without sources.*: new"):
        with_deviations({"new": lambda: None}, {})
