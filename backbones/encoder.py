"""Any network as an encoder: its feature maps, its final map, and the places where a method may change them.

One mechanism for all architectures: module hooks, and forward passes on shapes alone that find where the maps are, how
large they are and how they are kept. No subclass per architecture; what a network says about itself is not relied on.
B batch, C channels, h w map height and width.
"""

import math
from collections.abc import Sequence
from typing import Any, cast

from timm.layers.norm import LayerNorm2d
from torch import Tensor, nn

from .architectures import FAMILY_OF_MODULE, Family
from .entry import Entry, Passing, make_entry
from .errors import BackboneError
from .layout import Layout, find_layout, pixels_per_position
from .places import Place, StageMap, find_places
from .probe import Seen, freeze_parameters, remove_unused, run_on_shapes, unused_parameters, watch

NEEDED = ("forward_features", "forward_intermediates", "feature_info")
"""What a network must offer, as timm's do."""


class Backbone(nn.Module):
    """A network without its classifier.

    `net` is any module that has `forward_features`, `forward_intermediates` and `feature_info` as timm's do; its
    classifier, and whatever else `forward` does not use, is removed in place (DistributedDataParallel waits for ever
    for the gradient of an unused weight). `image_size` is the size it was built for, in pixels; found in `net` if not
    given.

    ResNet, ConvNeXt and other convolutional networks take images of any size afterwards, and so do our Swins. A ViT
    with relative or absolute positions takes only the build size: build it at the size the task feeds, and let
    load_weights resize the tables.

    Raises BackboneError if the network lacks a part, does not take images of that size, or keeps no map of features.
    """

    name: str
    """The published or timm name it was built from."""
    image_size: int
    in_channels: int
    """Of its images."""
    stages: list[int]
    """Which of the network's maps features() returns."""
    channels: tuple[int, ...]
    """C of each map of features()."""
    strides: tuple[int, ...]
    """Image pixels per position of each map of features()."""
    final_channels: int
    """C of the map of forward(), which is not that of the last map of features() where layers follow the stages."""
    final_stride: int
    """Image pixels per position of the map of forward() at the build size, rounded up."""
    is_cnn: bool
    """The maps are NCHW throughout, so the channels_last memory format pays."""
    frozen = False
    """Whether `freeze` was called."""
    removed: frozenset[str]
    """Names of the weights of the given network that its encoder does not use and that are gone."""

    def __init__(
        self, net: nn.Module, *, name: str | None = None, image_size: int | None = None, in_channels: int = 3
    ) -> None:
        super().__init__()
        self.net = cast(Any, net)
        self.name = name or type(net).__name__
        missing = [part for part in NEEDED if not getattr(net, part, None)]
        if missing:
            raise BackboneError(f"{self.name} has no {' and no '.join(missing)}, which an encoder needs.")
        self.image_size = image_size or built_size(net)
        self.in_channels = in_channels
        given = set(net.state_dict())
        self._seen: dict[str, Seen] | None = None
        if hasattr(net, "reset_classifier"):
            self.net.reset_classifier(0)
        # Where the size is free, one that every stride divides: strides are read off the shapes.
        free = not is_fixed_size(net) and (self.image_size % 32 != 0 or self.image_size < 64)
        self._probe_size = max(math.ceil(self.image_size / 64) * 64, 128) if free else self.image_size
        try:
            self._measure()
        except Exception as error:  # from inside the network: whatever it raises for images that it does not take
            refusal = error if isinstance(error, BackboneError) else self._measure_at_image_size(error)
            if refusal is not None:
                raise refusal from error
        self.removed = frozenset(given - set(net.state_dict()))

    def _measure_at_image_size(self, error: Exception) -> BackboneError | None:
        """Measure at the build size where another was tried; the error for a network that does not take that either."""
        if self._probe_size != self.image_size:
            self._probe_size = self.image_size
            try:
                self._measure()
            except BackboneError as refusal:
                return refusal
            except Exception as own:  # as above
                error = own
            else:
                return None
        text = (str(error).strip().splitlines() or ["no text"])[0][:160].rstrip(".")
        return BackboneError(
            f"{self.name} does not take square images of {self.image_size} pixels as an encoder: its forward pass ends "
            f"with {type(error).__name__}: {text}. `python -m backbones list --pretrainable` names networks that work."
        )

    def _measure(self) -> None:
        """Find out by forward passes on shapes what the maps are, and remove what they do not need."""
        net, size = self.net, self.image_size
        self._last: int | None = None  # index of the map that stands for forward_features, where that gives none
        self._last_norm, self._final_norm = False, head_norm_name(net)
        maps = run_on_shapes(self, self._all_maps, self._probe_size, self.in_channels)
        strides = [pixels_per_position(self._probe_size, feature_map.shape[2]) for feature_map in maps]
        self._map_shapes = [(int(m.shape[1]), (int(m.shape[2]), int(m.shape[3]))) for m in maps]
        self._is_isotropic = len(set(strides)) == 1
        self.stages = stage_indices(strides)
        self._final_layout: Layout | None = self._find_final_layout(maps[-1].shape)
        self.is_cnn = self._last is None and self._final_layout.kind == "nchw"
        unused = unused_parameters(net, self.forward, self._probe_size, self.in_channels)
        replaced = remove_unused(net, unused)
        try:
            run_on_shapes(self, self.features, self._probe_size, self.in_channels)
        except (AttributeError, RuntimeError, TypeError):  # what the final map does not need, others do
            for parent, child, module in replaced:
                setattr(net.get_submodule(parent), child, module)
            freeze_parameters(net, unused)
        self.channels = tuple(int(maps[index].shape[1]) for index in self.stages)
        self.strides = tuple(strides[index] for index in self.stages)
        final = self._final_layout
        if size != self._probe_size:
            self.final_map_size = int(run_on_shapes(self, self.forward, size, self.in_channels).shape[2])
        else:
            self.final_map_size = final.grid[0]
        self.final_channels = final.channels
        stride = pixels_per_position(self._probe_size, final.grid[0])
        covers = math.ceil(size / stride) == self.final_map_size
        self.final_stride = stride if covers else math.ceil(size / self.final_map_size)

    def features(self, images_bchw: Tensor) -> list[Tensor]:
        """Feature maps (B, C, h, w), finest first, without final norm, class or register tokens.

        Networks with stages: the last map at each stride from 4 on (4, 8, 16, 32). ViTs: the maps after 1/3, 1/2, 2/3
        and all of the blocks (the published 3, 5, 7, 11 of 12 and 7, 11, 15, 23 of 24), all at the patch stride.
        """
        return self.maps_at(images_bchw, self.stages)

    def forward(self, images_bchw: Tensor) -> Tensor:
        """The last map (B, C, h, w) after the network's final norm, as its classifier would pool it.

        Class and register tokens are dropped. Where the classifier pools before its norm (ConvNeXt), the norm is
        applied at every position instead, as in the published pre-training. Where forward_features returns several
        tensors, the last map of features() stands for them.
        """
        return self.final_map(self._final_features(images_bchw))

    def final_map(self, features: Tensor) -> Tensor:
        """The map (B, C, h, w) of forward() from what the network's forward_features returned."""
        assert self._final_layout is not None
        features_bchw = self._final_layout.to_map(features)
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
        other networks with stages: before the k-th stage of stride >= 4 (stem not counted).
        A str is a module name: the place in front of that module.

        Raises BackboneError for an index or a module that does not exist, or where no map passes.
        """
        if isinstance(stage, str):
            return self._entry_at(stage, Place(stage, after=False))
        places = self.places()
        if not 0 <= stage < len(places):
            raise BackboneError(f"{self.name} has the entries 0 to {len(places) - 1}, not {stage}.")
        place = places[stage]
        if place is None:
            usable = " ".join(str(k) for k, other in enumerate(places) if other is not None)
            raise BackboneError(f"{self.name} has no single map before stage {stage}; entries: {usable or 'none'}.")
        return self._entry_at(stage, place)

    def places(self) -> list[Place | None]:
        """Where the entries 0, 1, ... are; None where no single map passes."""
        info = self.net.feature_info
        modules = [str(entry["module"]) if isinstance(entry, dict) and "module" in entry else "" for entry in info]
        stages = [
            StageMap(modules[index], *self._map_shapes[index])
            for index in (range(len(modules)) if self._is_isotropic else self.stages)
        ]
        return find_places(self.family, self._watched(), stages, isotropic=self._is_isotropic)

    @property
    def single_stride(self) -> bool:
        """Whether all maps of features() have the same stride (ViT), so that a pyramid has to be made of them."""
        return len(set(self.strides)) == 1

    @property
    def family(self) -> Family:
        """Which family it is by its class, whatever its name."""
        files = (base.__module__.rpartition(".")[2] for base in type(self.net).__mro__ if "timm." in base.__module__)
        return next((FAMILY_OF_MODULE[file] for file in files if file in FAMILY_OF_MODULE), "other")

    def freeze(self) -> None:
        """Train nothing of it: no gradients, and evaluation mode whatever `train` is told, so that batch norm keeps its
        statistics, and dropout and stochastic depth are off."""
        self.requires_grad_(False)
        self.frozen = True
        self.eval()

    def train(self, mode: bool = True) -> "Backbone":
        """Set the mode; a frozen network stays in evaluation mode."""
        super().train(mode and not self.frozen)
        return self

    def freeze_unused_by_features(self) -> list[str]:
        """Stop training what `features` does not use (the final norm) and return the names of those parameters.

        For tasks that read `features` only: DistributedDataParallel would wait for the gradients of these.
        """
        unused = unused_parameters(self.net, self.features, self._probe_size, self.in_channels)
        freeze_parameters(self.net, unused)
        return unused

    def _entry_at(self, stage: int | str, place: Place) -> Entry:
        try:
            module = self.net.get_submodule(place.module)
        except AttributeError:
            children = " ".join(name for name, _ in self.net.named_children())
            raise BackboneError(f"{self.name} has no module {place.module!r}; at the top it has {children}.") from None
        seen = self._watched().get(place.module)
        if seen is None:
            raise BackboneError(
                f"{self.name} has no map at its module {place.module!r}: its forward pass does not run it."
            )
        passing = Passing(
            seen=seen,
            image_size=self._probe_size,
            num_prefix=self._num_prefix(),
            channels_last=self._is_channels_last(),
            where=f"{self.name}: {place.module}",
        )
        return make_entry(stage, place, module, passing)

    def _watched(self) -> dict[str, Seen]:
        if self._seen is None:
            self._seen = watch(self.net, self.forward, self._probe_size, self.in_channels)
        return self._seen

    def maps_at(self, images_bchw: Tensor, indices: Sequence[int], *, norm: bool = False) -> list[Tensor]:
        """The maps (B, C, h, w) at these places of the network's feature_info, with `norm` after its final norm."""
        maps: list[Tensor] = self.net.forward_intermediates(
            images_bchw, indices=list(indices), norm=norm, output_fmt="NCHW", intermediates_only=True
        )
        return maps

    def _all_maps(self, images_bchw: Tensor) -> list[Tensor]:
        return self.maps_at(images_bchw, range(len(self.net.feature_info)))

    def _final_features(self, images_bchw: Tensor) -> Any:
        if self._last is not None:
            return self.maps_at(images_bchw, [self._last], norm=self._last_norm)[0]
        return self.net.forward_features(images_bchw)

    def _find_final_layout(self, last_map: Sequence[int]) -> Layout:
        """How forward_features keeps its map; where that is no map, the last feature map is taken, with its norm."""
        features = run_on_shapes(self, self._final_features, self._probe_size, self.in_channels)
        if isinstance(features, Tensor):
            try:
                found = self._layout(features.shape)
            except BackboneError:
                found = None
            if found is not None and found.grid[0] * 2 >= last_map[2]:  # not its class token alone
                return found
        self._last, self._final_norm = len(self.net.feature_info) - 1, None
        for self._last_norm in (True, False):
            try:
                shape = run_on_shapes(self, self._final_features, self._probe_size, self.in_channels).shape
            except (AssertionError, NotImplementedError, RuntimeError, TypeError):  # no norm for single maps
                continue
            return Layout("nchw", channels=shape[1], grid=(shape[2], shape[3]))
        raise BackboneError(f"{self.name} gives no single map of features.")

    def _layout(self, shape: Sequence[int]) -> Layout:
        where = f"{self.name}.forward_features"
        return find_layout(shape, num_prefix=self._num_prefix(), channels_last=self._is_channels_last(), where=where)

    def _num_prefix(self) -> int:
        return int(getattr(self.net, "num_prefix_tokens", 0))

    def _is_channels_last(self) -> bool:
        return getattr(self.net, "output_fmt", "NCHW") == "NHWC"


