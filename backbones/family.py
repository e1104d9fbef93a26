"""The one answer to "which family is this network", which every recipe, plan and table asks for."""

from .architectures import PUBLISHED, Family, find_architecture


def family(name: str) -> Family:
    """Whose published rules the network `name` follows: resnet, convnext, vit, swin, or other for everything else.

    `name` is a published or timm name. A published one is answered without torch and timm.

    Raises BackboneError naming the nearest valid names if there is none.
    """
    return PUBLISHED[name].family if name in PUBLISHED else find_architecture(name).family
