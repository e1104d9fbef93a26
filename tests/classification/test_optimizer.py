"""Which parameters decay and at which rate each layer learns."""

from dataclasses import replace

import pytest
import torch

from backbones import build_classifier
from classification.optimizer import parameter_groups
from classification.probe import LinearProbe
from classification.recipes import RECIPES, convnext_ft, linear_probe, rsb_a2, vit_ft
from engine.training import optim


def by_name(model, config):
    groups = parameter_groups(model, config.optimizer, config.learning_rate)
    return {name: (group["base_rate"], group["weight_decay"]) for group in groups for name in group["names"]}


def meta_classifier(name):
    with torch.device("meta"):
        return build_classifier(name, 1000)


def test_layer_decay_of_vit_b_starts_at_the_embedding_and_ends_at_the_head():
    rates = {name: rate for name, (rate, _) in by_name(meta_classifier("vit_b"), vit_ft("vit_b")).items()}
    # 14 layers: patch embedding and positions 0, blocks 1 to 12, norm and head 13
    assert rates["head.weight"] == pytest.approx(1e-2)
    assert rates["fc_norm.weight"] == pytest.approx(1e-2)
    assert rates["blocks.11.mlp.fc2.weight"] == pytest.approx(1e-2 * 0.65)
    assert rates["blocks.0.attn.qkv.weight"] == pytest.approx(1e-2 * 0.65**12)
    for name in ("patch_embed.proj.weight", "pos_embed", "cls_token"):
        assert rates[name] == pytest.approx(1e-2 * 0.65**13)


def test_vit_spares_everything_but_matrices_from_weight_decay():
    model = meta_classifier("vit_b")
    for name, (_, decay) in by_name(model, vit_ft("vit_b")).items():
        matrix = name.endswith((".qkv.weight", ".attn.proj.weight", "fc1.weight", "fc2.weight", "head.weight"))
        assert decay == (0.05 if matrix or name == "patch_embed.proj.weight" else 0.0), name


@pytest.mark.parametrize(("name", "recipe"), [("r50", rsb_a2), ("convnext_t", convnext_ft)])
def test_biases_and_every_norm_scale_of_a_cnn_are_spared_from_weight_decay(name, recipe):
    model = meta_classifier(name)
    config = recipe(name)
    settings = by_name(model, config)
    for parameter_name, parameter in model.named_parameters():
        expected = config.optimizer.weight_decay if parameter.ndim > 1 else 0.0
        assert settings[parameter_name] == (pytest.approx(config.learning_rate), expected), parameter_name
    if name == "r50":
        assert settings["layer1.0.downsample.1.weight"][1] == 0.0


@pytest.mark.parametrize("name", ["r50", "vit_s", "convnext_t", "swin_t"])
def test_everything_trains_in_fine_tuning(name):
    recipe = {"r50": "rsb-a2", "vit_s": "vit-ft", "convnext_t": "convnext-ft", "swin_t": "swin-ft"}[name]
    model = meta_classifier(name)
    assert set(by_name(model, RECIPES[recipe](name))) == {name for name, _ in model.named_parameters()}


@pytest.mark.parametrize("name", ["r50", "vit_s", "convnext_t"])
def test_only_the_last_linear_layer_trains_in_a_linear_probe(name):
    network = meta_classifier(name)
    expected = {f"network.{n}" for n, p in network.named_parameters() if p is not None and p.shape[0] == 1000}
    assert set(by_name(LinearProbe(network), linear_probe(name))) == expected
    assert len(expected) == 2


def test_the_optimizers_are_the_named_ones():
    model = build_classifier("test_resnet", 3, image_size=32)
    kinds = {}
    for name in ("adamw", "lamb", "sgd"):
        config = rsb_a2("test_resnet")
        groups = parameter_groups(model, config.optimizer, config.learning_rate)
        optimizer = optim.build(replace(config.optimizer, name=name), groups, config.learning_rate)
        assert all("base_rate" in group for group in optimizer.param_groups)
        kinds[name] = type(optimizer).__name__
    assert kinds == {"adamw": "AdamW", "lamb": "Lamb", "sgd": "SGD"}


def test_the_frozen_encoder_stays_in_evaluation_mode_and_does_not_move():
    torch.manual_seed(0)
    probe = LinearProbe(build_classifier("test_resnet", 3, image_size=32))
    before = {name: value.clone() for name, value in probe.state_dict().items()}
    config = linear_probe("test_resnet")
    optimizer = optim.build(config.optimizer, parameter_groups(probe, config.optimizer, 0.5), 0.5)
    probe.train()
    probe(torch.randn(8, 3, 32, 32)).square().mean().backward()
    optimizer.step()
    moved = {name for name, value in probe.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {"network.fc.weight", "network.fc.bias"}


def test_a_linear_probe_predicts_what_its_network_predicts():
    network = build_classifier("test_vit", 3, image_size=64).eval()
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(LinearProbe(network)(images), network(images))
