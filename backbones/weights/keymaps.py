"""Other libraries' names for the same weights: tables between them and timm's, usable in both directions.

Only names, and the few tensors that are stored in another order or shape. Files are weights.py's business.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from backbones.errors import WeightsError

from .orders import channels_first, channels_last, flat, from_sparse, row, to_sparse

State = dict[str, Tensor]
Change = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Rule:
    """One pair of names; `{}` stands for any number, and whatever follows the name follows it in both."""

    foreign: str
    timm: str
    to_timm: Change | None = None
    """Change of the tensor itself on the way to timm, None if it is the same."""
    to_foreign: Change | None = None
    """Its inverse."""


@dataclass(frozen=True)
class KeyMap:
    """How one convention names one family of networks.

    The first rule that matches a name is used; a name without a rule is the same in both.
    """

    convention: str
    family: str
    signature: tuple[str, ...]
    """Foreign names that only this convention has together; empty where all names are timm's."""
    rules: tuple[Rule, ...] = ()

    def to_timm(self, state: State) -> State:
        """`state` under timm's names."""
        return self._translate(state, self._forward)

    def from_timm(self, state: State) -> State:
        """A state under timm's names, under this convention's: the inverse of to_timm."""
        return self._translate(state, self._backward)

    @cached_property
    def _forward(self) -> list[tuple[re.Pattern[str], str, Change | None]]:
        return [(_pattern(rule.foreign), rule.timm, rule.to_timm) for rule in self.rules]

    @cached_property
    def _backward(self) -> list[tuple[re.Pattern[str], str, Change | None]]:
        return [(_pattern(rule.timm), rule.foreign, rule.to_foreign) for rule in self.rules]

    def new_name(self, name: str, *, from_timm: bool = False) -> str:
        """What timm calls the tensor that is called `name` here, or the other way round."""
        return _rename(name, self._backward if from_timm else self._forward)[0]

    def _translate(self, state: State, rules: list[tuple[re.Pattern[str], str, Change | None]]) -> State:
        translated: State = {}
        for name, tensor in state.items():
            new_name, change = _rename(name, rules)
            if new_name in translated:
                raise WeightsError(f"two tensors of these {self.convention} weights are {new_name!r} in timm's names.")
            translated[new_name] = change(tensor) if change else tensor
        return translated


def _pattern(template: str) -> re.Pattern[str]:
    return re.compile(re.escape(template).replace(r"\{\}", r"(\d+)") + r"(\..+)?")


def _rename(name: str, rules: list[tuple[re.Pattern[str], str, Change | None]]) -> tuple[str, Change | None]:
    for pattern, template, change in rules:
        match = pattern.fullmatch(name)
        if match:
            *numbers, rest = match.groups()
            return template.format(*numbers) + (rest or ""), change
    return name, None


def _pairs(*pairs: tuple[str, str]) -> tuple[Rule, ...]:
    return tuple(Rule(foreign, timm) for foreign, timm in pairs)


def _within(foreign: str, timm: str, *pairs: tuple[str, str]) -> tuple[Rule, ...]:
    """Rules for modules below `foreign` and `timm`."""
    return tuple(Rule(f"{foreign}.{left}", f"{timm}.{right}") for left, right in pairs)


# --- ResNet. torchvision's names are timm's; OpenMixup's differ in the classifier only.

_DETECTRON2_RESNET = (
    *_pairs(("stem.conv1.norm", "bn1"), ("stem.conv1", "conv1")),
    *(
        rule
        for stage in (1, 2, 3, 4)
        for rule in _within(
            f"res{stage + 1}.{{}}",
            f"layer{stage}.{{}}",
            ("shortcut.norm", "downsample.1"),
            ("shortcut", "downsample.0"),
            ("conv1.norm", "bn1"),
            ("conv2.norm", "bn2"),
            ("conv3.norm", "bn3"),
            ("conv1", "conv1"),
            ("conv2", "conv2"),
            ("conv3", "conv3"),
        )
    ),
)

