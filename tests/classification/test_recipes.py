"""The recipes against tables typed from the papers' procedures and the released configuration files."""

import pytest

from classification.recipes import RECIPES, convnext_ft, linear_probe, rsb_a2, rsb_a3, vit_ft

# epochs, train px, test px, batch, peak rate, weight decay, warm-up epochs, label smoothing, mixup, cutmix,
# RandAugment, repeats, drop path (R50)
RSB = {
    "rsb-a1": (600, 224, 224, 2048, 5e-3, 0.01, 5, 0.1, 0.2, 1.0, "rand-m7-mstd0.5-inc1", 3, 0.05),
    "rsb-a2": (300, 224, 224, 2048, 5e-3, 0.02, 5, 0.0, 0.1, 1.0, "rand-m7-mstd0.5-inc1", 3, 0.05),
    "rsb-a3": (100, 160, 224, 2048, 8e-3, 0.02, 5, 0.0, 0.1, 1.0, "rand-m6-mstd0.5-inc1", 1, 0.0),
}

# epochs, batch, peak rate, weight decay, warm-up epochs, layer decay, drop path, clip, EMA decay
DEIT_STYLE = {
    ("vit-ft", "vit_s"): (100, 1024, 1e-2, 0.05, 20, 0.65, 0.1, 5.0, 0.0),
    ("vit-ft", "vit_b"): (100, 1024, 1e-2, 0.05, 20, 0.65, 0.1, 5.0, 0.99996),
    ("vit-ft", "vit_l"): (100, 1024, 1e-2, 0.05, 20, 0.65, 0.1, 5.0, 0.99996),
    ("deit-ft", "deit_s"): (100, 1024, 8e-3, 0.05, 5, 0.65, 0.1, 5.0, 0.0),
    ("swin-ft", "swin_t"): (100, 2048, 5e-3, 0.05, 20, 0.9, 0.1, 5.0, 0.0),
    ("swin-ft", "swin_b"): (100, 2048, 5e-3, 0.05, 20, 0.9, 0.1, 5.0, 0.0),
    ("resnet-deit-ft", "r50"): (100, 2048, 5e-3, 0.05, 20, 1.0, 0.0, None, 0.0),
    ("convnext-ft", "convnext_t"): (300, 4096, 4e-3, 0.05, 20, 1.0, 0.1, None, 0.9999),
    ("convnext-ft", "convnext_s"): (300, 4096, 4e-3, 0.05, 20, 1.0, 0.4, None, 0.9999),
    ("convnext-ft", "convnext_b"): (300, 4096, 4e-3, 0.05, 20, 1.0, 0.5, None, 0.9999),
}


@pytest.mark.parametrize("name", RSB)
def test_rsb_recipes_have_the_published_values(name):
    config = RECIPES[name]()
    augment = config.augment
    assert (
        config.epochs,
        config.image_size,
        augment.test_size,
        config.batch_size,
        pytest.approx(config.learning_rate),
        config.optimizer.weight_decay,
        config.schedule.warmup_epochs,
        augment.label_smoothing,
        augment.mixup,
        augment.cutmix,
        augment.auto_augment,
        augment.repeats,
        config.drop_path,
    ) == RSB[name]
    assert (config.optimizer.name, config.optimizer.clip_grad, config.optimizer.layer_decay) == ("lamb", None, 1.0)
    assert (config.loss.kind, config.loss.target_threshold) == ("bce", None)
    assert (augment.crop_pct, augment.interpolation, augment.random_erasing, augment.color_jitter) == (
        0.95,
        "bicubic",
        0.0,
        0.0,
    )
    assert (config.schedule.kind, config.schedule.warmup_start, config.schedule.min_rate) == (
        "cosine",
        1e-4,
        1e-6,
    )


def test_only_rsb_a2_of_r50_keeps_a_moving_average():
    assert (rsb_a2("r50").ema.decay, rsb_a2("r50").ema.warmup_epochs) == (0.9999, 20)
    assert {rsb_a2(model).ema.decay for model in ("r101", "r152", "r200")} == {0.0}
    assert {RECIPES[name]().ema.decay for name in ("rsb-a1", "rsb-a3")} == {0.0}


def test_rsb_drop_path_follows_the_depth_as_published():
    assert [rsb_a2(model).drop_path for model in ("r50", "r101", "r152", "r200")] == [0.05, 0.05, 0.05, 0.2]
    assert [rsb_a3(model).drop_path for model in ("r50", "r152", "convnext_t")] == [0.0, 0.0, 0.1]


@pytest.mark.parametrize(("name", "model"), DEIT_STYLE)
def test_fine_tuning_recipes_have_the_published_values(name, model):
    config = RECIPES[name](model)
    optimizer, augment = config.optimizer, config.augment
    assert config.model == model
    assert (
        config.epochs,
        config.batch_size,
        pytest.approx(config.learning_rate),
        optimizer.weight_decay,
        config.schedule.warmup_epochs,
        optimizer.layer_decay,
        config.drop_path,
        optimizer.clip_grad,
        config.ema.decay,
    ) == DEIT_STYLE[name, model]
    assert (augment.auto_augment, augment.random_erasing, augment.mixup, augment.cutmix, augment.label_smoothing) == (
        "rand-m9-mstd0.5-inc1",
        0.25,
        0.8,
        1.0,
        0.1,
    )
    assert (optimizer.name, config.loss.kind, augment.repeats) == ("adamw", "cross_entropy", 1)
    assert (config.image_size, augment.test_size, augment.crop_pct, augment.interpolation) == (
        224,
        224,
        0.875,
        "bicubic",
    )
    assert config.schedule.min_rate == 1e-6


def test_the_linear_probe_moves_only_the_classifier_with_plain_sgd():
    config = linear_probe("r50")
    assert (config.freeze, config.epochs, config.batch_size) == ("encoder", 100, 256)
    assert (config.optimizer.name, config.learning_rate, config.optimizer.momentum) == ("sgd", 30.0, 0.9)
    assert config.optimizer.weight_decay == 0
    assert (config.schedule.kind, config.schedule.milestones) == ("step", (60, 80))
    assert not config.mixes and not config.augment.auto_augment
    vit = linear_probe("vit_s")
    assert (vit.epochs, vit.batch_size, vit.learning_rate, vit.schedule.kind) == (90, 1024, 12.0, "cosine")


def test_no_recipe_depends_on_what_the_encoder_was_pre_trained_with():
    assert {recipe().init for recipe in RECIPES.values()} == {""}
    assert len({vit_ft(model).epochs for model in ("vit_s", "vit_b", "vit_l")}) == 1
    assert len({convnext_ft(model).epochs for model in ("convnext_t", "convnext_s", "convnext_b")}) == 1


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_states_source_expectation_and_cost(name):
    text = RECIPES[name].__doc__
    assert all(word in text for word in ("Source", "Expected", "Cost"))
