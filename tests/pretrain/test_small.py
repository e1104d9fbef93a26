"""Recipes for small pictures: every method on every network that stands for a plain name."""

from dataclasses import replace

import pytest
import torch

from backbones import build_backbone
from engine.config import check
from pretrain.methods import METHODS
from pretrain.recipes import RECIPES


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
@pytest.mark.parametrize(("model", "size"), [("resnet18", 32), ("convnext_atto", 64), ("vit_tiny", 96)])
def test_a_step_with_cells_that_fit(method, model, size):
    config = RECIPES["small"](model=model, method=method.name, image_size=size)
    check(replace(config, data=replace(config.data, root="/data")))
    cells = size // config.mask.cell_size
    assert cells >= 4, "a mask of few cells hides nearly the same of every picture"
    encoder = build_backbone(config.model, image_size=size)
    network = method.build(encoder, config)
    images = torch.randint(256, (2, 3, size, size), dtype=torch.uint8)
    mask = (torch.arange(cells * cells).reshape(1, cells, cells).expand(2, -1, -1) % 2).to(torch.uint8)
    losses = network(images, mask)
    sum(losses.values()).backward()
    assert all(torch.isfinite(value) for value in losses.values())
    first = next(parameter for parameter in encoder.parameters() if parameter.ndim == 4)
    assert first.grad is not None and first.grad.abs().sum() > 0


def test_the_token_enters_where_the_published_recipe_of_the_family_has_it():
    stage = {
        (model, method): RECIPES["small"](model=model, method=method, image_size=32).options.token.stage
        for model in ("resnet18", "convnext_atto")
        for method in ("simmim", "a2mim")
    }
    assert stage == {
        ("resnet18", "simmim"): "layer1",
        ("resnet18", "a2mim"): "layer4",
        ("convnext_atto", "simmim"): "stages.0.blocks",
        ("convnext_atto", "a2mim"): "stages.3.blocks",
    }