_V1C_RESNET = (  # OpenMMLab's ResNet with three convolutions in the stem, which timm calls resnet50c
    *_pairs(*((f"stem.{place}", f"conv1.{place}") for place in (0, 1, 3, 4, 6))),
    *_pairs(("stem.7", "bn1"), ("head.fc", "fc")),
)

# --- ViT

_MASKFEAT_NORM = "pred_head.transforms.0.0"
"""The norm between MaskFeat's encoder, which has none at its end, and its prediction."""

_OPENMIXUP_VIT = (
    *_pairs(("patch_embed.projection", "patch_embed.proj"), ("ln1", "norm")),
    # A classifier that pools before its norm calls it ln1 all the same; timm calls it fc_norm.
    Rule("ln1", "fc_norm"),
    Rule("ln2", "fc_norm"),  # MMPretrain's name for that one
    *_within(
        "layers.{}",
        "blocks.{}",
        ("ln1", "norm1"),
        ("ln2", "norm2"),
        ("ffn.layers.0.0", "mlp.fc1"),
        ("ffn.layers.1", "mlp.fc2"),
    ),
    *_pairs(("layers.{}", "blocks.{}"), ("head.fc", "head"), ("head.layers.head", "head")),
)

_MMSEG_VIT = (
    *_within(
        "layers.{}.attn.attn",
        "blocks.{}.attn",
        ("in_proj_weight", "qkv.weight"),
        ("in_proj_bias", "qkv.bias"),
        ("out_proj", "proj"),
    ),
    *_OPENMIXUP_VIT,
)

_TORCHVISION_VIT = (
    *_pairs(
        ("class_token", "cls_token"),
        ("conv_proj", "patch_embed.proj"),
        ("encoder.pos_embedding", "pos_embed"),
        ("encoder.ln", "norm"),
        ("heads.head", "head"),
    ),
    *_within(
        "encoder.layers.encoder_layer_{}",
        "blocks.{}",
        ("ln_1", "norm1"),
        ("ln_2", "norm2"),
        ("self_attention.in_proj_weight", "attn.qkv.weight"),
        ("self_attention.in_proj_bias", "attn.qkv.bias"),
        ("self_attention.out_proj", "attn.proj"),
        ("mlp.0", "mlp.fc1"),
        ("mlp.3", "mlp.fc2"),
        ("mlp.linear_1", "mlp.fc1"),
        ("mlp.linear_2", "mlp.fc2"),
    ),
)

# --- ConvNeXt. OpenMixup, Facebook (SparK's "official style") and timm differ in words, torchvision in numbering.


def _convnext(depthwise: str, pointwise: str, norm: str, head: str) -> tuple[Rule, ...]:
    block = (
        (depthwise, "conv_dw"),
        (f"{pointwise}1", "mlp.fc1"),
        (f"{pointwise}2", "mlp.fc2"),
        ("norm", "norm"),
        ("gamma", "gamma"),
    )
    response = (("grn.gamma", "mlp.grn.weight"), ("grn.beta", "mlp.grn.bias"))
    return (
        *_pairs(("downsample_layers.0", "stem"), ("downsample_layers.{}", "stages.{}.downsample")),
        *_within("stages.{}.{}", "stages.{}.blocks.{}", *block),
        *(
            Rule(f"stages.{{}}.{{}}.{foreign}", f"stages.{{}}.blocks.{{}}.{timm}", flat, lambda t: t.view(1, 1, 1, -1))
            for foreign, timm in response
        ),
        *_pairs((norm, "head.norm"), (head, "head.fc")),
    )


def _torchvision_convnext_stage(stage: int) -> tuple[Rule, ...]:
    foreign, timm = f"features.{2 * stage + 1}.{{}}", f"stages.{stage}.blocks.{{}}"
    block = (("block.0", "conv_dw"), ("block.2", "norm"), ("block.3", "mlp.fc1"), ("block.5", "mlp.fc2"))
    scale = Rule(f"{foreign}.layer_scale", f"{timm}.gamma", lambda t: t.reshape(-1), lambda t: t.reshape(-1, 1, 1))
    entrance = "stem" if stage == 0 else f"stages.{stage}.downsample"
    return (Rule(f"features.{2 * stage}", entrance), *_within(foreign, timm, *block), scale)


