"""The network of the run folders in tests/data/unfinished: a ResNet of three thousand weights, under a timm name."""

from typing import Any

import timm
from timm.models import build_model_with_cfg
from timm.models.resnet import BasicBlock, ResNet

NAME = "tiny_resnet_of_tests"


def tiny_resnet_of_tests(pretrained: bool = False, **options: Any) -> ResNet:
    """Four stages of one block, at most 8 channels, strides 4, 8, 8 and 8."""
    small = {"channels": (4, 4, 4, 8), "stem_type": "deep", "stem_width": 2, "output_stride": 8}
    settings = {"block": BasicBlock, "layers": [1, 1, 1, 1], **small, **options}
    network: ResNet = build_model_with_cfg(ResNet, NAME, pretrained, **settings)
    return network


def tiny_resnet_of_tests_32(pretrained: bool = False, **options: Any) -> ResNet:
    """The same with strides 4, 8, 16 and 32, as a segmentor needs them."""
    return tiny_resnet_of_tests(pretrained, **{"output_stride": 32, **options})


def register() -> None:
    """Make timm know them, once."""
    for network in (tiny_resnet_of_tests, tiny_resnet_of_tests_32):
        if not timm.is_model(network.__name__):
            timm.models.register_model(network)
