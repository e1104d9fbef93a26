"""The fields that every task's configuration has, each group one class, spelt one way, its ranges on the fields. A task
takes a group as it is, or a subclass with its own defaults and what it alone has. Imports no torch: help texts use it.
"""

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from engine.data.options import ImageOptions, bands_of
from engine.fields import Count, Natural, NotNegative, PartialShare, Positive, Range, Share, UpToOne

Precision = Literal["float32", "tf32", "bfloat16", "float16"]
OptimizerName = Literal["adamw", "lamb", "lars", "sgd"]
Milestones = Annotated[tuple[int, ...], Range(1, rising=True)]
ScheduleKind = Literal["cosine", "warmup_times_cosine", "step", "poly", "constant"]


@dataclass(frozen=True, kw_only=True)
class OptimizerOptions:
    """The optimizer; its learning rate follows the global batch: base_learning_rate * batch_size / base_batch."""

    name: OptimizerName = "adamw"
    """torch's AdamW and SGD, fused; timm's LAMB (which also scales a gradient of norm above 1 down to 1) and LARS."""
    base_learning_rate: Positive = 1e-3
    """Peak learning rate at a global batch of `base_batch`; the absolute rate is printed and stored in
    environment.json."""
    base_batch: Count = 1024
    """The global batch that base_learning_rate belongs to."""
    betas: tuple[PartialShare, PartialShare] = (0.9, 0.999)
    """Decay of the gradient's first and second moments, of adamw and lamb."""
    eps: Positive | None = None
    """Added to the root of the second moment, of adamw and lamb; none: the library's own."""
    momentum: PartialShare = 0.9
    """Of sgd and lars."""
    weight_decay: NotNegative = 0.05
    """Of the parameters that no rule of the task spares."""
    clip_grad: Positive | None = None
    """Gradients of a larger global norm are scaled down to this norm; none: not clipped."""


@dataclass(frozen=True, kw_only=True)
class FineTuningOptimizer(OptimizerOptions):
    """The same for a network whose encoder begins at trained weights."""

    layer_decay: UpToOne = 1.0
    """Learning rate of an encoder layer relative to the next one's; 1 for the same rate everywhere (BEiT)."""


@dataclass(frozen=True, kw_only=True)
class ScheduleOptions:
    """The learning rate of each step (engine.training.optim.Schedule); lengths are in what the run is counted in."""

    kind: ScheduleKind = "cosine"
    """"cosine" from the peak to min_rate; "warmup_times_cosine", A2MIM's released one; "step", times step_factor at
    each of the milestones; "poly", (1 - t)^power from the peak to min_rate; or "constant"."""
    warmup_start: Share = 0.0
    """The first learning rate of the linear warm-up relative to the peak."""
    min_rate: NotNegative = 0.0
    """The last learning rate of "cosine" and "poly", absolute, of every parameter group."""
    milestones: Milestones = ()
    """When "step" multiplies the rate."""
    step_factor: UpToOne = 0.1
    """By what it multiplies."""
    power: Positive = 1.0
    """Of "poly"."""
    final_weight_decay: NotNegative | None = None
    """Weight decay at the end, reached by half a cosine from optimizer.weight_decay; none: it stays."""

    def problems(self) -> list[str]:
        """What cannot be run, one line each."""
        if (self.kind == "step") == bool(self.milestones):
            return []
        allowed = "some" if self.kind == "step" else "none (--schedule.milestones with nothing behind)"
        return [f'milestones is {self.milestones}; allowed with kind "{self.kind}": {allowed}']


@dataclass(frozen=True, kw_only=True)
class EpochSchedule(ScheduleOptions):
    """The learning rate over the epochs; between epochs it moves with every step."""

    warmup_epochs: NotNegative = 0.0
    """Epochs of linear rise to the peak."""

    @property
    def warmup(self) -> float:
        """The same in every task."""
        return self.warmup_epochs


@dataclass(frozen=True, kw_only=True)
class IterationSchedule(ScheduleOptions):
    """The learning rate over the iterations."""

    warmup_iterations: Natural = 0
    """Iterations of linear rise to the peak."""

    @property
    def warmup(self) -> float:
        """The same in every task."""
        return self.warmup_iterations


@dataclass(frozen=True, kw_only=True)
class RootOptions(ImageOptions):
    """Where the images are."""

    HOLDS: ClassVar[str] = "the folder of the images"

    root: str = ""
    """Folder of the data set."""

    def problems(self) -> list[str]:
        """What cannot be run, one line each."""
        found = [] if self.root else [f"root is not given: {self.HOLDS} (--data.root DIR)"]
        return found + self.image_problems()


@dataclass(frozen=True, kw_only=True)
class DataOptions(RootOptions):
    """The same, and who reads them."""

    val_share: PartialShare = 0.0
    """Share of the images to validate on where root has no part of its own for it: the same ones in every run."""
    num_workers: Natural = 8
    """Reader processes per rank, at most its share of the cores; 0 reads in the training process."""