_SPARSE_CONVNEXT = (  # ConvNeXt V2 as FCMAE pre-trains it, in layers of a library for sparse tensors
    *_pairs(("downsample_layers.0", "stem"), ("downsample_layers.{}.0.ln", "stages.{}.downsample.0")),
    Rule("downsample_layers.{}.1.kernel", "stages.{}.downsample.1.weight", from_sparse, to_sparse),
    Rule("downsample_layers.{}.1.bias", "stages.{}.downsample.1.bias", flat, row),
    Rule("stages.{}.{}.dwconv.kernel", "stages.{}.blocks.{}.conv_dw.weight", from_sparse, to_sparse),
    Rule("stages.{}.{}.dwconv.bias", "stages.{}.blocks.{}.conv_dw.bias", flat, row),
    Rule("stages.{}.{}.grn.gamma", "stages.{}.blocks.{}.mlp.grn.weight", flat, row),
    Rule("stages.{}.{}.grn.beta", "stages.{}.blocks.{}.mlp.grn.bias", flat, row),
    *_within(
        "stages.{}.{}",
        "stages.{}.blocks.{}",
        ("norm.ln", "norm"),
        ("pwconv1.linear", "mlp.fc1"),
        ("pwconv2.linear", "mlp.fc2"),
    ),
)

_TORCHVISION_CONVNEXT = (
    *(rule for stage in range(4) for rule in _torchvision_convnext_stage(stage)),
    *_pairs(("classifier.0", "head.norm"), ("classifier.2", "head.fc")),
)

# --- Swin. timm merges patches at the start of a stage, everybody else at the end of the one before.


_OPENMIXUP_SWIN = (
    *_pairs(("patch_embed.projection", "patch_embed.proj"), ("norm3", "norm"), ("head.fc", "head.fc")),
    *_within(
        "stages.{}.blocks.{}",
        "layers.{}.blocks.{}",
        ("attn.w_msa", "attn"),
        ("ffn.layers.0.0", "mlp.fc1"),
        ("ffn.layers.1", "mlp.fc2"),
        ("norm1", "norm1"),
        ("norm2", "norm2"),
    ),
    *(
        Rule(f"stages.{i}.downsample.{part}", f"layers.{i + 1}.downsample.{part}", channels_last, channels_first)
        for i in range(3)
        for part in ("norm", "reduction")
    ),
)

_OFFICIAL_SWIN = _pairs(
    *((f"layers.{i}.downsample", f"layers.{i + 1}.downsample") for i in range(3)),
    ("norm", "norm"),
    ("norm3", "norm"),  # Detectron2's, and others' that have a norm for each map
    ("head", "head.fc"),
)

_TORCHVISION_SWIN = (
    *_pairs(("features.0.0", "patch_embed.proj"), ("features.0.2", "patch_embed.norm"), ("head", "head.fc")),
    *_pairs(*((f"features.{2 * stage}", f"layers.{stage}.downsample") for stage in (1, 2, 3))),
    *(
        rule
        for stage in range(4)
        for rule in (
            *_within(
                f"features.{2 * stage + 1}.{{}}.mlp", f"layers.{stage}.blocks.{{}}.mlp", ("0", "fc1"), ("3", "fc2")
            ),
            Rule(f"features.{2 * stage + 1}.{{}}", f"layers.{stage}.blocks.{{}}"),
        )
    ),
)

