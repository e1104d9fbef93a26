"""Any timm network as an encoder: its feature maps, its final map, and the places where a method may change them.

One mechanism for all architectures: module hooks, and a forward pass on shapes alone that finds where the maps are and
how they are kept. No subclass per architecture.
B batch, C channels, h w map height and width.
"""

import math
from collections.abc import Sequence
from typing import Any, cast

import timm
import torch
from timm.layers.norm import LayerNorm2d
from torch import Tensor, nn

from .architectures import Architecture, find_architecture
from .entry import Entry
from .errors import BackboneError
from .layout import Layout, find_layout
from .probe import run_on_shapes, unused_parameters


class Backbone(nn.Module):
    """A timm network without its classifier.

    `net` is any timm model that has `forward_features`, `forward_intermediates` and `feature_info`; its classifier,
    and whatever else `forward` does not use, is removed in place (DistributedDataParallel waits for ever for the
    gradient of an unused weight). `image_size` is the size it was built for, in pixels; found in `net` if not given.

    ResNet, ConvNeXt and other convolutional networks take images of any size afterwards, and so do our Swins. A ViT
    with relative or absolute positions takes only the build size: build it at the size the task feeds, and let
    load_weights resize the tables.

    Raises BackboneError if the network keeps no map of patch features.
    """

    name: str
    """The published or timm name it was built from."""
    image_size: int
    channels: tuple[int, ...]
    """C of each map of features()."""
    strides: tuple[int, ...]
    """Image pixels per position of each map of features()."""
    is_cnn: bool
    """The maps are NCHW throughout, so the channels_last memory format pays."""
    removed: frozenset[str]
    """Names of the weights of the given network that its encoder does not use and that are gone."""

    def __init__(self, net: nn.Module, *, name: str | None = None, image_size: int | None = None) -> None:
        super().__init__()
        self.net = cast(Any, net)
        self.name = name or type(net).__name__
        self.image_size = image_size or _built_size(net)
        # Where the size is free, one that every stride divides: strides are read off the shapes.
        self._probe_size = self.image_size if _is_fixed_size(net) else max(math.ceil(self.image_size / 64) * 64, 128)
        given = set(net.state_dict())
        self.net.reset_classifier(0)
        reductions = [info["reduction"] for info in self._feature_info()]
        self._is_isotropic = len(set(reductions)) == 1
        self._stages = _stage_indices(reductions)
        self._final_norm = _head_norm_name(net)
        self._final_layout: Layout | None = None
        features = run_on_shapes(self, self._final_features, self._probe_size)
        self._final_layout = self._layout(features.shape, f"{self.name}.forward_features")
        self.is_cnn = self._final_layout.kind == "nchw"
        _remove_unused(net, unused_parameters(net, self.forward, self._probe_size))
        self.removed = frozenset(given - set(net.state_dict()))
        maps = run_on_shapes(self, self.features, self._probe_size)
        self.channels = tuple(int(feature_map.shape[1]) for feature_map in maps)
        self.strides = tuple(_stride(self._probe_size, feature_map.shape[2]) for feature_map in maps)

    def features(self, images_bchw: Tensor) -> list[Tensor]:
        """Feature maps (B, C, h, w), finest first, without final norm, class or register tokens.

        Networks with stages: the last map at each stride from 4 on (4, 8, 16, 32). ViTs: the maps after 1/3, 1/2, 2/3
        and all of the blocks (the published 3, 5, 7, 11 of 12 and 7, 11, 15, 23 of 24), all at the patch stride.
        """
        maps: list[Tensor] = self.net.forward_intermediates(
            images_bchw, indices=self._stages, norm=False, output_fmt="NCHW", intermediates_only=True
        )
        return maps

    def forward(self, images_bchw: Tensor) -> Tensor:
        """The last map (B, C, h, w) after the network's final norm, as its classifier would pool it.

        Class and register tokens are dropped. Where the classifier pools before its norm (ConvNeXt), the norm is
        applied at every position instead, as in the published pre-training.
        """
        assert self._final_layout is not None
        features_bchw = self._final_layout.to_map(self._final_features(images_bchw))
        if self._final_norm is None:
            return features_bchw
        return _normalise(self.net.get_submodule(self._final_norm), features_bchw)

    def entry(self, stage: int | str) -> Entry:
        """The place before `stage`, where a masked-image method may put its token.

        An int is the published index k:
        ResNet 0..3: before `layer{k+1}` (0 is after the stem's max pooling);
        ConvNeXt 0..3: after the downsampling of stage k, before its blocks;
        ViT 0: after patch embedding, before class token and positions; k >= 1: before block k - 1;
        Swin 0: after patch embedding; 1..4: before stage k - 1, after its patch merging;
        other networks with stages: before the k-th stage of stride >= 4 (timm's feature_info, stem not counted).
        A str is a module name: the place in front of that module.

        Raises BackboneError for an index or a module that does not exist, or where no map passes.
        """
        module_name, after = (stage, False) if isinstance(stage, str) else self._place(stage)
        try:
            module = self.net.get_submodule(module_name)
        except AttributeError:
            children = " ".join(name for name, _ in self.net.named_children())
            raise BackboneError(f"{self.name} has no module {module_name!r}; at the top it has {children}.") from None
        shape = self._shape_at(module, module_name, after=after)
        layout = self._layout(shape, f"{self.name}: {module_name}")
        return Entry(
            stage=stage,
            channels=layout.channels,
            stride=_stride(self._probe_size, layout.grid[0]),
            module=module,
            after=after,
            layout=layout,
        )

    def freeze_unused_by_features(self) -> list[str]:
        """Stop training what `features` does not use (the final norm) and return the names of those parameters.

        For tasks that read `features` only: DistributedDataParallel would wait for the gradients of these.
        """
        unused = unused_parameters(self.net, self.features, self._probe_size)
        for name in unused:
            self.net.get_parameter(name).requires_grad_(False)
        return unused

    def _final_features(self, images_bchw: Tensor) -> Tensor:
        features = self.net.forward_features(images_bchw)
        if not isinstance(features, Tensor):
            raise BackboneError(f"{self.name}.forward_features returns a {type(features).__name__}, not one tensor.")
        return features

    def _feature_info(self) -> list[dict[str, Any]]:
        info = getattr(self.net, "feature_info", None)
        if not info or not hasattr(self.net, "forward_intermediates"):
            raise BackboneError(f"timm does not say where the stages of {self.name} are; choose another model.")
        return list(info)

    def _place(self, k: int) -> tuple[str, bool]:
        """Name of the module next to published index `k`, and whether the place is behind it."""
        stages = [self._feature_info()[index]["module"] for index in self._stages]
        family = type(self.net).__name__
        if family == "ConvNeXt":
            places = [(f"{stage}.downsample", True) for stage in stages]
        elif family in ("SwinTransformer", "SwinTransformerV2"):
            places = [("patch_embed", True), *((f"{stage}.downsample", True) for stage in stages)]
        elif self._is_isotropic:
            stem = "patch_embed" if hasattr(self.net, "patch_embed") else "stem"
            places = [(stem, True), *((info["module"], False) for info in self._feature_info())]
        else:
            places = [(stages[0], False), *((stage, True) for stage in stages[:-1])]
        if not 0 <= k < len(places):
            raise BackboneError(f"{self.name} has the entries 0 to {len(places) - 1}, not {k}.")
        return places[k]

    def _shape_at(self, module: nn.Module, module_name: str, *, after: bool) -> torch.Size:
        """Shape of the features in front of or behind `module` in a forward pass."""
        passing: list[Any] = []
        if after:
            handle = module.register_forward_hook(lambda _, __, output: passing.append(output))
        else:
            handle = module.register_forward_pre_hook(lambda _, inputs: passing.append(inputs[0]))
        try:
            run_on_shapes(self, self.forward, self._probe_size)
        finally:
            handle.remove()
        if not passing or not isinstance(passing[0], Tensor):
            found = f"a {type(passing[0]).__name__} passes there" if passing else "its forward pass does not run it"
            raise BackboneError(f"{self.name} has no single map at its module {module_name!r}: {found}.")
        return passing[0].shape

    def _layout(self, shape: torch.Size, where: str) -> Layout:
        num_prefix = getattr(self.net, "num_prefix_tokens", 0)
        channels_last = getattr(self.net, "output_fmt", "NCHW") == "NHWC"
        return find_layout(shape, num_prefix=num_prefix, channels_last=channels_last, where=where)


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
    return Backbone(net, name=name, image_size=image_size)


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
        net: nn.Module = timm.create_model(architecture.timm_name, **options)
    except TypeError as error:
        for optional in ("drop_path_rate", "drop_rate"):  # networks without stochastic depth or dropout take 0 only
            if optional in str(error) and options.get(optional) == 0:
                return _create(name, architecture, image_size, {**options, optional: None})
        raise BackboneError(f"{name}: timm's {architecture.timm_name} does not take these options: {error}") from error
    patch = getattr(getattr(net, "patch_embed", None), "patch_size", (1, 1))
    if _is_fixed_size(net) and image_size % max(patch):
        raise BackboneError(f"{name}: image_size {image_size} is not a multiple of its {max(patch)} px patches.")
    if architecture.is_vit:
        _initialise_vit(net)
    return net


