"""Configurations: every problem is named at once, and what is given back is what was written."""

from dataclasses import replace

import pytest

from engine.config import check, from_dict, to_dict
from engine.errors import ConfigError
from segmentation.config import (
    AugmentConfig,
    DataConfig,
    EvaluationConfig,
    HeadConfig,
    OptimizerConfig,
    ScheduleConfig,
    SegmentationConfig,
)
from segmentation.recipes import RECIPES


def complete(name, model="r50"):
    config = RECIPES[name](model)
    return replace(config, init="none", data=replace(config.data, root="/data"))


@pytest.mark.parametrize(
    "model", ["r50", "r101", "convnext_t", "vit_b", "vit_l", "deit_s", "swin_t", "efficientnet_b0"]
)
@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_lacks_nothing_but_data_and_initialisation(name, model):
    check(complete(name, model))
    with pytest.raises(ConfigError, match="2 problems") as caught:
        check(RECIPES[name](model))
    assert "init: not given" in str(caught.value)
    assert "data.root: not given" in str(caught.value)


@pytest.mark.parametrize("name", RECIPES)
def test_a_configuration_survives_the_trip_through_json(name):
    config = complete(name)
    assert from_dict(SegmentationConfig, to_dict(config)) == config


def test_all_problems_are_listed_with_their_allowed_range():
    config = SegmentationConfig(
        model="r50",
        iterations=10,
        batch_size=6,
        accumulation=4,
        image_size=16,
        drop_path=1.0,
        data=DataConfig(num_workers=-1, evaluation_batch_size=0),
        augment=AugmentConfig(resize_ratio=(2.0, 0.5), cat_max_ratio=0.0, flip=1.5),
        head=HeadConfig(channels=0, aux_weight=0.0, dropout=1.0),
        optimizer=OptimizerConfig(base_learning_rate=0.0, layer_decay=1.5, clip_grad=0.0, momentum=1.0),
        schedule=ScheduleConfig(power=0.0, warmup_iterations=10, warmup_start=2.0),
        evaluation=EvaluationConfig(scales=(), num_panels=-1),
    )
    with pytest.raises(ConfigError) as caught:
        check(config)
    text = str(caught.value)
    for problem in (
        "image_size: 16 is below 32",
        "init: not given",
        "drop_path: 1.0 is outside [0, 1)",
        "warmup_iterations: 10 is not below the 10 iterations",
        "batch_size: 6 is not a multiple of accumulation, 4",
        "data.root: not given",
        "data.num_workers: -1 is below 0",
        "data.evaluation_batch_size: 0 is below 1",
        "augment.resize_ratio",
        "augment.cat_max_ratio",
        "augment.flip",
        "head.channels: 0 is below 1",
        "head.aux_weight",
        "head.dropout",
        "optimizer.base_learning_rate",
        "optimizer.layer_decay",
        "optimizer.clip_grad",
        "optimizer.momentum",
        "schedule.power",
        "schedule.warmup_start",
        "evaluation.scales",
        "evaluation.num_panels",
    ):
        assert problem in text


def test_a_single_image_at_once_is_refused_for_batch_norm():
    with pytest.raises(ConfigError, match="less than 2 images at once"):
        check(replace(complete("upernet-160k"), accumulation=16))