KEYMAPS: tuple[KeyMap, ...] = (
    KeyMap("mmseg v1c", "resnet v1c", ("stem.0.weight", "layer1.0.conv1.weight"), _V1C_RESNET),
    KeyMap("openmixup", "resnet", ("layer1.0.conv1.weight", "head.fc.weight"), _pairs(("head.fc", "fc"))),
    KeyMap(
        "slowfast", "vit", ("blocks.0.attn.qkv.weight", f"{_MASKFEAT_NORM}.weight"), _pairs((_MASKFEAT_NORM, "norm"))
    ),
    KeyMap("mmseg", "vit", ("layers.0.attn.attn.in_proj_weight",), _MMSEG_VIT),
    KeyMap("openmixup", "vit", ("layers.0.ffn.layers.0.0.weight",), _OPENMIXUP_VIT),
    KeyMap(
        "openmixup",
        "convnext",
        ("stages.0.0.depthwise_conv.weight",),
        _convnext("depthwise_conv", "pointwise_conv", "norm3", "head.fc"),
    ),
    KeyMap("openmixup", "swin", ("stages.0.blocks.0.attn.w_msa.qkv.weight",), _OPENMIXUP_SWIN),
    KeyMap("facebook", "convnext", ("stages.0.0.dwconv.weight",), _convnext("dwconv", "pwconv", "norm", "head")),
    KeyMap("sparse facebook", "convnext", ("stages.0.0.dwconv.kernel",), _SPARSE_CONVNEXT),
    KeyMap("microsoft", "swin", ("layers.0.downsample.reduction.weight",), _OFFICIAL_SWIN),
    KeyMap("torchvision", "resnet", ()),
    KeyMap("torchvision", "vit", ("conv_proj.weight",), _TORCHVISION_VIT),
    KeyMap("torchvision", "convnext", ("features.1.0.layer_scale",), _TORCHVISION_CONVNEXT),
    KeyMap("torchvision", "swin", ("features.1.0.attn.qkv.weight",), _TORCHVISION_SWIN),
    KeyMap("detectron2", "resnet", ("res2.0.conv1.weight",), _DETECTRON2_RESNET),
)
"""Every convention known. OpenMixup's names are also those of MMSelfSup, MMPretrain and MMSegmentation."""

_FAMILIES = {  # a timm name that only this family has
    "resnet": "layer1.0.conv1.weight",
    "convnext": "stages.0.blocks.0.conv_dw.weight",
    "swin": "layers.0.blocks.0.attn.qkv.weight",
    "vit": "blocks.0.attn.qkv.weight",
}


def find_family(state: Iterable[str]) -> str | None:
    """Which of resnet, convnext, swin and vit has these timm names, None for any other network."""
    return next((family for family, name in _FAMILIES.items() if name in state), None)


def find_keymap(convention: str, family: str | None) -> KeyMap:
    """The map between `convention` and timm for a family of networks. Raises WeightsError if there is none."""
    for keymap in KEYMAPS:
        if (keymap.convention, keymap.family) == (convention, family):
            return keymap
    known = ", ".join(f"{keymap.convention} {keymap.family}" for keymap in KEYMAPS)
    raise WeightsError(f"no {convention} names are known for {family or 'this network'}; there are {known}.")


def recognise(state: Iterable[str]) -> KeyMap | None:
    """The map for a foreign state dictionary, None if its names are timm's already."""
    names = set(state)
    return next((keymap for keymap in KEYMAPS if keymap.signature and names.issuperset(keymap.signature)), None)


def to_torchvision(state: State) -> State:
    """An encoder or classifier under timm's names, under torchvision's (ResNet, ConvNeXt, Swin, plain ViT)."""
    return find_keymap("torchvision", find_family(state)).from_timm(state)


def to_detectron2(state: State) -> State:
    """A ResNet under timm's names, under Detectron2's (stem, res2 ... res5). The classifier is left out."""
    encoder = {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}
    return find_keymap("detectron2", find_family(state)).from_timm(encoder)


def to_openmixup(state: State) -> State:
    """A network under timm's names, under those of OpenMixup, MMPretrain and MMSegmentation.

    The encoder gets the prefix `backbone.`, the classifier is `head.fc.`, as in their training checkpoints.
    """
    renamed = find_keymap("openmixup", find_family(state)).from_timm(state)
    return {name if name.startswith("head.fc.") else f"backbone.{name}": tensor for name, tensor in renamed.items()}
