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
    assert "init is not given" in str(caught.value)
    assert "data.root is not given" in str(caught.value)


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
        schedule=ScheduleConfig(power=0.0, warmup_iterations=11, warmup_start=2.0),
        evaluation=EvaluationConfig(scales=(), num_panels=-1),
    )
    with pytest.raises(ConfigError) as caught:
        check(config)
    text = str(caught.value)
    for problem in (
        "image_size is 16; allowed: 32 or more",
        "init is not given",
        "drop_path is 1.0; allowed: from 0 up to but not 1",
        "schedule.warmup_iterations is 11; allowed: 0 to iterations 10",
        "accumulation is 4; allowed: a divisor of batch_size 6",
        "data.root is not given",
        "data.num_workers is -1; allowed: 0 or more",
        "data.evaluation_batch_size is 0; allowed: 1 or more",
        "augment.resize_ratio",
        "augment.cat_max_ratio",
        "augment.flip",
        "head.channels is 0; allowed: 1 or more",
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
