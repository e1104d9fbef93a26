"""Networks for small pictures: what they divide by, that timm's weights still fit, and which stands for which."""

import pytest
import timm
import torch

from backbones import build_backbone, build_classifier, family, find_architecture
from backbones.architectures import SMALL
from backbones.small import STAND_INS, small_network


@pytest.mark.parametrize(
    ("name", "size", "stride"),
    [
        ("resnet18_small", 32, 8),
        ("resnet50_small", 32, 8),
        ("convnext_atto_small", 32, 8),
        ("resnet18_small_64", 64, 16),
        ("convnext_atto_small_64", 64, 16),
        ("vit_tiny_p2", 32, 2),
        ("vit_tiny_p4", 32, 4),
        ("vit_tiny_p8", 64, 8),
    ],
)
def test_the_last_map_of_a_small_picture_has_several_positions(name, size, stride):
    with torch.device("meta"):
        encoder = build_backbone(name, image_size=size)
    assert (encoder.final_stride, encoder.final_map_size) == (stride, size // stride)
    assert encoder.family == family(name) == find_architecture(name).family


def test_only_the_stem_differs_from_timms_network():
    plain = {name: value.shape for name, value in timm.create_model("resnet18", num_classes=10).state_dict().items()}
    ours = {
        name: value.shape for name, value in build_classifier("resnet18_small", 10, image_size=32).state_dict().items()
    }
    assert [name for name in plain if plain[name] != ours[name]] == ["conv1.weight"]
    assert ours["conv1.weight"] == (64, 3, 3, 3)


def test_a_plain_name_stands_for_the_network_of_the_size():
    assert small_network("resnet18", 32) == "resnet18_small"
    assert small_network("r18", 48) == "resnet18_small"
    assert small_network("resnet50", 64) == "resnet50_small_64"
    assert small_network("vit_tiny", 96) == "vit_tiny_p8"
    assert small_network("resnet18", 128) == "resnet18"
    assert small_network("swin_t", 64) == "swin_t"
    assert {name for names in STAND_INS.values() for name in names} <= set(SMALL)
