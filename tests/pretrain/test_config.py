"""Every problem of a configuration is named at once; a configuration survives its file; flags reach their field."""

from dataclasses import replace

import pytest

from engine import cli, config
from engine.errors import ConfigError
from pretrain.build import build_model
from pretrain.config import (
    DataConfig,
    MaskConfig,
    OptimizerConfig,
    PretrainConfig,
    ScheduleConfig,
)
from pretrain.methods import a2mim, simmim
from pretrain.methods.a2mim import LossOptions
from pretrain.methods.released import TokenOptions
from pretrain.recipes import RECIPES, demo

GOOD = replace(demo(), image_size=128, mask=MaskConfig(cell_size=32), data=DataConfig(root="images"))

BAD = {
    "data.root is not given": {"data": DataConfig()},
    "mask.mask_ratio is 1.0": {"mask": MaskConfig(mask_ratio=1.0)},
    "mask.mask_ratio is 0": {"mask": MaskConfig(mask_ratio=0.0)},
    "mask.mask_ratio is 0.95, which hides 16 of the 16 cells": {"mask": MaskConfig(mask_ratio=0.95)},
    "image_size is 100; allowed: a multiple of mask.cell_size 32, such as 96 or 128": {"image_size": 100},
    "image_size is 20; allowed: a multiple of mask.cell_size 32, such as 32": {"image_size": 20},
    "hides 1 of the 1 cells": {"image_size": 32},
    "mask.cell_size is 0": {"mask": MaskConfig(cell_size=0)},
    "accumulation is 3; allowed: a divisor of batch_size 32": {"accumulation": 3},
    "epochs is 0": {"epochs": 0, "schedule": ScheduleConfig(warmup_epochs=0)},
    "drop_path is 1.0": {"drop_path": 1.0},
    "schedule.warmup_epochs is 21": {"schedule": ScheduleConfig(warmup_epochs=21)},
    "schedule.milestones is ()": {"schedule": ScheduleConfig(kind="step", warmup_epochs=1)},
    "schedule.milestones is (20,)": {"schedule": ScheduleConfig(kind="step", warmup_epochs=1, milestones=(20,))},
    "options.loss.unmask_weight is 1.5": {"options": a2mim.Options(loss=LossOptions(unmask_weight=1.5))},
    "options.loss.alpha is -1": {"options": a2mim.Options(loss=LossOptions(alpha=-1))},
    "options.loss.spectrum_images is 0": {"options": a2mim.Options(loss=LossOptions(spectrum_images=0))},
    "optimizer.betas": {"optimizer": OptimizerConfig(betas=(0.9, 1.0))},
    "optimizer.base_learning_rate is 0": {"optimizer": OptimizerConfig(base_learning_rate=0)},
    "no method is called 'mae'; methods: simmim, a2mim": {"method": "mae"},
    "there is no setting options.fill": {"options": simmim.Options()},
}


@pytest.mark.parametrize("message", sorted(BAD))
def test_a_bad_value_is_named_with_what_is_allowed(message):
    with pytest.raises(ConfigError) as error:
        config.check(replace(GOOD, **BAD[message]))
    assert message in str(error.value)


def test_all_problems_are_reported_at_once():
    bad = replace(
        GOOD,
        image_size=100,
        batch_size=0,
        mask=MaskConfig(mask_ratio=2.0),
        options=a2mim.Options(loss=LossOptions(beta=0)),
    )
    with pytest.raises(ConfigError, match="4 problems in the configuration") as error:
        config.check(bad)
    for name in ("image_size", "batch_size", "mask.mask_ratio", "options.loss.beta"):
        assert f"\n  - {name} is" in str(error.value)


def test_cells_that_do_not_fit_the_token_place_are_refused():
    bad = replace(GOOD, image_size=64, mask=MaskConfig(cell_size=8), model="resnet10t")
    config.check(bad)
    with pytest.raises(ConfigError, match=r"cell_size is 8, but the token enters resnet10t at a map of stride 16"):
        build_model(bad)


def test_an_image_that_the_decoder_cannot_cover_is_refused():
    bad = replace(GOOD, image_size=80, mask=MaskConfig(cell_size=16), model="resnet10t")
    config.check(bad)
    with pytest.raises(ConfigError, match="image_size is 80; allowed: a multiple of resnet10t's stride 32"):
        build_model(bad)


@pytest.mark.parametrize("token", [TokenOptions(stage=2), TokenOptions(stage="layer4", form="replace", init="zero")])
def test_a_configuration_survives_its_file(token):
    options = a2mim.Options(token=token, loss=LossOptions(alpha=0.3, spectrum_images=64))
    written = replace(GOOD, options=options, accumulation=2)
    assert config.from_dict(PretrainConfig, config.to_dict(written)) == written


def test_flags_reach_their_fields(tmp_path):
    flags = (
        "demo --model convnext_atto --method simmim --epochs 3 --mask.mask-ratio 0.5 --options.token.stage stages.1 "
        "--optimizer.clip-grad 1.5 --options.fill mean --schedule.warmup-epochs 1 --data.unreadable skip"
    )
    command = cli.parse("pretrain", RECIPES, [*flags.split(), "--run-dir", str(tmp_path)])
    found = command.config
    assert (found.model, found.method, found.epochs, found.mask.mask_ratio) == ("convnext_atto", "simmim", 3, 0.5)
    assert (found.options.token.stage, found.options.token.form, found.options.fill) == ("stages.1", "add", "mean")
    assert (found.optimizer.clip_grad, found.data.unreadable) == (1.5, "skip")


def test_a_stage_given_as_a_number_is_a_number(tmp_path):
    command = cli.parse("pretrain", RECIPES, ["demo", "--options.token.stage", "2", "--run-dir", str(tmp_path)])
    assert command.config.options.token.stage == 2


def test_the_learning_rate_follows_the_batch():
    base = RECIPES["a2mim-r50-300e"]()
    assert base.learning_rate == pytest.approx(1.2e-3)
    assert replace(base, batch_size=512).learning_rate == pytest.approx(3e-4)
