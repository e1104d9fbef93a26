"""The published architecture names and the timm model each one is. Any other timm name is taken as it is."""

import difflib
import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from .errors import BackboneError
from .small import small_factory

Family = Literal["resnet", "convnext", "vit", "swin", "other"]
"""Whose published rules a network follows: see family.py."""
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Of ImageNet's RGB values between 0 and 1, which nearly all published weights were trained with."""


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A timm model with the options that make it the published network."""

    timm_name: str
    """Name timm builds it from."""
    family: Family
    """Whose rules it follows in pre-training and fine-tuning."""
    options: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments for timm, without image size, drop path and classifier."""
    for_size: Callable[[int], dict[str, Any]] = lambda image_size: {}
    """Further keyword arguments that depend on the image size in pixels."""
    is_vit: bool = False
    """One of the published ViTs (timm's Beit class), which need the published initialisation."""
    factory: Callable[..., Any] | None = None
    """What makes the network, where it is one's own: `timm_name` is then its `module:name`."""
    class_token_head: bool = False
    """True: the ViT's classifier reads the class token. False: the normalised mean of the patch tokens."""


def _vit(*, class_token_head: bool = False, **options: Any) -> Architecture:
    """The ViT of the published runs: BEiT blocks with absolute positions as well.

    Class token, learned absolute positions, one relative position bias table per block ((2 * 14 - 1)^2 + 3 rows at
    224 px), query and value biases but no key bias, layer scale 0.1, LayerNorm eps 1e-6.
    """
    return Architecture(
        timm_name="beit_base_patch16_224",
        family="vit",
        options={"use_abs_pos_emb": True, "use_rel_pos_bias": True, "init_values": 0.1, **options},
        for_size=lambda image_size: {"img_size": image_size},
        is_vit=True,
        class_token_head=class_token_head,
    )


def _swin(timm_name: str) -> Architecture:
    """A Swin Transformer: window 7, or 6 at the 192 px of the published pre-training (a stage 4 map of 6 x 6)."""
    return Architecture(
        timm_name=timm_name,
        family="swin",
        options={"strict_img_size": False},  # detection and segmentation feed other sizes than the build size
        for_size=lambda image_size: {"img_size": image_size, "window_size": 6 if image_size == 192 else 7},
    )


def _deit_s() -> Architecture:
    """DeiT-S as it was pre-trained: 12 blocks x 384, 6 heads, with both absolute and relative positions.

    The published pre-training configuration switches on the relative bias and the layer scale of the other ViTs, so
    the encoder keeps its absolute positions, gains one bias table per block and loses the key biases: 22.11 M with
    its classifier, where the original DeiT-S (absolute positions only) has the 22.05 M that tables print. Its
    fine-tuning reads the class token, unlike that of the other ViTs.
    """
    return _vit(embed_dim=384, depth=12, num_heads=6, mlp_ratio=4, class_token_head=True)


PUBLISHED: dict[str, Architecture] = {
    "r50": Architecture(timm_name="resnet50", family="resnet"),
    "r101": Architecture(timm_name="resnet101", family="resnet"),
    "r152": Architecture(timm_name="resnet152", family="resnet"),
    "r200": Architecture(
        timm_name="resnet50", family="resnet", options={"layers": (3, 24, 36, 3)}
    ),  # plain 7x7 stem, unlike resnet200d
    "convnext_t": Architecture(timm_name="convnext_tiny", family="convnext"),
    "convnext_s": Architecture(timm_name="convnext_small", family="convnext"),
    "convnext_b": Architecture(timm_name="convnext_base", family="convnext"),
    "vit_s": _vit(embed_dim=768, depth=8, num_heads=8, mlp_ratio=3),  # not DeiT-S: 8 blocks x 768, MLP 2304, 48.8 M
    "vit_b": _vit(embed_dim=768, depth=12, num_heads=12, mlp_ratio=4),
    "vit_l": _vit(embed_dim=1024, depth=24, num_heads=16, mlp_ratio=4),
    "deit_s": _deit_s(),
    "swin_t": _swin("swin_tiny_patch4_window7_224"),
    "swin_b": _swin("swin_base_patch4_window7_224"),
}
"""Published name -> architecture. ResNets are version 1.5 (stride on the 3x3), ConvNeXts version 1."""


def _small(timm_name: str, family: Family, stride: int) -> Architecture:
    return Architecture(timm_name=timm_name, family=family, factory=small_factory(timm_name, stride))


