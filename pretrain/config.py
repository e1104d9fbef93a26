"""The configuration of a pre-training run. recipes.py fills it in; `engine.config.check` finds what cannot be run."""

import math
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Self

from engine.data.options import Unreadable
from engine.fields import Count, Natural, NotNegative, Part, PartialShare, Positive, Range
from engine.groups import ChannelOptions, CropOptions, EpochRun, EpochSchedule, OptimizerOptions, ScheduleKind


@dataclass(frozen=True, kw_only=True)
class DataConfig(CropOptions, ChannelOptions):
    """The images and how they are cropped."""

    HOLDS: ClassVar[str] = "the folder of the images"

    root: str = ""
    """Folder of images, at any depth; `train/` inside it is taken if there is one. No classes are needed."""
    val_share: PartialShare = 0.0
    """Share of the images of each folder to leave out where root has no folder for validation: the same images that
    classification validates on with the same share."""
    unreadable: Unreadable = "stop"
    """What an image that does not decode does to the run; skipping is counted and reported."""
    crop_scale: Annotated[tuple[float, float], Range(0, 1, open_low=True, rising=True)] = (0.8, 1.0)


@dataclass(frozen=True, kw_only=True)
class MaskConfig:
    """Which part of an image is hidden."""

    cell_size: Count = 32
    """Side of a square cell in pixels; a multiple of the stride of the map where the token enters."""
    mask_ratio: Part = 0.6
    """Share of the cells hidden, rounded up to whole cells; at least one is hidden and one visible."""


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig(OptimizerOptions):
    """The optimizer and which parameters it treats differently."""

    base_learning_rate: Positive = 3e-4
    base_batch: Count = 512
    eps: Positive | None = 1e-8
    no_decay: tuple[str, ...] = ()
    """Regular expressions; parameters whose name contains a match have no weight decay."""
    rate_scale: tuple[tuple[str, float], ...] = ()
    """(regular expression, factor): the learning rate of matching parameters is multiplied by the factor."""


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig(EpochSchedule):
    """The learning rate over the run, step by step."""

    kind: ScheduleKind = "warmup_times_cosine"
    warmup_epochs: NotNegative = 10.0
    min_rate: NotNegative = 1e-5


@dataclass(frozen=True, kw_only=True)
class MonitorConfig:
    """What is measured of the frozen encoder while it trains; training is the same to the bit without it."""

    every_epochs: Natural = 0
    """Epochs between measurements, which stand beside the losses in metrics.jsonl, split "val"; there is one before
    the first step and one at the end too. 0: none."""
    data: str = ""
    """Folder of images that training does not see. With train/<class>/ and val/<class>/: k-NN accuracy of val against
    train (k = 20, T = 0.07). Any folder of images: the effective rank of the features (RankMe), and the loss on masked
    images."""
    max_images: Count = 5000
    """Images of each part at most, evenly spread."""
    batch_size: Count = 64
    """Images in one forward pass."""

    def problems(self) -> list[str]:
        """What cannot be run, one line each."""
        found = []
        if self.every_epochs and not self.data:
            found.append("data is not given: a folder of images to measure on (--monitor.data DIR)")
        if self.data and not self.every_epochs:
            found.append("every_epochs is 0 beside monitor.data; allowed: 1 or more (--monitor.every-epochs N)")
        return found


def num_masked(image_size: int, cell_size: int, mask_ratio: float) -> int:
    """How many of the (image_size / cell_size)^2 cells are hidden: the ratio of them, rounded up."""
    return math.ceil((image_size // cell_size) ** 2 * mask_ratio)


@dataclass(frozen=True, kw_only=True)
class MethodOptions:
    """Settings that one method alone has; the file of each method in pretrain/methods derives its own."""

    def for_demo(self) -> Self:
        """The same where a batch is smaller than any published one."""
        return self

    def problems(self) -> list[str]:
        """What cannot be run, one line each."""
        return []


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(EpochRun):
    """Everything that determines a pre-training run."""

    method: str
    """One of pretrain/methods."""
    init: str = "none"
    """Weights to go on from: a file, a run folder, or released:NAME (python -m backbones released). The decoder and the
    token go on too where the weights are a whole pre-training checkpoint and they fit. "none": random weights."""
    batch_size: Count = 2048
    image_size: Count = 224
    """Side of the square crop in pixels; a multiple of mask.cell_size."""
    checkpoint_every: Count = 1000
    log_every: Count = 50
    visualize_every_epochs: Natural = 25
    """Epochs between reconstruction panels; 0: only at the end."""
    monitor: MonitorConfig = field(default_factory=MonitorConfig)
    """Measurements of the encoder while it trains."""
    data: DataConfig = field(default_factory=DataConfig)
    """The images."""
    mask: MaskConfig = field(default_factory=MaskConfig)
    """The hidden cells."""
    options: MethodOptions
    """What only this method has; see its file in pretrain/methods."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """The optimizer."""
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    """The learning rate over time."""

    @classmethod
    def field_types(cls, values: dict[str, Any]) -> dict[str, type]:
        """The class of `options`, which depends on the method. Raises ConfigError if no method has the name."""
        from pretrain.methods import find_method  # the methods' files fill in configurations, so they import this one

        return {"options": find_method(str(values.get("method"))).options}

    def problems(self) -> list[str]:
        """What cannot be run, one line each; the groups state their own."""
        return super().problems() + self._mask_problems()

    def _mask_problems(self) -> list[str]:
        cell, ratio = self.mask.cell_size, self.mask.mask_ratio
        if cell < 1 or self.image_size < 1:
            return []
        if self.image_size % cell:
            lower = self.image_size // cell * cell
            near = f"{lower} or {lower + cell}" if lower else f"{cell}"
            return [f"image_size is {self.image_size}; allowed: a multiple of mask.cell_size {cell}, such as {near}"]
        cells = (self.image_size // cell) ** 2
        if 0 < ratio < 1 and not 0 < num_masked(self.image_size, cell, ratio) < cells:
            hidden = num_masked(self.image_size, cell, ratio)
            return [
                f"mask.mask_ratio is {ratio}, which hides {hidden} of the {cells} cells; allowed: at least one cell "
                f"hidden and one visible, so at most {(cells - 1) / cells:.4f}"
                + (" (image_size must be larger than mask.cell_size)" if cells == 1 else "")
            ]
        return []
