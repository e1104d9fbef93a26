"""The configuration of a pre-training run. recipes.py fills it in; `engine.config.check` collects its `problems()`."""

import math
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from backbones import IMAGENET_MEAN, IMAGENET_STD
from engine.data.options import ImageOptions, Unreadable


@dataclass(frozen=True, kw_only=True)
class DataConfig(ImageOptions):
    """The images and how they are cropped."""

    root: str = ""
    """Folder of images, at any depth; `train/` inside it is taken if there is one. No classes are needed."""
    val_share: float = 0.0
    """Share of the images of each folder to leave out where root has no folder for validation: the same images that
    classification validates on with the same share."""
    num_workers: int = 8
    """Loader processes on each rank."""
    unreadable: Unreadable = "stop"
    """What an image that does not decode does to the run; skipping is counted and reported."""
    crop_scale: tuple[float, float] = (0.8, 1.0)
    """Share of the image's area that a random crop takes."""
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Aspect ratio (width / height) of the crop."""
    flip: float = 0.5
    """Probability of mirroring left and right."""
    mean: tuple[float, ...] = IMAGENET_MEAN
    """What is subtracted from RGB values between 0 and 1; a single value trains on grey images, with one channel."""
    std: tuple[float, ...] = IMAGENET_STD
    """What the difference is divided by, as many values."""

    def problems(self) -> list[str]:
        """What cannot be run, one line each."""
        found = [] if self.root else ["root is not given: the folder of the images (--data.root DIR)"]
        if self.num_workers < 0:
            found.append(f"num_workers is {self.num_workers}; allowed: 0 or more")
        if not 0 <= self.val_share < 1:
            found.append(f"val_share is {self.val_share}; allowed: from 0 up to but not 1")
        if not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1:
            found.append(f"crop_scale is {self.crop_scale}; allowed: 0 < smallest <= largest <= 1")
        if not 0.01 <= self.crop_ratio[0] <= self.crop_ratio[1] <= 100:
            found.append(f"crop_ratio is {self.crop_ratio}; allowed: 0.01 <= smallest <= largest <= 100")
        found += self.image_problems()
        if len(self.mean) not in (1, 3) or len(self.std) != len(self.mean):
            found.append(
                f"mean and std have {len(self.mean)} and {len(self.std)} values; allowed: 3 (RGB) or 1 (grey) each: "
                "images are decoded to RGB"
            )
        if not all(0 < value < math.inf for value in self.std) or not all(map(math.isfinite, self.mean)):
            found.append(f"mean {self.mean}, std {self.std}; allowed: finite, and std above 0")
        if not 0 <= self.flip <= 1:
            found.append(f"flip is {self.flip}; allowed: 0 to 1")
        return found


@dataclass(frozen=True, kw_only=True)
class MaskConfig:
    """Which part of an image is hidden."""

    cell_size: int = 32
    """Side of a square cell in pixels; a multiple of the stride of the map where the token enters."""
    mask_ratio: float = 0.6
    """Share of the cells hidden, rounded up to whole cells; between 0 and 1, at least one of each kind."""

    def problems(self) -> list[str]:
        """What cannot be run, one line each."""
        found = []
        if self.cell_size < 1:
            found.append(f"cell_size is {self.cell_size}; allowed: 1 or more pixels")
        if not 0 < self.mask_ratio < 1:
            found.append(f"mask_ratio is {self.mask_ratio}; allowed: between 0 and 1, both excluded")
        return found


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """The optimizer and which parameters it treats differently."""

    name: Literal["adamw", "lamb", "lars", "sgd"] = "adamw"
    """torch's AdamW and SGD, fused; timm's LAMB and LARS."""
    base_learning_rate: float = 3e-4
    """Peak learning rate for `base_batch` images; the peak used is this times batch_size / base_batch."""
    base_batch: int = 512
    """Batch that base_learning_rate is for."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay of the gradient's first and second moments, of adamw and lamb."""
    eps: float = 1e-8
    """Added to the root of the second moment, of adamw and lamb."""
    momentum: float = 0.9
    """Of sgd and lars."""
    weight_decay: float = 0.05
    """Decoupled weight decay of the parameters that `no_decay` does not name."""
    no_decay: tuple[str, ...] = ()
    """Regular expressions; parameters whose name contains a match have no weight decay."""
    rate_scale: tuple[tuple[str, float], ...] = ()
    """(regular expression, factor): the learning rate of matching parameters is multiplied by the factor."""
    clip_grad: float | None = None
    """Largest norm of the gradient; none: not clipped."""

    def problems(self) -> list[str]:
        """What cannot be run, one line each."""
        found = []
        for name in ("base_learning_rate", "base_batch", "eps"):
            if getattr(self, name) <= 0:
                found.append(f"{name} is {getattr(self, name)}; allowed: above 0")
        if not all(0 <= beta < 1 for beta in self.betas):
            found.append(f"betas is {self.betas}; allowed: each from 0 up to but not 1")
        if not 0 <= self.momentum < 1:
            found.append(f"momentum is {self.momentum}; allowed: from 0 up to but not 1")
        if self.weight_decay < 0:
            found.append(f"weight_decay is {self.weight_decay}; allowed: 0 or more")
        if self.clip_grad is not None and self.clip_grad <= 0:
            found.append(f"clip_grad is {self.clip_grad}; allowed: above 0, or none")
        return found


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """The learning rate over the run, step by step."""

    kind: Literal["cosine", "warmup_times_cosine", "step"] = "warmup_times_cosine"
    """As in engine.training.optim.Schedule; "warmup_times_cosine" is what A2MIM's CNN runs used."""
    warmup_epochs: float = 10
    """Linear warm-up."""
    warmup_start: float = 0.0
    """Share of the peak at which the warm-up of "cosine" and "step" begins."""
    min_rate: float = 1e-5
    """Learning rate at the end of the cosine, absolute, for every parameter group."""
    final_weight_decay: float | None = None
    """Weight decay at the end, reached by half a cosine from optimizer.weight_decay; none: it stays."""
    step_epochs: tuple[int, ...] = ()
    """Epochs at which "step" multiplies the rate by step_factor."""
    step_factor: float = 0.1
    """See step_epochs."""

    def problems(self) -> list[str]:
        """What cannot be run, one line each."""
        found = []
        if self.warmup_epochs < 0:
            found.append(f"warmup_epochs is {self.warmup_epochs}; allowed: 0 or more")
        if not 0 <= self.warmup_start <= 1:
            found.append(f"warmup_start is {self.warmup_start}; allowed: 0 to 1")
        if self.min_rate < 0:
            found.append(f"min_rate is {self.min_rate}; allowed: 0 or more")
        if self.final_weight_decay is not None and self.final_weight_decay < 0:
            found.append(f"final_weight_decay is {self.final_weight_decay}; allowed: 0 or more, or none")
        if not 0 < self.step_factor <= 1:
            found.append(f"step_factor is {self.step_factor}; allowed: above 0, up to 1")
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
class PretrainConfig:
    """Everything that determines a pre-training run."""

    model: str
    """A published name (r50, convnext_t, vit_b, ...) or any timm model."""
    method: str
    """One of pretrain/methods."""
    epochs: int
    """Passes over the training images."""
    batch_size: int = 2048
    """Images in one optimizer step, over all devices and accumulation steps."""
    image_size: int = 224
    """Side of the square crop in pixels; a multiple of mask.cell_size."""
    seed: int = 0
    """Everything random is a function of it."""
    precision: Literal["float32", "tf32", "bfloat16", "float16"] = "bfloat16"
    """Of the forward pass: bfloat16 and float16 under autocast, losses and spectra in float32; on a GPU tf32 multiplies
    float32 numbers with 10 bits of mantissa, float32 exactly."""
    compile: bool = False
    """torch.compile the model."""
    deterministic: bool = False
    """Whether a GPU may use only algorithms that repeat exactly: slower, but then a resumed run ends with the same
    bytes as an undisturbed one, as it always does on a CPU."""
    accumulation: int | None = None
    """Micro-batches of a step on each device; none: one."""
    drop_path: float = 0.0
    """Largest stochastic depth rate of the encoder."""
    init: str = "none"
    """Weights to go on from: a file, a run folder, or released:NAME (python -m backbones released). The decoder and the
    token go on too where the weights are a whole pre-training checkpoint and they fit. "none": random weights."""
    checkpoint_every: int = 1000
    """Steps between checkpoints; there is one at the start and at the end too."""
    log_every: int = 50
    """Steps between lines of metrics.jsonl."""
    visualize_every_epochs: int = 25
    """Epochs between reconstruction panels; 0: only at the end."""
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

    @property
    def learning_rate(self) -> float:
        """Peak learning rate: base_learning_rate scaled linearly from base_batch to this batch (Goyal et al. 2017)."""
        return self.optimizer.base_learning_rate * self.batch_size / self.optimizer.base_batch

    def problems(self) -> list[str]:
        """What cannot be run, one line each; the groups state their own."""
        found = []
        for name in ("epochs", "batch_size", "image_size", "checkpoint_every", "log_every"):
            if getattr(self, name) < 1:
                found.append(f"{name} is {getattr(self, name)}; allowed: 1 or more")
        if not self.init:
            found.append('init is empty; allowed: a file of weights, a run folder, released:NAME, or "none"')
        if self.visualize_every_epochs < 0:
            found.append(f"visualize_every_epochs is {self.visualize_every_epochs}; allowed: 0 or more")
        if not 0 <= self.drop_path < 1:
            found.append(f"drop_path is {self.drop_path}; allowed: from 0 up to but not 1")
        if self.accumulation is not None and (self.accumulation < 1 or self.batch_size % self.accumulation):
            found.append(f"accumulation is {self.accumulation}; allowed: a divisor of batch_size {self.batch_size}")
        return found + self._mask_problems() + self._schedule_problems()

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

    def _schedule_problems(self) -> list[str]:
        found = []
        if self.schedule.warmup_epochs > self.epochs:
            found.append(
                f"schedule.warmup_epochs is {self.schedule.warmup_epochs}; allowed: 0 to epochs, {self.epochs}"
            )
        late = [epoch for epoch in self.schedule.step_epochs if not 0 < epoch < self.epochs]
        if self.schedule.kind == "step" and (late or not self.schedule.step_epochs):
            found.append(
                f"schedule.step_epochs is {self.schedule.step_epochs}; allowed: epochs from 1 to {self.epochs - 1}"
            )
        return found
