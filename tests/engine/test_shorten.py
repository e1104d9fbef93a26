"""A shorter run than the recipe's: its warm-up and milestones become shorter too, if they must, and that is said."""

from dataclasses import replace

import pytest

import classification.recipes
import detection.recipes
import pretrain.recipes
import segmentation.recipes
from engine import cli
from engine.config import problems_of
from engine.shorten import fit_into_length


def shortened(recipe, **changes):
    default = recipe()
    return fit_into_length(default, replace(default, **changes))


def test_every_recipe_can_be_run_for_one_epoch_or_a_few_iterations(caplog):
    caplog.set_level("INFO")
    for module in (pretrain.recipes, classification.recipes, detection.recipes, segmentation.recipes):
        for name, recipe in module.RECIPES.items():
            default = recipe()
            before = set(problems_of(default))  # root and init, which are not given
            length = {"epochs": 1} if hasattr(default, "epochs") else {"iterations": 5}
            after = problems_of(shortened(recipe, **length))
            left = [line for line in after if line not in before]
            assert not left, f"{module.__name__} {name}: {left}"
    assert "shortened with the run, from 300 to 1 epochs: schedule.warmup_epochs 20 -> 0.0666667" in caplog.text


def test_parts_of_the_run_stay_the_parts_they_were():
    short = shortened(pretrain.recipes.RECIPES["a2mim-r50-300e"], epochs=3)
    assert short.schedule.warmup_epochs == pytest.approx(10 * 3 / 300)
    probe = shortened(classification.recipes.linear_probe, epochs=1)
    assert (probe.schedule.kind, probe.schedule.milestones) == ("constant", ())
    steps = shortened(detection.recipes.RECIPES["mask-rcnn-fpn-1x"], iterations=900)
    assert (steps.schedule.milestones, steps.schedule.warmup_iterations) == ((600, 800), 10)


def test_what_fits_and_what_the_user_set_is_left_alone():
    recipe = classification.recipes.rsb_a2
    assert shortened(recipe, epochs=100).schedule.warmup_epochs == 5
    mine = replace(recipe().schedule, warmup_epochs=7)
    assert shortened(recipe, epochs=4, schedule=mine).schedule.warmup_epochs == 7


def test_the_command_line_does_it(tmp_path):
    words = ["rsb-a2", "--epochs", "1", "--run-dir", str(tmp_path)]
    config = cli.parse("classification", classification.recipes.RECIPES, words).config
    assert config.schedule.warmup_epochs == pytest.approx(5 / 300)
