"""Every shipped recipe is valid, builds and trains; its values are those of the released files."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from backbones import family
from engine import config
from engine.errors import ConfigError
from engine.training.optim import parameter_groups
from pretrain.build import build_model
from pretrain.masking import cell_mask
from pretrain.methods.a2mim import LossOptions
from pretrain.recipes import RECIPES, demo, for_model

SMALL = {"resnet": "test_resnet", "convnext": "test_convnext", "vit": "test_vit"}
NAMES = sorted(set(RECIPES) - {"demo", "own", "any", "small"})  # test_small.py has the last


NO_FREQUENCY = LossOptions(frequency_weight=0.0)


def small(recipe):
    """The recipe with a small network of its family, on 64 pixels and four images."""
    full = RECIPES[recipe]()
    return replace(full, model=SMALL[family(full.model)], image_size=64, batch_size=4, drop_path=0.0)


def one_step(run):
    """Two optimizer steps' losses."""
    torch.manual_seed(0)
    model = build_model(run)
    options = run.optimizer
    groups = parameter_groups(
        model.named_parameters(),
        learning_rate=1e-3,
        weight_decay=options.weight_decay,
        no_decay=options.no_decay,
        rate_scale=options.rate_scale,
    )
    optimizer = torch.optim.AdamW(groups, betas=options.betas, eps=options.eps)
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(0, 256, (4, 3, run.image_size, run.image_size), dtype=np.uint8))
    masks = [cell_mask(rng, run.image_size, run.mask.cell_size, run.mask.mask_ratio) for _ in range(4)]
    values = []
    for _ in range(2):
        total = sum(model(images, torch.from_numpy(np.stack(masks))).values())
        total.backward()
        optimizer.step()
        optimizer.zero_grad()
        values.append(total.item())
    return values


def _with_images(run):
    return replace(run, data=replace(run.data, root="images"))


@pytest.mark.parametrize("recipe", NAMES)
def test_every_recipe_is_valid_and_trains_at_reduced_size(recipe):
    config.check(_with_images(RECIPES[recipe]()))
    run = small(recipe)
    config.check(_with_images(run))
    first, second = one_step(run)
    assert math.isfinite(second)
    assert second < first


@pytest.mark.parametrize("recipe", NAMES)
def test_every_recipe_says_what_to_expect_and_what_it_costs(recipe):
    text = RECIPES[recipe].__doc__
    assert "Expected: " in text
    assert "EFLOP" in text
    assert ("Source: " in text) != recipe.endswith(("-paper", "-filled")) or recipe == "simmim-vit_b-800e-filled"


@pytest.mark.parametrize(
    "recipe",
    ["a2mim-r200-300e", "a2mim-convnext_b-300e", "a2mim-vit_s-800e"],
)
def test_the_published_networks_take_the_token_where_the_recipe_puts_it(recipe):
    with torch.device("meta"):
        model = build_model(RECIPES[recipe]())
    channels = {"r200": 1024, "convnext_b": 1024, "vit_s": 768}
    assert model.token.mask_token.shape == (1, channels[recipe.split("-")[1]], 1, 1)


def test_published_values():
    rows = {  # recipe: peak rate, epochs, clip, drop path, smallest crop, form, stage, frequency weight
        "a2mim-r50-300e": (1.2e-3, 300, None, 0.0, 0.8, "gated", 3, 0.5),
        "a2mim-r101-300e": (1.2e-3, 300, None, 0.0, 0.8, "gated", 3, 0.1),
        "a2mim-r200-300e": (1.2e-3, 300, None, 0.0, 0.8, "gated", 3, 0.0),
        "a2mim-convnext_b-300e": (1.2e-3, 300, None, 0.0, 0.8, "gated", 3, 0.0),
        "a2mim-vit_l-800e": (4e-4, 800, 5.0, 0.1, 0.67, "add", 0, 0.1),
        "simmim-r152-300e": (8e-4, 300, None, 0.0, 0.67, "replace", 0, 0.0),
        "simmim-convnext_t-300e": (8e-4, 300, None, 0.0, 0.67, "add", 0, 0.0),
        "simmim-vit_s-800e": (4e-4, 800, 5.0, 0.1, 0.67, "replace", 0, 0.0),
    }
    for recipe, row in rows.items():
        run = RECIPES[recipe]()
        found = (
            pytest.approx(run.learning_rate),
            run.epochs,
            run.optimizer.clip_grad,
            run.drop_path,
            run.data.crop_scale[0],
            run.options.token.form,
            run.options.token.stage,
            getattr(run.options, "loss", NO_FREQUENCY).frequency_weight,
        )
        assert row == found, recipe
        assert (run.batch_size, run.image_size, run.mask.cell_size, run.mask.mask_ratio) == (2048, 224, 32, 0.6)


@pytest.mark.parametrize(
    "model, method",
    [
        ("swin_t", "a2mim"),
        ("deit_s", "simmim"),
        ("regnety_002", "a2mim"),
        ("efficientnet_lite0", "simmim"),
        ("resnet18", "a2mim"),
        ("mixer_s32_224", "a2mim"),
    ],
)
def test_the_demo_takes_any_network(model, method):
    run = demo(model, method)
    config.check(_with_images(run))
    assert (run.model, run.method) == (model, method)
    with torch.device("meta"):
        built = build_model(run)
    assert len(list(built.token.parameters())) >= 1


@pytest.mark.parametrize("method", ["a2mim", "simmim"])
def test_the_demo_does_not_train_a_transformer_at_the_rate_of_a_cnn(method):
    """At which a ViT collapsed (docs/studies.md)."""
    rates = {model: demo(model, method).optimizer.base_learning_rate for model in ("r50", "vit_s", "swin_t")}
    assert rates["vit_s"] == rates["swin_t"] < rates["r50"]


def test_families_follow_their_published_rules():
    assert for_model("deit_small_patch16_224").options.token == RECIPES["a2mim-vit_b-800e"]().options.token
    assert for_model("resnext50_32x4d", "simmim").options.token == RECIPES["simmim-r50-300e"]().options.token
    assert for_model("convnextv2_nano").options.token == RECIPES["a2mim-convnext_t-300e"]().options.token
    assert for_model("swin_b", "simmim").options.token.form == "replace"
    assert for_model().model == "r50"  # `any` without a name must show its help


def test_an_unknown_method_is_refused():
    with pytest.raises(ConfigError, match="no method is called 'mae'; methods: simmim, a2mim"):
        demo("r50", "mae")
