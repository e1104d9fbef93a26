"""The released runs' learning rate and weight decay of every single tensor."""

import functools
import json

import pytest
import torch

from engine.training.optim import parameter_groups
from pretrain.build import build_model
from pretrain.recipes import RECIPES
from tests.pretrain.published_networks import GOLDEN, our_name

PUBLISHED = json.loads((GOLDEN / "optimizer_groups.json").read_text())
CASES = {
    "a2mim_r50_l3_init": "a2mim-r50-300e",
    "a2mim_r50_l3": "a2mim-r50-100e-add",
    "a2mim_r50_l0": "a2mim-r50-100e-stem",
    "a2mim_vitb_l0": "a2mim-vit_b-800e",
    "a2mim_convnext_t_l3_init": "a2mim-convnext_t-300e",
    "simmim_r50": "simmim-r50-300e",
    "simmim_vitb": "simmim-vit_b-800e",
    "simmim_convnext_t": "simmim-convnext_t-300e",
}


@functools.lru_cache
def on_shapes(config):
    with torch.device("meta"):  # names and shapes are all that matters here
        return build_model(config)


def rules_of(recipe):
    """{our parameter name: (rate, decay, number of values)} of a recipe's model under the recipe's rules."""
    config = RECIPES[recipe]()
    model = on_shapes(config)
    groups = parameter_groups(
        model.named_parameters(),
        learning_rate=config.learning_rate,
        weight_decay=config.optimizer.weight_decay,
        no_decay=config.optimizer.no_decay,
        rate_scale=config.optimizer.rate_scale,
    )
    return {
        name: (group["lr"], group["weight_decay"], parameter.numel())
        for group in groups
        for name, parameter in zip(group["names"], group["params"], strict=True)
    }


@pytest.mark.parametrize("case", sorted(CASES))
def test_every_tensor_has_its_published_rate_and_decay(case):
    published, ours = PUBLISHED[case], rules_of(CASES[case])
    rows = {our_name(name): row for name, row in published["rows"].items()}
    assert rows.keys() == ours.keys()
    for name, row in rows.items():
        rate, decay, count = ours[name]
        shape_count = 1
        for side in row["shape"]:
            shape_count *= side
        assert (rate, decay, count) == (pytest.approx(row["lr"], rel=1e-12), row["wd"], shape_count), name


@pytest.mark.parametrize("case", sorted(CASES))
def test_the_optimizer_settings_are_the_published_ones(case):
    published, config = PUBLISHED[case]["optimizer"], RECIPES[CASES[case]]()
    assert config.learning_rate == pytest.approx(published["lr"], rel=1e-12)
    assert list(config.optimizer.betas) == published["betas"]
    assert (config.optimizer.eps, config.optimizer.weight_decay) == (published["eps"], published["weight_decay"])


@pytest.mark.parametrize("recipe", ["a2mim-r50-300e-paper", "a2mim-vit_b-800e-paper"])
def test_the_paper_recipes_decay_matrices_and_kernels_only(recipe):
    model = on_shapes(RECIPES[recipe]())
    rules = rules_of(recipe)
    for name, parameter in model.named_parameters():
        is_weight = parameter.ndim > 1 and not any(part in name for part in ("token", "pos_embed", "position_bias"))
        assert rules[name][1] == (0.05 if is_weight else 0.0), name