def _initialise_vit(net: nn.Module) -> None:
    """Undo timm's division of the residual branches' last layers by sqrt(2 * depth), which the published runs lack."""
    with torch.no_grad():
        for index, block in enumerate(cast(Any, net).blocks):
            for layer in (block.attn.proj, block.mlp.fc2):
                layer.weight.mul_(math.sqrt(2.0 * (index + 1)))


def _stage_indices(reductions: Sequence[int]) -> list[int]:
    """Which of a network's feature maps features() returns, from the stride of each."""
    depth = len(reductions)
    if len(set(reductions)) == 1:
        return [depth * sixths // 6 - 1 for sixths in (2, 3, 4, 6)] if depth > 4 else list(range(depth))
    last = {reduction: index for index, reduction in enumerate(reductions) if reduction >= 4}
    return sorted(last.values())


def _stride(image_size: int, map_size: int) -> int:
    """Image pixels per position: the power of two that gives `map_size` when rounding up, else the ratio."""
    powers = (2**exponent for exponent in range(10))
    return next(
        (stride for stride in powers if math.ceil(image_size / stride) == map_size), round(image_size / map_size)
    )


def _built_size(net: nn.Module) -> int:
    """The image size `net` was built for, else 224."""
    size = getattr(getattr(net, "patch_embed", None), "img_size", None)
    if size is None:
        size = (getattr(net, "pretrained_cfg", None) or {}).get("input_size", (3, 224, 224))[1:]
    return int(size[0])


def _is_fixed_size(net: nn.Module) -> bool:
    """Whether `net` takes only images of the size it was built for."""
    is_strict = getattr(getattr(net, "patch_embed", None), "strict_img_size", None)
    if is_strict is not None:
        return bool(is_strict) or not getattr(net, "dynamic_img_size", False)
    return bool((getattr(net, "pretrained_cfg", None) or {}).get("fixed_input_size", False))


def _head_norm_name(net: nn.Module) -> str | None:
    """Name of the norm that `net` applies after pooling, None if its forward_features already ends with it."""
    for name in ("head.norm", "fc_norm"):
        parent, _, child = name.rpartition(".")
        norm = getattr(getattr(net, parent, None) if parent else net, child, None)
        if isinstance(norm, nn.Module) and any(weight.numel() == net.num_features for weight in norm.parameters()):
            return name
    return None


def _normalise(norm: nn.Module, map_bchw: Tensor) -> Tensor:
    """`norm` at every position of `map_bchw`, over its channels."""
    if isinstance(norm, nn.LayerNorm) and not isinstance(norm, LayerNorm2d):
        return cast(Tensor, norm(map_bchw.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
    return cast(Tensor, norm(map_bchw))


def _remove_unused(net: nn.Module, unused: Sequence[str]) -> None:
    """Replace the modules whose parameters are all unused by nothing, and freeze single unused parameters."""
    remaining = set(unused)
    for name, module in list(net.named_modules()):
        weights = {f"{name}.{weight}" for weight, _ in module.named_parameters()}
        if name and weights and weights <= remaining:
            parent, _, child = name.rpartition(".")
            setattr(net.get_submodule(parent), child, nn.Identity())
            remaining -= weights
    for name in remaining:
        net.get_parameter(name).requires_grad_(False)
