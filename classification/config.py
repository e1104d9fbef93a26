"""The complete configuration of one classification run, with the allowed range of every field."""

from dataclasses import dataclass, field
from typing import Literal

from engine.data.options import ImageOptions

Precision = Literal["float32", "tf32", "bfloat16", "float16"]


@dataclass(frozen=True, kw_only=True)
class DataConfig(ImageOptions):
    """Where the images are and how they are read."""

    root: str = ""
    """Folder holding train/<class>/ and val/<class>/ (the ImageNet layout); the classes are the folder names. training,
    valid, validation and test are known too, and with `val_share` a folder that holds <class>/ alone."""
    val_share: float = 0.0
    """Share of each class's images to validate on where root has no folder for it: the same ones in every run."""
    num_workers: int = 8
    """Reader processes per rank; 0 reads in the training process."""
    train_fraction: float = 1.0
    """Part of each class's training images to use, in (0, 1]: a subset that depends on the seed alone."""
    label_list: str = ""
    """A list of the training images to use instead of a fraction, one a line: paths below train/, or file names that
    are there once, as in SimCLR's lists of 1 % and 10 % of ImageNet. It is stored in the run folder (labels.txt)."""
    evaluation_batch_size: int = 125
    """Images per evaluation batch on one rank (50,000 / 125 = 400 batches). Part of the configuration because rounding
    may depend on it."""

    def problems(self) -> list[str]:
        """What cannot be run as given."""
        found = [] if self.root else ["root: not given: the folder that holds train/ and val/ (--data.root DIR)"]
        found += _at_least(self, {"num_workers": 0, "evaluation_batch_size": 1})
        if not 0 <= self.val_share < 1:
            found.append(f"val_share: {self.val_share} is outside [0, 1)")
        if not 0 < self.train_fraction <= 1:
            found.append(f"train_fraction: {self.train_fraction} is outside (0, 1]")
        if self.label_list and self.train_fraction != 1:
            found.append("label_list: given beside train_fraction: leave one of the two out")
        return found + self.image_problems()


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """What is done to an image before the network sees it, in training and in evaluation."""

    scale: tuple[float, float] = (0.08, 1.0)
    """Area of the random crop relative to the image (RandomResizedCrop)."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Width over height of the random crop."""
    hflip: float = 0.5
    """Probability of a horizontal flip."""
    auto_augment: str = ""
    """timm's RandAugment string, such as "rand-m7-mstd0.5-inc1"; "" for none."""
    color_jitter: float = 0.0
    """Strength of brightness, contrast and saturation jitter. As in timm it is off while auto_augment is on."""
    interpolation: Literal["bilinear", "bicubic", "random"] = "bicubic"
    """Of every resize; "random" draws bilinear or bicubic in training and evaluates bilinear."""
    random_erasing: float = 0.0
    """Probability of filling one random box of the normalised image with normal noise (Zhong et al. 2020)."""
    repeats: int = 1
    """Copies of an image within an epoch that keeps its length (repeated augmentation, Hoffer et al. 2020)."""
    mixup: float = 0.0
    """Alpha of mixup (Zhang et al. 2018); 0 for none. With cutmix also on, each batch draws one of the two evenly."""
    cutmix: float = 0.0
    """Alpha of CutMix (Yun et al. 2019); 0 for none."""
    label_smoothing: float = 0.0
    """Probability mass spread evenly over all classes, in [0, 1)."""
    test_size: int = 224
    """Side of the centre crop in evaluation, in pixels; the training size is the top-level image_size."""
    crop_pct: float = 0.875
    """test_size over the short side the image is resized to before the centre crop."""

    def problems(self) -> list[str]:
        """What cannot be run as given."""
        found = _at_least(self, {"repeats": 1, "test_size": 1, "mixup": 0, "cutmix": 0, "color_jitter": 0})
        for name in ("hflip", "random_erasing"):
            if not 0 <= getattr(self, name) <= 1:
                found.append(f"{name}: {getattr(self, name)} is outside [0, 1]")
        if not 0 <= self.label_smoothing < 1:
            found.append(f"label_smoothing: {self.label_smoothing} is outside [0, 1)")
        if not 0 < self.crop_pct <= 1:
            found.append(f"crop_pct: {self.crop_pct} is outside (0, 1]")
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            found.append(f"scale: {self.scale} is not 0 < smallest <= largest <= 1")
        if not 0.01 <= self.ratio[0] <= self.ratio[1] <= 100:
            found.append(f"ratio: {self.ratio} is not 0.01 <= smallest <= largest <= 100")
        return found + self._auto_augment_problems()

    def _auto_augment_problems(self) -> list[str]:
        if not self.auto_augment:
            return []
        if not self.auto_augment.startswith("rand"):
            return [f'auto_augment: {self.auto_augment!r} is not a RandAugment string like "rand-m7-mstd0.5-inc1"']
        from timm.data.auto_augment import rand_augment_transform  # imports torch, which --help does without

        try:
            rand_augment_transform(self.auto_augment, {})
        except (AssertionError, ValueError) as error:
            return [f'auto_augment: {self.auto_augment!r}: timm cannot read it ({error}); "rand-m7-mstd0.5-inc1" works']
        return []


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """How predictions are compared with the (mixed, smoothed) labels."""

    kind: Literal["cross_entropy", "bce"] = "cross_entropy"
    """"cross_entropy" over the classes, or "bce": a sigmoid per class, mean over batch and classes (RSB)."""
    target_threshold: float | None = None
    """bce only: a class counts as fully present (1) where its mixed label is above this, else as absent (0). timm's
    command lines for RSB use 0.2; MMPretrain and A2MIM keep the mixed labels (None)."""

    def problems(self) -> list[str]:
        """What cannot be run as given."""
        if self.target_threshold is None:
            return []
        if self.kind != "bce":
            return ['target_threshold: only kind "bce" has one; remove it']
        inside = 0 <= self.target_threshold < 1
        return [] if inside else [f"target_threshold: {self.target_threshold} is outside [0, 1)"]


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """The optimizer; its learning rate follows the global batch: base_learning_rate * batch_size / base_batch."""

    name: Literal["adamw", "lamb", "sgd"] = "adamw"
    """"adamw" (torch), "lamb" (timm; it also scales a gradient of norm above 1 down to 1), "sgd" (torch)."""
    base_learning_rate: float = 1e-3
    """Learning rate at a global batch of `base_batch`; the absolute rate is printed and stored in environment.json."""
    base_batch: int = 1024
    """The global batch that base_learning_rate belongs to."""
    weight_decay: float = 0.05
    """Not applied to biases, norm scales and the like: see classification/optimizer.py."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Averaging factors of adamw and lamb."""
    momentum: float = 0.9
    """Of sgd."""
    layer_decay: float = 1.0
    """Learning rate of a layer relative to the next one's, in (0, 1]; 1 for the same rate everywhere (BEiT)."""
    clip_grad: float | None = None
    """Gradients of a larger global norm are scaled down to this norm; None for no clipping."""

    def problems(self) -> list[str]:
        """What cannot be run as given."""
        found = _at_least(self, {"base_batch": 1, "weight_decay": 0})
        if not self.base_learning_rate > 0:
            found.append(f"base_learning_rate: {self.base_learning_rate} is not above 0")
        if not 0 < self.layer_decay <= 1:
            found.append(f"layer_decay: {self.layer_decay} is outside (0, 1]")
        if self.clip_grad is not None and not self.clip_grad > 0:
            found.append(f"clip_grad: {self.clip_grad} is not above 0 (None for no clipping)")
        for name, values in (("betas", self.betas), ("momentum", (self.momentum,))):
            if not all(0 <= value < 1 for value in values):
                found.append(f"{name}: {getattr(self, name)} is outside [0, 1)")
        return found


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """The learning rate over the epochs; between epochs it moves with every step."""

    kind: Literal["cosine", "step", "constant"] = "cosine"
    """"cosine" from the peak to min_learning_rate, "step" (times 0.1 at each milestone), or "constant"."""
    warmup_epochs: int = 5
    """Epochs of linear rise to the peak."""
    warmup_start: float = 1e-4
    """The first learning rate relative to the peak."""
    min_learning_rate: float = 1e-6
    """The last learning rate of "cosine", absolute."""
    milestones: tuple[int, ...] = ()
    """Epochs at which "step" multiplies the rate by 0.1."""

    def problems(self) -> list[str]:
        """What cannot be run as given."""
        found = _at_least(self, {"warmup_epochs": 0, "min_learning_rate": 0})
        if not 0 <= self.warmup_start <= 1:
            found.append(f"warmup_start: {self.warmup_start} is outside [0, 1]")
        if (self.kind == "step") != bool(self.milestones):
            found.append(f'milestones: {self.milestones} with kind "{self.kind}": "step" needs some, the others none')
        return found


