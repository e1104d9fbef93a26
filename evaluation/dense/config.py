"""The configuration of the dense protocol. Imports no torch."""

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from engine.fields import Count, Natural, Part, Positive, Range
from evaluation.config import DataConfig, FeaturesConfig
from segmentation import config as segmentation

Similarity = Literal["cosine", "l2"]


@dataclass(frozen=True, kw_only=True)
class PairsConfig(segmentation.DataConfig, DataConfig):
    """Where the images and label maps are and how they are read, as `python -m segmentation` has it."""


@dataclass(frozen=True, kw_only=True)
class LinearHeadConfig:
    """Of a linear head; the defaults are those of `python -m segmentation linear-40k`."""

    crop_size: Annotated[int, Range(32)] = 512
    """Side of the training crop and of the windows in evaluation, in pixels."""
    iterations: Count = 40_000
    """Optimizer steps."""
    batch_size: Annotated[int, Range(2)] = 16
    """Images per step."""
    accumulation: Count = 1
    """Forward-backward passes per step."""
    base_learning_rate: Positive = 1e-3
    """At a batch of 16."""
    warmup_iterations: Natural = 1500
    """Of linear rise to the peak."""
    checkpoint_every: Count = 2000
    """Steps between checkpoints."""
    evaluate_every: Count = 10_000
    """Steps between evaluations; the last step is always evaluated."""
    log_every: Count = 50
    """Steps between lines of training metrics."""


@dataclass(frozen=True, kw_only=True)
class DenseConfig(FeaturesConfig):
    """Segmentation on a frozen encoder, ADE20K or pairs of your own: by the nearest patches, or by a linear head.

    `--head knn` takes minutes: images squashed to image_size, each patch's features standardised by the training
    patches, and each pixel of a patch gets the label that is most frequent at its place in the k nearest training
    patches (CAPI's protocol; ViT-L of CAPI has 29.2 mIoU at 224 on ADE20K). k and similarity are chosen on a tenth of
    the training images. Ignored pixels neither vote nor count; of equally frequent labels the first.

    `--head linear` trains batch norm and a 1x1 convolution on the last map after the final norm through
    MMSegmentation, with the settings of `python -m segmentation linear-40k`; `linear-four` on four maps.
    """

    SOME: ClassVar[tuple[str, ...]] = ("k", "similarity")

    head: Literal["knn", "linear", "linear-four"] = "knn"
    """"knn", or one of the two linear heads."""
    k: tuple[Count, ...] = (1, 3, 10, 30)
    """Numbers of neighbours to choose from."""
    similarity: tuple[Similarity, ...] = ("cosine", "l2")
    """Of patches, to choose from."""
    selection_share: Part = 0.1
    """Part of the training images that k and similarity are chosen on."""
    train_images: Natural = 0
    """How many training images are in the bank, drawn by the seed; 0 for all."""
    norm: Literal["before", "after"] = "after"
    """Patches before or after the network's final norm."""
    stored: Literal["float32", "float16"] = "float16"
    """Type of the cached numbers: of ADE20K and a ViT-B 6 GB in float16."""
    linear: LinearHeadConfig = field(default_factory=LinearHeadConfig)
    data: PairsConfig = field(default_factory=PairsConfig)

    def problems(self) -> list[str]:
        """What cannot be run as given, apart from what the groups say themselves."""
        found = super().problems()
        if len(self.layers) > 1:
            found.append(f"layers is {self.layers}; allowed: one")
        if self.token != "auto":
            found.append(f"token is {self.token}, but patches are what is looked at: leave it out")
        if self.head != "knn" and self.layers != (-1,):
            found.append(f"layers is {self.layers}; a linear head has its own, {self.head}: leave it out")
        if self.train_images and self.head != "knn":
            found.append(f"train_images is {self.train_images}; allowed with a linear head: 0, which takes all")
        if self.crop_pct != FeaturesConfig().crop_pct:
            found.append(f"crop_pct is {self.crop_pct}, but nothing is cropped here: leave it out")
        return found
