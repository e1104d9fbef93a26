"""Which network of another library computes the same as one of timm's, and what it must be built with.

Only networks known to be the same are here, by name: many of timm's share all names of weights with another and compute
something else (resnetaa50 averages where resnet50 strides).
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from backbones.architectures import find_architecture
from backbones.encoder import stage_indices
from backbones.errors import WeightsError

RESNET = re.compile(r"resnet(18|34|50|101|152)")
CONVNEXT = re.compile(r"convnext_(atto|femto|pico|nano|tiny|small|base|large|xlarge)")
SWIN = re.compile(r"swin_(tiny|small|base|large)_patch4_window(7_224|12_384)")
VIT = re.compile(r"(vit|deit)_(tiny|small|base|large)_patch(8|16|32)_(224|384)")
BEIT = re.compile(r"beit_(base|large)_patch16_(224|384|512)")
KNOWN = "r50 and the other published names, resnet18 to 152, convnext_*, swin_*, vit_* and deit_* of timm"
"""For messages."""


@dataclass(frozen=True)
class Counterpart:
    """A class of another library that a network is."""

    convention: str
    """The key map (keymaps.KEYMAPS) between the two."""
    kind: str
    """The class, as that library's configurations call it."""
    options: dict[str, Any] = field(default_factory=dict)
    """What it has to be built with."""


def timm_name(model: str) -> str:
    """The timm network that `model` is, without a tag."""
    return find_architecture(model).timm_name.partition(".")[0]


def depths_of(net: nn.Module) -> tuple[int, ...]:
    """How many blocks each stage of a ResNet has."""
    return tuple(len(getattr(net, f"layer{stage}")) for stage in (1, 2, 3, 4))


def is_published_depth(net: nn.Module) -> bool:
    """Whether a ResNet is one of the depths with a name in other libraries; r200 is none."""
    return depths_of(net) != (3, 24, 36, 3)


def openmmlab(model: str, net: Any, library: str, *, whole: bool) -> Counterpart:
    """The class of `library` (mmseg, mmdet or mmpretrain) that `net` is. MMSegmentation and MMDetection take what they
    lack from MMPretrain, where that is installed too.

    Args:
        model: its published or timm name.
        net: the timm network.
        library: whose configurations it is for.
        whole: with its classifier, as only MMPretrain has it.

    Raises:
        WeightsError: that library has no such network.
    """
    name = timm_name(model)
    here = "" if library == "mmpretrain" else "mmpretrain."
    channels = _channels(net)
    if RESNET.fullmatch(name):
        if not is_published_depth(net):
            raise refused(model, f"{library}'s ResNet has the depths 18, 34, 50, 101, 152; `--to torchvision` holds it")
        depth = int(name.removeprefix("resnet"))
        return Counterpart("openmixup", "ResNet", {"depth": depth, **channels})
    if CONVNEXT.fullmatch(name):
        options: dict[str, Any] = {"arch": _convnext_arch(net), "linear_pw_conv": not _has_conv_mlp(net), **channels}
        if not whole:
            options |= {"gap_before_final_norm": False, **_indices(library, range(4))}
        return Counterpart("openmixup", f"{here}ConvNeXt", options)
    if SWIN.fullmatch(name):
        return Counterpart("openmixup", "SwinTransformer", _swin_options(net, library) | channels)
    if BEIT.fullmatch(name):
        if not hasattr(net.blocks[0].attn, "q_bias") or net.blocks[0].gamma_1 is None:
            raise refused(model, f"{library} has no such BEiT")
        options = {**_beit_options(net), **_vit_output(net, whole), **_blocks(library, net), **channels}
        return Counterpart("openmixup", f"{here}BEiTViT", options)
    if VIT.fullmatch(name):
        if library == "mmseg":
            return Counterpart(
                "mmseg", "VisionTransformer", {**_mmseg_vit_options(net), **_blocks(library, net), **channels}
            )
        options = {
            "arch": _vit_arch(net),
            **_sizes(net),
            **_vit_output(net, whole),
            **_blocks(library, net),
            **channels,
        }
        return Counterpart("openmixup", f"{here}VisionTransformer", options)
    raise refused(model, f"no network of {library} is known to compute the same; known are {KNOWN}")


def torchvision_name(model: str, net: Any) -> str:
    """The function of torchvision.models that makes the same network, or how its class does.

    Raises:
        WeightsError: there is none.
    """
    name = timm_name(model)
    if RESNET.fullmatch(name):
        return name if is_published_depth(net) else "ResNet"
    if found := re.fullmatch(r"convnext_(tiny|small|base|large)", name):
        return name
    if found := re.fullmatch(r"swin_(tiny|small|base)_patch4_window7_224", name):
        return f"swin_{found[1][0]}"
    if found := re.fullmatch(r"(?:vit|deit)_(base|large)_patch(16|32)_224", name):
        return f"vit_{found[1][0]}_{found[2]}"
    if BEIT.fullmatch(name):
        raise refused(
            model, "torchvision's ViT has neither relative positions nor layer scale; `--to mmpretrain` holds it"
        )
    raise refused(model, f"torchvision has no such network; it has {TORCHVISION}")


TORCHVISION = (
    "resnet18 to 152 (and r200), convnext_tiny to large, swin_tiny to base, vit_base and vit_large (patch 16, 32)"
)
"""For messages."""