@dataclass(frozen=True, kw_only=True)
class ChannelOptions(DataOptions):
    """The same for images of any channels, with what their values are normalised with."""

    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    """What is subtracted from values between 0 and 1, one for each channel: RGB, ImageNet's; of one value the images
    are made grey; of others they are TIFF files or numpy arrays (.npy) with as many channels, of 8 or 16 bits."""
    std: tuple[Positive, ...] = (0.229, 0.224, 0.225)
    """What the difference is divided by, as many values."""

    def problems(self) -> list[str]:
        """What cannot be run, one line each."""
        found = super().problems()
        if not self.mean or len(self.std) != len(self.mean):
            found.append(
                f"mean and std have {len(self.mean)} and {len(self.std)} values; allowed: as many each as pictures "
                "have channels, such as 3 (RGB) or 1 (grey)"
            )
        return found

    @property
    def bands(self) -> int:
        """Channels of the pictures as they are read."""
        return bands_of(self.mean)


@dataclass(frozen=True, kw_only=True)
class CropOptions:
    """The random crop of a training image, and its mirror."""

    crop_scale: Annotated[tuple[float, float], Range(0, 1, open_low=True, rising=True)] = (0.08, 1.0)
    """Share of the image's area that the crop takes, smallest and largest."""
    crop_ratio: Annotated[tuple[float, float], Range(0.01, 100, rising=True)] = (3 / 4, 4 / 3)
    """Width over height of the crop, smallest and largest."""
    flip: Share = 0.5
    """Probability of mirroring left and right."""


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What every run is told at the top."""

    model: str
    """A published name (r50, convnext_t, vit_b, ...) or any timm model."""
    init: str = ""
    """Where the encoder starts: a weight file, the folder of a run, released:NAME (python -m backbones released), or
    "none" for from scratch."""
    batch_size: Count
    """Images per optimizer step over all ranks and accumulation steps."""
    image_size: Count = 224
    """Side of a training image, in pixels."""
    seed: Natural = 0
    """Everything random in the run is a function of it."""
    precision: Precision = "bfloat16"
    """Of the forward pass: bfloat16 and float16 under autocast, weights and losses in float32; on a GPU tf32 multiplies
    float32 numbers with 10 bits of mantissa, float32 exactly."""
    compile: bool = False
    """Whether to run the network through torch.compile."""
    deterministic: bool = False
    """Whether a GPU may use only algorithms that repeat exactly, where there are any: slower, but then a resumed run
    ends with the same bytes as an undisturbed one, as it always does on a CPU."""
    accumulation: Count = 1
    """Forward-backward passes per optimizer step: a smaller memory footprint at the same global batch."""
    drop_path: PartialShare = 0.0
    """Largest stochastic-depth rate of the encoder, reached in its last block (Huang et al. 2016)."""
    checkpoint_every: Count = 2500
    """Steps between checkpoints; there is one at the start and at the end too."""
    log_every: Count = 20
    """Steps between lines of training metrics."""
    optimizer: OptimizerOptions = field(default_factory=OptimizerOptions)

    @property
    def learning_rate(self) -> float:
        """The absolute peak learning rate (linear rule, Goyal et al. 2017)."""
        return self.optimizer.base_learning_rate * self.batch_size / self.optimizer.base_batch

    def problems(self) -> list[str]:
        """What cannot be run, one line each; the groups state their own."""
        found = []
        if not self.init:
            found.append('init is not given: a weight file, the folder of a run, released:NAME, or "none" (--init)')
        if self.accumulation >= 1 and self.batch_size % self.accumulation:
            found.append(f"accumulation is {self.accumulation}; allowed: a divisor of batch_size {self.batch_size}")
        return found


@dataclass(frozen=True, kw_only=True)
class EpochRun(RunOptions):
    """A run that is counted in epochs."""

    epochs: Count
    """Passes over the training images."""
    schedule: EpochSchedule = field(default_factory=EpochSchedule)

    @property
    def length(self) -> int:
        """How long it is, in what it is counted in."""
        return self.epochs

    def steps(self, epochs: float, steps_per_epoch: int) -> int:
        """Optimizer steps in a number of epochs."""
        return round(epochs * steps_per_epoch)

    def problems(self) -> list[str]:
        """What cannot be run, one line each; the groups state their own."""
        return super().problems() + too_late(self.schedule, "warmup_epochs", self.epochs, "epochs")


@dataclass(frozen=True, kw_only=True)
class IterationRun(RunOptions):
    """A run that is counted in optimizer steps."""

    iterations: Count
    """Optimizer steps."""
    evaluate_every: Natural = 0
    """Steps between evaluations; the last step is always evaluated, and with 0 no other."""
    schedule: IterationSchedule = field(default_factory=IterationSchedule)

    @property
    def length(self) -> int:
        """How long it is, in what it is counted in."""
        return self.iterations

    def steps(self, iterations: float, steps_per_epoch: int = 0) -> int:
        """Optimizer steps in a number of iterations."""
        return round(iterations)

    def problems(self) -> list[str]:
        """What cannot be run, one line each; the groups state their own."""
        return super().problems() + too_late(self.schedule, "warmup_iterations", self.iterations, "iterations")


def too_late(schedule: EpochSchedule | IterationSchedule, warmup: str, length: int, unit: str) -> list[str]:
    """What of a schedule would happen after the run's end."""
    found = []
    if schedule.warmup > length:
        found.append(f"schedule.{warmup} is {schedule.warmup:g}; allowed: 0 to {unit} {length}")
    if any(milestone >= length for milestone in schedule.milestones):
        found.append(f"schedule.milestones is {schedule.milestones}; allowed: below {unit} {length}")
    return found
