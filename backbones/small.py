"""Networks for images of 32 to 96 pixels: known ones whose first layer keeps more of the picture.

A network made for 224 pixels divides the picture's side by 32, which leaves a single position of 32 pixels. These
divide it by 8 (names without a number, 32 to 48 pixels) or 16 (`_64`, 49 to 96 pixels).
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

FINE, LARGEST = 48, 96
"""Sides in pixels up to which the stems for 32 and for 64 pixels are taken."""
STAND_INS = {
    "resnet18": ("resnet18_small", "resnet18_small_64"),
    "r50": ("resnet50_small", "resnet50_small_64"),
    "convnext_atto": ("convnext_atto_small", "convnext_atto_small_64"),
    "vit_tiny": ("vit_tiny_p4", "vit_tiny_p8"),
}
"""Name -> the networks that stand for it up to FINE pixels, and up to LARGEST."""
SYNONYMS = {"r18": "resnet18", "resnet50": "r50", "vit_tiny_patch16_224": "vit_tiny"}


def small_network(model: str, image_size: int) -> str:
    """The network that stands for `model` at this image size; `model` itself where none does."""
    names = STAND_INS.get(SYNONYMS.get(model, model))
    if names is None or image_size > LARGEST:
        return model
    return names[0] if image_size <= FINE else names[1]


def small_factory(timm_name: str, stride: int) -> "Callable[..., nn.Module]":
    """Makes a ResNet or ConvNeXt of timm whose stem divides the picture's side by `stride`.

    ResNet: a 3x3 convolution and no max pooling (with stride 1 the stem of He et al. 2016 for CIFAR). ConvNeXt: patches
    of that side, and no division before the first stage.
    """

    def make(
        num_classes: int = 0,
        drop_path_rate: float = 0.0,
        drop_rate: float = 0.0,
        in_chans: int = 3,
        global_pool: str = "avg",
    ) -> "nn.Module":
        import timm  # here: names are looked up without it
        from torch import nn

        options: dict[str, Any] = {"drop_rate": drop_rate, "in_chans": in_chans, "global_pool": global_pool}
        is_convnext = timm_name.startswith("convnext")
        if is_convnext:
            options["patch_size"] = 1  # 2 would be followed by a division by two
        net: Any = timm.create_model(timm_name, num_classes=num_classes, drop_path_rate=drop_path_rate, **options)
        if is_convnext:
            net.stem[0] = nn.Conv2d(in_chans, net.stem[0].out_channels, stride, stride=stride)
            nn.init.trunc_normal_(net.stem[0].weight, std=0.02)
            nn.init.zeros_(net.stem[0].bias)
        else:
            net.conv1 = nn.Conv2d(in_chans, net.conv1.out_channels, 3, stride=stride, padding=1, bias=False)
            nn.init.kaiming_normal_(net.conv1.weight, mode="fan_out", nonlinearity="relu")  # as the rest of timm's
            net.maxpool = nn.Identity()
        module: nn.Module = net
        return module

    return make