def stage_indices(strides: Sequence[int]) -> list[int]:
    """Which of a network's feature maps features() returns, from the stride of each."""
    depth = len(strides)
    if len(set(strides)) == 1:
        return [depth * sixths // 6 - 1 for sixths in (2, 3, 4, 6)] if depth > 4 else list(range(depth))
    last = {stride: index for index, stride in enumerate(strides) if stride >= 4}
    return sorted(last.values())


def built_size(net: nn.Module) -> int:
    """The image size `net` was built for, else 224."""
    size = getattr(getattr(net, "patch_embed", None), "img_size", None)
    if size is None:
        size = (getattr(net, "pretrained_cfg", None) or {}).get("input_size", (3, 224, 224))[1:]
    return int(size[0])


def is_fixed_size(net: nn.Module) -> bool:
    """Whether `net` takes only images of the size it was built for."""
    is_strict = getattr(getattr(net, "patch_embed", None), "strict_img_size", None)
    if is_strict is not None:
        return bool(is_strict) or not getattr(net, "dynamic_img_size", False)
    return bool((getattr(net, "pretrained_cfg", None) or {}).get("fixed_input_size", False))


def head_norm_name(net: nn.Module) -> str | None:
    """Name of the norm that `net` applies after pooling, None if its forward_features already ends with it."""
    for name in ("head.norm", "fc_norm"):
        parent, _, child = name.rpartition(".")
        norm = getattr(getattr(net, parent, None) if parent else net, child, None)
        if isinstance(norm, nn.Module) and any(
            weight.numel() == getattr(net, "num_features", None) for weight in norm.parameters()
        ):
            return name
    return None


def _normalise(norm: nn.Module, map_bchw: Tensor) -> Tensor:
    """`norm` at every position of `map_bchw`, over its channels."""
    if isinstance(norm, nn.LayerNorm) and not isinstance(norm, LayerNorm2d):
        return cast(Tensor, norm(map_bchw.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
    return cast(Tensor, norm(map_bchw))