def detectron2(model: str, net: Any) -> Counterpart:
    """The class of Detectron2 that `net` is.

    Raises:
        WeightsError: there is none.
    """
    name = timm_name(model)
    if RESNET.fullmatch(name):
        depth = int(name.removeprefix("resnet")) if is_published_depth(net) else 200
        return Counterpart("detectron2", "ResNet", {"depth": depth})
    if SWIN.fullmatch(name):
        layers = list(net.layers)
        options = {
            "embed_dim": net.patch_embed.proj.out_channels,
            "depths": [len(layer.blocks) for layer in layers],
            "num_heads": [layer.blocks[0].attn.num_heads for layer in layers],
            "window_size": _window(net),
        }
        return Counterpart("microsoft", "SwinTransformer", options)
    if BEIT.fullmatch(name) or VIT.fullmatch(name):
        raise refused(
            model,
            "Detectron2's ViT drops the class token, which this one's patches attend to, and its relative positions "
            "are of another form; `python -m detection` trains this encoder with Detectron2 as it is",
        )
    raise refused(
        model,
        "Detectron2 has ResNets (stem, res2 ... res5) and Swins; `python -m detection` trains any encoder with it",
    )


def swin_remarks(net: Any, library: str) -> list[str]:
    """What to say of a Swin to users of Detectron2, MMSegmentation and MMDetection, whose windows may lie otherwise."""
    window = _window(net)
    for stage, layer in enumerate(net.layers, start=1):
        side = max(layer.blocks[-1].input_resolution)
        if side % window:
            return [f"{library}'s Swin pads the maps of stage {stage} otherwise: from there on its maps are others"]
        if side <= window and len(layer.blocks) > 1:
            return [
                f"{library}'s Swin shifts the windows of stage {stage} though one window is its whole map, and this "
                "one was trained without: the maps before it are the same, from there on they are others"
            ]
    return []


def refused(model: str, reason: str) -> WeightsError:
    """The error for a network that another library does not have."""
    return WeightsError(f"{model} cannot be exported so: {reason}.")


def _channels(net: Any) -> dict[str, int]:
    first = next(module for module in net.modules() if isinstance(module, nn.Conv2d))
    return {} if first.in_channels == 3 else {"in_channels": first.in_channels}


def _indices(library: str, maps: Iterable[int]) -> dict[str, list[int]]:
    """Segmentors and detectors take four maps, those of Backbone.features; classifiers the last."""
    return {} if library == "mmpretrain" else {"out_indices": list(maps)}


def _blocks(library: str, net: Any) -> dict[str, list[int]]:
    return _indices(library, stage_indices([16] * len(net.blocks)))


def _convnext_arch(net: Any) -> dict[str, list[int]]:
    stages = list(net.stages)
    channels = [stage.blocks[-1].conv_dw.out_channels for stage in stages]
    return {"depths": [len(stage.blocks) for stage in stages], "channels": channels}


def _has_conv_mlp(net: Any) -> bool:
    return isinstance(net.stages[0].blocks[0].mlp.fc1, nn.Conv2d)


def _swin_options(net: Any, library: str) -> dict[str, Any]:
    layers = list(net.layers)
    depths = [len(layer.blocks) for layer in layers]
    heads = [layer.blocks[0].attn.num_heads for layer in layers]
    width = net.patch_embed.proj.out_channels
    if library == "mmpretrain":
        arch = {"embed_dims": width, "depths": depths, "num_heads": heads}
        return {"arch": arch, "img_size": net.patch_embed.img_size[0], "window_size": _window(net)}
    return {"embed_dims": width, "depths": depths, "num_heads": heads, "window_size": _window(net)}


def _window(net: Any) -> int:
    return int(max(net.layers[0].blocks[0].window_size))


def _vit_arch(net: Any) -> dict[str, int]:
    block = net.blocks[0]
    return {
        "embed_dims": net.embed_dim,
        "num_layers": len(net.blocks),
        "num_heads": block.attn.num_heads,
        "feedforward_channels": block.mlp.fc1.out_features,
    }


def _sizes(net: Any) -> dict[str, int]:
    return {"img_size": net.patch_embed.img_size[0], "patch_size": net.patch_embed.patch_size[0]}


def _beit_options(net: Any) -> dict[str, Any]:
    return {
        "arch": _vit_arch(net),
        **_sizes(net),
        "use_abs_pos_emb": net.pos_embed is not None,
        "use_rel_pos_bias": net.blocks[0].attn.relative_position_bias_table is not None,
    }


def _vit_output(net: Any, whole: bool) -> dict[str, Any]:
    """What leaves a ViT. Of an encoder the last norm is applied to every patch, wherever its classifier has it."""
    if not whole:
        return {"out_type": "featmap", "final_norm": True}
    pools = isinstance(net.norm, nn.Identity)
    return {"out_type": "avg_featmap" if pools else "cls_token", "final_norm": not pools}


def _mmseg_vit_options(net: Any) -> dict[str, Any]:
    arch = _vit_arch(net)
    return {
        **_sizes(net),
        "embed_dims": arch["embed_dims"],
        "num_layers": arch["num_layers"],
        "num_heads": arch["num_heads"],
        "mlp_ratio": arch["feedforward_channels"] // arch["embed_dims"],
        "patch_bias": True,
        "final_norm": True,
        "norm_cfg": {"type": "LN", "eps": 1e-6},
    }