def _small_vit(patch: int) -> Architecture:
    return Architecture(
        timm_name="vit_tiny_patch16_224",
        family="vit",
        options={"patch_size": patch},
        for_size=lambda image_size: {"img_size": image_size},
    )


SMALL: dict[str, Architecture] = {
    "resnet18_small": _small("resnet18", "resnet", 1),
    "resnet50_small": _small("resnet50", "resnet", 1),
    "convnext_atto_small": _small("convnext_atto", "convnext", 1),
    "resnet18_small_64": _small("resnet18", "resnet", 2),
    "resnet50_small_64": _small("resnet50", "resnet", 2),
    "convnext_atto_small_64": _small("convnext_atto", "convnext", 2),
    "vit_tiny_p2": _small_vit(2),
    "vit_tiny_p4": _small_vit(4),
    "vit_tiny_p8": _small_vit(8),
}
"""Networks for pictures of 32 to 96 pixels; backbones/small.py says which is for which size."""


FAMILY_OF_MODULE: dict[str, Family] = {
    "resnet": "resnet",
    "resnetv2": "resnet",
    "res2net": "resnet",
    "resnest": "resnet",
    "sknet": "resnet",
    "convnext": "convnext",
    "vision_transformer": "vit",
    "vision_transformer_hybrid": "vit",
    "vision_transformer_relpos": "vit",
    "vision_transformer_sam": "vit",
    "naflexvit": "vit",
    "deit": "vit",
    "beit": "vit",
    "eva": "vit",
    "cait": "vit",
    "convit": "vit",
    "xcit": "vit",
    "deepseek_vit": "vit",
    "gemma4_vit": "vit",
    "qwen3_vit": "vit",
    "swin_transformer": "swin",
    "swin_transformer_v2": "swin",
    "swin_transformer_v2_cr": "swin",
}
"""The file of timm that a network comes from -> its family: timm's ResNet class and its subclasses and pre-activation
form; ConvNeXt 1 and 2; Transformers of one width whose blocks all see the same patches; Swins. All else is "other"."""


def find_architecture(name: str) -> Architecture:
    """The architecture called `name`: a published name, one of SMALL, a timm name (a `.tag` after it is ignored), or
    one's own class or function, `package.module:Name`.

    Raises BackboneError naming the nearest valid names if there is none.
    """
    if name in PUBLISHED:
        return PUBLISHED[name]
    if name in SMALL:
        return SMALL[name]
    if ":" in name and not name.startswith("hf-hub:"):
        return _own_architecture(name)
    import timm  # here, because it takes seconds and published names need none of it

    timm_name = name.partition(".")[0]
    if timm_name in timm.list_models():
        return _timm_architecture(timm_name)
    nearest = difflib.get_close_matches(name, PUBLISHED, n=3) + difflib.get_close_matches(
        name, timm.list_models(), n=3, cutoff=0.5
    )
    raise BackboneError(
        f"no model is called {name!r}; nearest: {', '.join(dict.fromkeys(nearest)) or 'none'}. "
        f"Published names: {' '.join(PUBLISHED)}; every name of timm.list_models() works too, "
        "and package.module:Name for a class of one's own."
    )


def _own_architecture(name: str) -> Architecture:
    """A network that is not in timm: a callable that returns a module with timm's interface (Backbone says which)."""
    module, _, attribute = name.partition(":")
    try:
        factory = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # from inside somebody's module
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
        raise BackboneError(f"{name} cannot be imported ({type(error).__name__}: {reason}).") from error
    if not callable(factory):
        raise BackboneError(f"{name} is a {type(factory).__name__}, not a class or function that makes a network.")
    bases = getattr(factory, "__mro__", ())
    files = [base.__module__.rpartition(".")[2] for base in bases if base.__module__.startswith("timm.")]
    family: Family = next((FAMILY_OF_MODULE[file] for file in files if file in FAMILY_OF_MODULE), "other")
    return Architecture(timm_name=name, family=family, factory=factory)


def _timm_architecture(timm_name: str) -> Architecture:
    """A timm model as timm defines it; `img_size` is passed to those built for one size."""
    import timm

    module = timm.model_entrypoint(timm_name).__module__.rpartition(".")[2]
    family = FAMILY_OF_MODULE.get(module, "other")
    config = timm.get_pretrained_cfg(timm_name)
    if config is not None and config.fixed_input_size:
        return Architecture(timm_name=timm_name, family=family, for_size=lambda image_size: {"img_size": image_size})
    return Architecture(timm_name=timm_name, family=family)
