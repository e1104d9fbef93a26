"""Every setting outside its range is reported, all of them at once, before anything is created."""

from dataclasses import replace

import pytest

from classification.config import (
    AugmentConfig,
    ClassificationConfig,
    DataConfig,
    EmaConfig,
    LossConfig,
    OptimizerConfig,
    ScheduleConfig,
)
from classification.recipes import RECIPES, demo
from engine.config import check, from_dict, to_dict
from engine.errors import ConfigError


def complete(config):
    return replace(config, init="none", data=replace(config.data, root="somewhere"))


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_valid_once_data_and_init_are_given(name):
    check(complete(RECIPES[name]()))


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_survives_the_way_through_json(name):
    config = complete(RECIPES[name]())
    assert from_dict(ClassificationConfig, to_dict(config)) == config


def test_a_recipe_without_data_and_init_names_both():
    with pytest.raises(ConfigError, match=r"(?s)2 problems.*init is not given.*data\.root is not given"):
        check(demo())


def test_all_problems_are_listed_at_once():
    config = ClassificationConfig(
        model="r50",
        init="none",
        epochs=0,
        batch_size=15,
        accumulation=5,
        drop_path=1.0,
        data=DataConfig(root="x", num_workers=-1, train_fraction=0.0),
        augment=AugmentConfig(
            crop_scale=(0.5, 0.2),
            flip=2.0,
            auto_augment="rand-q7",
            label_smoothing=1.0,
            crop_pct=0.0,
            repeats=0,
        ),
        loss=LossConfig(target_threshold=0.2),
        optimizer=OptimizerConfig(base_learning_rate=-1.0, layer_decay=0.0, clip_grad=0.0),
        schedule=ScheduleConfig(kind="step", warmup_epochs=5),
        ema=EmaConfig(decay=1.0),
    )
    with pytest.raises(ConfigError) as caught:
        check(config)
    message = str(caught.value)
    for field in (
        "epochs is 0; allowed: 1 or more",
        "drop_path is 1.0",
        "schedule.warmup_epochs is 5; allowed: 0 to epochs 0",
        "data.num_workers is -1",
        "data.train_fraction is 0.0",
        "augment.crop_scale is (0.5, 0.2)",
        "augment.flip is 2.0",
        "augment.auto_augment is 'rand-q7'",
        "augment.label_smoothing is 1.0",
        "augment.crop_pct is 0.0",
        "augment.repeats is 0",
        "loss.target_threshold",
        "optimizer.base_learning_rate is -1.0",
        "optimizer.layer_decay is 0.0",
        "optimizer.clip_grad is 0.0",
        "schedule.milestones is ()",
        "ema.decay is 1.0",
    ):
        assert f"- {field}" in message


def test_a_frozen_encoder_takes_neither_drop_path_nor_layer_decay():
    probe = complete(RECIPES["linear-probe"]())
    with pytest.raises(ConfigError, match="freeze"):
        check(replace(probe, drop_path=0.1))


def test_the_learning_rate_follows_the_global_batch():
    config = RECIPES["vit-ft"]()
    assert config.learning_rate == pytest.approx(1e-2)
    assert replace(config, batch_size=512).learning_rate == pytest.approx(5e-3)