@dataclass(frozen=True, kw_only=True)
class EmaConfig:
    """A moving average of the weights, evaluated and exported in place of the weights."""

    decay: float = 0.0
    """Share of the old average kept in every step, in [0, 1); 0 for no average."""
    warmup_epochs: int = 0
    """Epochs over which the decay rises to its value."""

    def problems(self) -> list[str]:
        """What cannot be run as given."""
        found = _at_least(self, {"warmup_epochs": 0})
        return found if 0 <= self.decay < 1 else [*found, f"decay: {self.decay} is outside [0, 1)"]


@dataclass(frozen=True, kw_only=True)
class ClassificationConfig:
    """One classification run: a recipe returns one, `train` runs it, config.json stores it."""

    model: str
    """A published name (r50, vit_b, convnext_s, ...) or any timm model."""
    init: str = ""
    """Where the encoder starts: a weight file, the folder of a pre-training run, or "none" for from scratch."""
    epochs: int
    """Passes over the training set."""
    batch_size: int
    """Images per optimizer step over all ranks and accumulation steps."""
    image_size: int = 224
    """Side of the training crop, in pixels."""
    seed: int = 0
    """Everything random in the run is a function of it."""
    precision: Precision = "bfloat16"
    """Of the forward pass; weights and losses are float32."""
    compile: bool = False
    """Whether to run the network through torch.compile."""
    checkpoint_every: int = 2500
    """Steps between checkpoints."""
    log_every: int = 20
    """Steps between lines of training metrics."""
    deterministic: bool = False
    """Whether a GPU may use only algorithms that repeat exactly: slower, but then a resumed run ends with the same
    bytes as an undisturbed one, as it always does on a CPU."""
    evaluate_every: int = 1
    """Epochs between evaluations; the last epoch is always evaluated."""
    drop_path: float = 0.0
    """Largest stochastic-depth rate, reached in the last block (Huang et al. 2016)."""
    accumulation: int = 1
    """Forward-backward passes per optimizer step: a smaller memory footprint at the same global batch."""
    freeze: Literal["none", "encoder"] = "none"
    """"encoder" trains a linear classifier on the fixed features (linear probe)."""
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    ema: EmaConfig = field(default_factory=EmaConfig)

    @property
    def learning_rate(self) -> float:
        """The absolute peak learning rate."""
        return self.optimizer.base_learning_rate * self.batch_size / self.optimizer.base_batch

    @property
    def mixes(self) -> bool:
        """Whether mixup or CutMix pairs the images of a batch."""
        return self.augment.mixup > 0 or self.augment.cutmix > 0

    def problems(self) -> list[str]:
        """What cannot be run as given, apart from what the groups say themselves."""
        sizes = {"epochs": 1, "batch_size": 1, "image_size": 1, "seed": 0, "accumulation": 1}
        found = _at_least(self, {**sizes, "checkpoint_every": 1, "log_every": 1, "evaluate_every": 1})
        if not self.init:
            found.append(
                'init: not given: a weight file, the folder of a pre-training run, or "none" to train from scratch'
            )
        if not 0 <= self.drop_path < 1:
            found.append(f"drop_path: {self.drop_path} is outside [0, 1)")
        if self.schedule.warmup_epochs >= self.epochs:
            found.append(f"schedule.warmup_epochs: {self.schedule.warmup_epochs} is not below the {self.epochs} epochs")
        if self.ema.warmup_epochs > self.epochs:
            found.append(f"ema.warmup_epochs: {self.ema.warmup_epochs} is above the {self.epochs} epochs")
        if self.freeze == "encoder" and (self.drop_path or self.optimizer.layer_decay < 1):
            found.append('freeze: "encoder" trains one linear layer: drop_path must be 0 and optimizer.layer_decay 1')
        return found + self._batch_problems()

    def _batch_problems(self) -> list[str]:
        if self.accumulation < 1 or self.batch_size < 1:
            return []
        if self.batch_size % self.accumulation:
            return [f"batch_size: {self.batch_size} is not a multiple of accumulation, {self.accumulation}"]
        if self.mixes and self.batch_size // self.accumulation % 2:
            return [
                f"batch_size: {self.batch_size} over {self.accumulation} accumulation steps is odd: "
                "mixup and CutMix pair the images, use an even number"
            ]
        return []


def _at_least(group: object, smallest: dict[str, int]) -> list[str]:
    values = ((name, getattr(group, name), least) for name, least in smallest.items())
    return [f"{name}: {value} is below {least}, the smallest allowed" for name, value, least in values if value < least]
