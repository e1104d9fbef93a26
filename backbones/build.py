"""Networks by name: the published ones as they were published, timm's as timm makes them, and one's own."""

import inspect
import math
from collections.abc import Callable
from typing import Any, cast

import timm
import torch
from torch import nn

from .architectures import Architecture, find_architecture
from .encoder import NEEDED, Backbone, is_fixed_size
from .errors import BackboneError


def build_backbone(name: str, *, image_size: int = 224, drop_path: float = 0.0, **timm_options: Any) -> Backbone:
    """The network `name` without its classifier, freshly initialised; nothing is downloaded.

    `name` is a published name (architectures.PUBLISHED) or any timm name, `image_size` the size in pixels that
    networks with fixed positions or windows are built for, `drop_path` the largest stochastic depth rate (growing
    linearly with depth, 0 to 1), `timm_options` go to timm's constructor and may change widths and depths.

    Published names get the published initialisation: ResNets He-normal over fan-out with the last BatchNorm scale of
    every residual branch 0; ConvNeXts truncated normal, std 0.02; ViTs the same for linear layers, class token and
    positions, with zero relative bias, PyTorch's default for the patch convolution and no scaling by depth; biases 0.
    Other timm names get timm's own.

    Raises BackboneError for an unknown name, an option or drop path the network does not take, or a size that is not
    a multiple of its patches.
    """
    architecture = find_architecture(name)
    pooling = {"global_pool": "token"} if architecture.is_vit else {}  # final norm on every token, none after pooling
    net = _create(name, architecture, image_size, {**pooling, "drop_path_rate": drop_path, **timm_options})
    return Backbone(net, name=name, image_size=image_size, in_channels=timm_options.get("in_chans", 3))


def build_classifier(
    name: str,
    num_classes: int,
    *,
    image_size: int = 224,
    drop_path: float = 0.0,
    drop_rate: float = 0.0,
    **timm_options: Any,
) -> nn.Module:
    """The timm network `name` with a fresh classifier: images (B, 3, H, W) -> logits (B, num_classes).

    Its parameters have the names of build_backbone's `net`, plus the head's. The published ViTs classify the mean of
    the patch tokens, normalised after pooling (`fc_norm` where the encoder has `norm`; load_weights fills it);
    deit_s classifies the class token. `drop_rate` is the dropout before the classifier. Arguments, initialisation and
    errors otherwise as for build_backbone.
    """
    architecture = find_architecture(name)
    pooling = {"global_pool": "token" if architecture.class_token_head else "avg"} if architecture.is_vit else {}
    options = {**pooling, "drop_path_rate": drop_path, "drop_rate": drop_rate, "num_classes": num_classes}
    return _create(name, architecture, image_size, {**options, **timm_options})


def _create(name: str, architecture: Architecture, image_size: int, options: dict[str, Any]) -> nn.Module:
    options = {"num_classes": 0, **architecture.options, **architecture.for_size(image_size), **options}
    try:
        net: nn.Module = (
            timm.create_model(architecture.timm_name, **options)
            if architecture.factory is None
            else _create_own(name, architecture.factory, {"img_size": image_size, **options})
        )
    except TypeError as error:
        for optional in ("drop_path_rate", "drop_rate"):  # networks without stochastic depth or dropout take 0 only
            if optional in str(error) and options.get(optional) == 0:
                return _create(name, architecture, image_size, {**options, optional: None})
        raise BackboneError(f"{name}: {architecture.timm_name} does not take these options: {error}") from error
    except BackboneError:
        raise
    except Exception as error:  # from inside timm: whatever it raises for sizes and options that do not fit
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200].rstrip(".")
        raise BackboneError(f"{name}: it cannot be built for images of {image_size} pixels: {reason}.") from error
    size = getattr(getattr(net, "patch_embed", None), "patch_size", 1)
    patch = max(size) if isinstance(size, (tuple, list)) else size
    if is_fixed_size(net) and isinstance(patch, int) and image_size % patch:
        raise BackboneError(f"{name}: image_size {image_size} is not a multiple of its {patch} px patches.")
    if architecture.is_vit:
        _initialise_vit(net)
    return net


def _create_own(name: str, factory: Callable[..., Any], options: dict[str, Any]) -> nn.Module:
    """A network that is not in timm, given those of timm's options that its signature names."""
    parameters = inspect.signature(factory).parameters
    harmless = ("img_size", "num_classes", "global_pool")  # an encoder is cut off before them, or takes any size
    lacking = [key for key, value in options.items() if value and key not in parameters and key not in harmless]
    if options.get("num_classes") and "num_classes" not in parameters:
        lacking.append("num_classes")
    if lacking:
        raise BackboneError(f"{name} takes no {', '.join(lacking)}: add it to its arguments, or leave it at 0.")
    net = factory(**{key: value for key, value in options.items() if key in parameters})
    if not isinstance(net, nn.Module):
        raise BackboneError(f"{name} makes a {type(net).__name__}, not a torch.nn.Module.")
    missing = [part for part in NEEDED if not getattr(net, part, None)]
    if missing:
        raise BackboneError(f"{name} has no {' and no '.join(missing)}; docs/backbones.md says what an encoder needs.")
    return net


def _initialise_vit(net: nn.Module) -> None:
    """Undo timm's division of the residual branches' last layers by sqrt(2 * depth), which the published runs lack."""
    with torch.no_grad():
        for index, block in enumerate(cast(Any, net).blocks):
            for layer in (block.attn.proj, block.mlp.fc2):
                layer.weight.mul_(math.sqrt(2.0 * (index + 1)))
