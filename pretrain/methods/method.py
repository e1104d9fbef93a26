"""What a pre-training method is: one object that its file exports, and that everything else derives from.

Nothing here, nor at the top of a method's file, imports torch: `--help` lists recipes and options in no time. A
method's model is made by `build`, which imports what it needs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from pretrain.config import MethodOptions, PretrainConfig

if TYPE_CHECKING:
    from torch import Tensor, nn

    from backbones import Backbone
    from pretrain.targets import Normalise


class PretrainModel(Protocol):
    """What `Method.build` returns: a torch module with these parts.

    Shapes: B batch, H W pixels, g cells along a side.
    """

    encoder: Backbone
    """What is kept at the end."""
    normalise: Normalise
    """From uint8 pixels to what the encoder sees, and back for panels."""

    def __call__(self, images_bchw: Tensor, mask_bgg: Tensor) -> dict[str, Tensor]:
        """{name: scalar}, whose sum is minimised, of uint8 images (B, 3, H, W) and masks (B, g, g), 1 where hidden."""
        ...

    def reconstruct(self, images_bchw: Tensor, mask_bgg: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """For panels: the original, what was seen of it, and the prediction, uint8 (B, 3, H, W)."""
        ...


@dataclass(frozen=True, kw_only=True)
class Method:
    """A pre-training method."""

    name: str
    """As in `--method NAME` and in run folders: lower case, no spaces."""
    title: str
    """As people write it, in tables and figures."""
    paper: str
    """Authors, venue, year, arXiv number."""
    options: type[MethodOptions]
    """Class of PretrainConfig.options."""
    build: Callable[[Backbone, PretrainConfig], nn.Module]
    """The model of a configuration, a PretrainModel. Raises ConfigError where the configuration does not fit."""
    for_family: Callable[[str, str], PretrainConfig]
    """(family, model) -> a complete configuration by the published rules of the network's family (`backbones.family`),
    at the published length; ConfigError with what the method needs if it does not take the family."""
    smallest_cell: Callable[[PretrainConfig], int]
    """Side in pixels that a mask cell must be a multiple of with this configuration's network."""
    recipes: Mapping[str, Callable[[], PretrainConfig]]
    """Name -> function; each names the published row that it reproduces, and the files that it `follows` if it does."""
    elsewhere: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Name of a tensor beside the encoder, such as the token's, -> what other code calls it (behind its wrappers), so
    that their whole checkpoints can be gone on from."""
