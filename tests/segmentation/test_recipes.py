"""Recipes hold the published values, and every one trains."""

from dataclasses import replace

import pytest

from segmentation.recipes import RECIPES, recipe_for
from tests.segmentation.folders import tiny_config

pytestmark = pytest.mark.mmseg


@pytest.mark.parametrize(
    ("recipe", "model", "expected"),
    [
        # the protocol table: rate, weight decay, layer decay, drop path, head width, mode, power, last rate
        ("upernet-160k", "r50", ("sgd", 0.01, 5e-4, 1.0, 0.0, 512, "whole", 0.9, 1e-4)),
        ("fcn-160k", "r50", ("sgd", 0.01, 5e-4, 1.0, 0.0, 512, "whole", 0.9, 1e-4)),
        ("upernet-160k", "vit_b", ("adamw", 4e-4, 0.05, 0.65, 0.1, 768, "slide", 1.0, 0.0)),
        ("upernet-160k", "swin_t", ("adamw", 6e-5, 0.01, 1.0, 0.3, 512, "whole", 1.0, 0.0)),
        ("upernet-160k", "convnext_t", ("adamw", 1e-4, 0.05, 0.9, 0.4, 512, "slide", 1.0, 0.0)),
        ("upernet-160k", "convnext_s", ("adamw", 1e-4, 0.05, 0.9, 0.3, 512, "slide", 1.0, 0.0)),
    ],
)
def test_published_values(recipe, model, expected):
    config = RECIPES[recipe](model)
    optimizer, schedule = config.optimizer, config.schedule
    assert (
        optimizer.name,
        config.learning_rate,
        optimizer.weight_decay,
        optimizer.layer_decay,
        config.drop_path,
        config.head.channels,
        config.evaluation.mode,
        schedule.power,
        schedule.min_rate,
    ) == expected
    assert (config.iterations, config.batch_size, config.image_size) == (160_000, 16, 512)
    assert (config.head.aux_channels, config.head.aux_weight, config.head.dropout) == (256, 0.4, 0.1)
    assert schedule.warmup_iterations == (1500 if optimizer.name == "adamw" else 0)
    assert config.evaluate_every == 16_000


def test_the_short_schedule_is_half_the_long_one():
    config = RECIPES["upernet-80k"]("r101")
    assert (config.iterations, config.evaluate_every) == (80_000, 8_000)
    assert replace(config, iterations=160_000, evaluate_every=16_000) == RECIPES["upernet-160k"]("r101")


def test_the_fcn_recipe_is_the_dilated_one():
    config = RECIPES["fcn-160k"]()
    assert (config.model, config.output_stride, config.head.kind) == ("r50", 8, "fcn")


def test_every_model_has_a_recipe_for_the_full_benchmark():
    assert {recipe_for(model) for model in ("r50", "vit_b", "swin_t", "convnext_s")} <= set(RECIPES)


@pytest.mark.parametrize(
    ("recipe", "family", "model"),
    [
        ("upernet-160k", "r50", "test_resnet"),
        ("upernet-80k", "convnext_t", "test_convnext"),
        ("upernet-160k", "vit_b", "test_vit"),
        ("fcn-160k", "r50", "test_resnet"),
        ("demo", "vit_b", "test_vit"),
    ],
)
def test_every_recipe_trains_and_is_evaluated_at_reduced_size(recipe, family, model, root, tmp_path):
    from segmentation.train import train

    config, tiny = RECIPES[recipe](family), tiny_config(root)
    small = replace(
        config,
        model=model,
        init="none",
        iterations=2,
        batch_size=4,
        image_size=48,
        precision="float32",
        drop_path=0.0,
        data=tiny.data,
        head=replace(config.head, channels=8, aux_channels=min(config.head.aux_channels, 8)),
        schedule=replace(config.schedule, warmup_iterations=min(config.schedule.warmup_iterations, 1)),
        evaluation=replace(config.evaluation, num_panels=0),
    )
    metrics = train(small, tmp_path / "run", recipe=recipe)
    assert 0 <= metrics["mIoU"] <= metrics["mIoU_best"] <= 100
