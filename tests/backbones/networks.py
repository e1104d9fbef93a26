"""Small versions of the published architectures, real but quick, and other timm networks as they are."""

import copy
import functools

import torch

from backbones import Backbone, build_backbone

TINY = {
    "r50": {"channels": (4, 8, 16, 32), "layers": (2, 1, 2, 1)},
    "convnext_t": {"depths": (1, 1, 2, 1), "dims": (8, 16, 24, 32)},
    "vit_b": {"embed_dim": 32, "depth": 3, "num_heads": 4, "mlp_ratio": 2},
    "deit_s": {"embed_dim": 32, "depth": 2, "num_heads": 4, "mlp_ratio": 2},
    "swin_t": {"embed_dim": 8, "depths": (1, 2, 1, 1), "num_heads": (1, 2, 2, 2)},
}
"""Published name -> options that make it small. The default image size for all of them is 64 px here."""

OTHERS = {
    "resnet18": {},
    "regnety_002": {},
    "efficientnet_b0": {},
    "mobilenetv3_small_100": {},
    "convnext_atto": {},
    "vit_tiny_patch16_224": {"depth": 3},
    "swin_tiny_patch4_window7_224": {"embed_dim": 24, "depths": (1, 1, 1, 1)},
}
"""timm name -> options."""


def tiny(name: str, *, image_size: int = 64) -> Backbone:
    """A small published network, a fresh copy at each call."""
    return copy.deepcopy(_built(name, image_size))


def small(name: str) -> Backbone:
    """A tiny published network or another timm network for 64 px, a fresh copy at each call."""
    return copy.deepcopy(_built(name, 64))


@functools.cache
def _built(name: str, image_size: int) -> Backbone:
    return build_backbone(name, image_size=image_size, **(TINY | OTHERS)[name])


@functools.cache
def full_size(name: str, image_size: int = 224) -> Backbone:
    """A published network at its real size, without memory: shapes only, and shared, so not to be changed."""
    with torch.device("meta"):
        return build_backbone(name, image_size=image_size)
