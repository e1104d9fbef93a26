"""Which parameters decay, and at which rate each layer of the encoder learns."""

from dataclasses import replace

import pytest
import torch

from backbones import build_backbone
from detection.config import DetectionConfig, OptimizerConfig
from detection.frameworks.torchvision import build
from detection.optimizer import layer_scales, parameter_groups
from engine.training import optim
from tests.detection.folders import SMALL_HEADS


def exponents(name, decay=0.5, **options):
    """Parameter name -> how often the decay applies."""
    with torch.device("meta"):
        backbone = build_backbone(name, image_size=64, **options)
    scales = layer_scales(backbone, decay)
    logarithm = torch.tensor(decay).log()
    return {
        parameter_name: round(float(torch.tensor(scales[id(parameter)]).log() / logarithm))
        for parameter_name, parameter in backbone.net.named_parameters()
    }


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (
            "r50",  # SparK: 5 layers, stage three of six blocks in two
            {
                "conv1.weight": 6,
                "layer1.2.conv1.weight": 5,
                "layer2.0.downsample.0.weight": 4,
                "layer3.2.bn2.weight": 3,
                "layer3.3.conv1.weight": 2,
                "layer4.0.conv1.weight": 1,
            },
        ),
        ("r101", {"conv1.weight": 12, "layer3.22.conv1.weight": 2, "layer4.2.conv3.weight": 1}),  # SparK: 11 layers
        (
            "convnext_s",  # ConvNeXt: 12 layers
            {
                "stem.0.weight": 13,
                "stages.0.blocks.0.gamma": 12,
                "stages.1.downsample.1.weight": 11,
                "stages.2.downsample.1.weight": 10,
                "stages.2.blocks.26.mlp.fc1.weight": 2,
                "stages.3.downsample.0.weight": 1,
            },
        ),
        (
            "swin_t",
            {"patch_embed.proj.weight": 6, "layers.2.blocks.5.attn.qkv.weight": 2, "layers.3.blocks.0.norm1.bias": 1},
        ),
        (
            "vit_s",  # 8 blocks
            {
                "cls_token": 9,
                "pos_embed": 9,
                "patch_embed.proj.weight": 9,
                "blocks.0.attn.qkv.weight": 8,
                "blocks.7.mlp.fc2.bias": 1,
            },
        ),
    ],
)
def test_layers_are_those_of_the_published_recipes(model, expected):
    found = exponents(model)
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize("model", ["test_resnet", "test_convnext", "test_vit"])
def test_every_trainable_parameter_is_in_one_group_with_its_rate_and_decay(model):
    config = DetectionConfig(
        model=model,
        framework="torchvision",
        heads=replace(SMALL_HEADS, norm="ln", box_convs=1),
        optimizer=OptimizerConfig(name="adamw", base_learning_rate=1.0, weight_decay=0.1, layer_decay=0.5),
    )
    backbone = build_backbone(model, image_size=64)
    scales = layer_scales(backbone, 0.5)
    detector = build(config, backbone, 3)
    groups = parameter_groups(detector, config, scales)
    named = {name: parameter for name, parameter in detector.named_parameters() if parameter.requires_grad}
    assert sorted(name for group in groups for name in group["names"]) == sorted(named)
    for group in groups:
        for name, parameter in zip(group["names"], group["params"], strict=True):
            assert named[name] is parameter
            assert group["base_rate"] == scales.get(id(parameter), 1.0)
            is_embedding = name.endswith(("pos_embed", "cls_token", "reg_token"))
            is_norm_or_scale = parameter.ndim == 1 and not name.endswith(".bias")
            if is_embedding or is_norm_or_scale:
                assert group["weight_decay"] == 0, name
            elif parameter.ndim > 1:
                assert group["weight_decay"] == 0.1, name
    biases = {
        name: g["weight_decay"] for g in groups for name in g["names"] if name.endswith("box_predictor.cls_score.bias")
    }
    assert set(biases.values()) == {0.1}  # as published


def test_sgd_and_adamw_have_the_recipes_values():
    config = DetectionConfig(model="test_resnet", framework="torchvision", batch_size=8, heads=SMALL_HEADS)
    detector = build(config, build_backbone("test_resnet", image_size=64), 3)
    groups = parameter_groups(detector, config)
    sgd = optim.build(config.optimizer, groups, config.learning_rate)
    assert isinstance(sgd, torch.optim.SGD)
    assert {(group["lr"], group["momentum"], group["nesterov"]) for group in sgd.param_groups} == {(0.01, 0.9, False)}
    adamw = optim.build(OptimizerConfig(name="adamw"), groups, config.learning_rate)
    assert isinstance(adamw, torch.optim.AdamW)
    assert {group["betas"] for group in adamw.param_groups} == {(0.9, 0.999)}
