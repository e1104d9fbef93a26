"""The complete configuration of one classification run, with the allowed range of every field."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from engine.fields import Count, Natural, NotNegative, PartialShare, Share, UpToOne
from engine.groups import ChannelOptions, CropOptions, EpochRun, EpochSchedule, FineTuningOptimizer


@dataclass(frozen=True, kw_only=True)
class DataConfig(ChannelOptions):
    """Where the images are and how they are read."""

    HOLDS: ClassVar[str] = "the folder that holds train/ and val/"

    root: str = ""
    """Folder holding train/<class>/ and val/<class>/ (the ImageNet layout); the classes are the folder names. training,
    valid, validation and test are known too, and with `val_share` a folder that holds <class>/ alone."""
    val_share: PartialShare = 0.0
    """Share of each class's images to validate on where root has no folder for it: the same ones in every run."""
    train_fraction: UpToOne = 1.0
    """Part of each class's training images to use: a subset that depends on the seed alone."""
    full_epochs: bool = True
    """Whether an epoch of few labelled images is as many steps as one of all, each image coming several times: a tenth
    of the labels is not a tenth of the training, runs on different shares differ in nothing else, and a batch may be
    larger than the part. Without, an epoch is as many steps as the images make, each coming once."""
    label_list: str = ""
    """A list of the training images to use instead of a fraction, one a line: paths below train/, or file names that
    are there once, as in SimCLR's lists of 1 % and 10 % of ImageNet, which are taken by their names too, simclr-1 and
    simclr-10. It is stored in the run folder (labels.txt)."""
    evaluation_batch_size: Count = 125
    """Images per evaluation batch on one rank (50,000 / 125 = 400 batches). Part of the configuration because rounding
    may depend on it."""

    def problems(self) -> list[str]:
        """What cannot be run as given."""
        found = super().problems()
        if self.label_list and self.train_fraction != 1:
            found.append("label_list is given beside train_fraction: leave one of the two out")
        return found


@dataclass(frozen=True, kw_only=True)
class AugmentConfig(CropOptions):
    """What is done to an image before the network sees it, in training and in evaluation."""

    auto_augment: str = ""
    """timm's RandAugment string, such as "rand-m7-mstd0.5-inc1"; "" for none."""
    color_jitter: NotNegative = 0.0
    """Strength of brightness, contrast and saturation jitter. As in timm it is off while auto_augment is on."""
    interpolation: Literal["bilinear", "bicubic", "random"] = "bicubic"
    """Of every resize; "random" draws bilinear or bicubic in training and evaluates bilinear."""
    random_erasing: Share = 0.0
    """Probability of filling one random box of the normalised image with normal noise (Zhong et al. 2020)."""
    repeats: Count = 1
    """Copies of an image within an epoch that keeps its length (repeated augmentation, Hoffer et al. 2020)."""
    mixup: NotNegative = 0.0
    """Alpha of mixup (Zhang et al. 2018); 0 for none. With cutmix also on, each batch draws one of the two evenly."""
    cutmix: NotNegative = 0.0
    """Alpha of CutMix (Yun et al. 2019); 0 for none."""
    label_smoothing: PartialShare = 0.0
    """Probability mass spread evenly over all classes."""
    test_size: Count = 224
    """Side of the centre crop in evaluation, in pixels; the training size is the top-level image_size."""
    crop_pct: UpToOne = 0.875
    """test_size over the short side the image is resized to before the centre crop."""

    def problems(self) -> list[str]:
        """What cannot be run as given."""
        if not self.auto_augment:
            return []
        if not self.auto_augment.startswith("rand"):
            return [f'auto_augment is {self.auto_augment!r}; allowed: a RandAugment string like "rand-m7-mstd0.5-inc1"']
        from timm.data.auto_augment import rand_augment_transform  # imports torch, which --help does without

        try:
            rand_augment_transform(self.auto_augment, {})
        except (AssertionError, ValueError) as error:
            return [f'auto_augment is {self.auto_augment!r}: timm cannot read it ({error}), as "rand-m7-mstd0.5-inc1"']
        return []


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """How predictions are compared with the (mixed, smoothed) labels."""

    kind: Literal["cross_entropy", "bce"] = "cross_entropy"
    """"cross_entropy" over the classes, or "bce": a sigmoid per class, mean over batch and classes (RSB)."""
    target_threshold: PartialShare | None = None
    """bce only: a class counts as fully present (1) where its mixed label is above this, else as absent (0). timm's
    command lines for RSB use 0.2; MMPretrain and A2MIM keep the mixed labels (None)."""

    def problems(self) -> list[str]:
        """What cannot be run as given."""
        if self.target_threshold is None or self.kind == "bce":
            return []
        return [f'target_threshold is {self.target_threshold}; allowed: none, for only kind "bce" has one']


OptimizerConfig = FineTuningOptimizer


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig(EpochSchedule):
    """The learning rate over the epochs; between epochs it moves with every step."""

    warmup_epochs: NotNegative = 5.0
    warmup_start: Share = 1e-4
    min_rate: NotNegative = 1e-6


@dataclass(frozen=True, kw_only=True)
class EmaConfig:
    """A moving average of the weights, evaluated and exported in place of the weights."""

    decay: PartialShare = 0.0
    """Share of the old average kept in every step; 0 for no average."""
    warmup_epochs: Natural = 0
    """Epochs over which the decay rises to its value."""


@dataclass(frozen=True, kw_only=True)
class ClassificationConfig(EpochRun):
    """One classification run: a recipe returns one, `train` runs it, config.json stores it."""

    evaluate_every: Count = 1
    """Epochs between evaluations; the last epoch is always evaluated."""
    freeze: Literal["none", "encoder"] = "none"
    """"encoder" trains a linear classifier on the fixed features (linear probe)."""
    standardise: bool = False
    """With a frozen encoder: whether a batch norm without scale brings every feature to mean 0 and variance 1 before
    the classifier, as in MAE's linear probe, so that one learning rate fits any encoder. What the run leaves has it
    folded into the classifier."""
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: FineTuningOptimizer = field(default_factory=FineTuningOptimizer)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    ema: EmaConfig = field(default_factory=EmaConfig)

    @property
    def mixes(self) -> bool:
        """Whether mixup or CutMix pairs the images of a batch."""
        return self.augment.mixup > 0 or self.augment.cutmix > 0

    def problems(self) -> list[str]:
        """What cannot be run as given, apart from what the groups say themselves."""
        found = super().problems()
        if self.ema.warmup_epochs > self.epochs:
            found.append(f"ema.warmup_epochs is {self.ema.warmup_epochs}; allowed: 0 to epochs {self.epochs}")
        if self.freeze == "encoder" and (self.drop_path or self.optimizer.layer_decay < 1):
            found.append('freeze is "encoder", which trains one linear layer: drop_path 0, optimizer.layer_decay 1')
        if self.standardise and self.freeze != "encoder":
            found.append('standardise is True; allowed with freeze "encoder" alone')
        if self.mixes and not found and self.accumulation >= 1 and self.batch_size // self.accumulation % 2:
            found.append(
                f"batch_size is {self.batch_size} over {self.accumulation} accumulation steps, which is odd: "
                "mixup and CutMix pair the images, use an even number"
            )
        if self.data.bands != 3 and (self.augment.auto_augment or self.augment.color_jitter):
            found.append(
                f"data.mean has {len(self.data.mean)} values, and auto_augment and color_jitter know RGB alone: "
                '--augment.auto-augment "" --augment.color-jitter 0'
            )
        return found
