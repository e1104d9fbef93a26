"""The complete configuration of one segmentation run, with the allowed range of every field."""

from dataclasses import dataclass, field
from typing import Literal

from engine.data.options import Exif, ImageOptions

Precision = Literal["float32", "tf32", "bfloat16", "float16"]


@dataclass(frozen=True, kw_only=True)
class DataConfig(ImageOptions):
    """Where the images and label maps are and how they are read."""

    root: str = ""
    """ADEChallengeData2016, the folder that holds it, or one of your own with a folder of images and one of label maps
    (PNG) of the same names: images/ and masks/, each with train/ and val/ in it, or train/ and val/ with both in each,
    or without either and then with `val_share` or `val_list`."""
    classes: str = ""
    """Names of your own classes, "road,car,tree", or a file with one a line (.txt, .json), in the order of their
    labels; with labels or colours where they do not count up: "road=7,car=26", "road=#804080,car=#00008e". "ade20k" are
    the 150 of ADE20K, and so is "", unless the labels look like other ones."""
    ignore_label: tuple[int, ...] = ()
    """Stored labels that do not count in loss and metrics, such as 255; with ADE20K's classes, beside 0."""
    label_offset: int = 0
    """Stored label of the first of `classes`, where they are given without labels: 1 if 0 is something else."""
    images: str = ""
    """Folder of the images in `root`; "" finds images, imgs, image, img or JPEGImages."""
    maps: str = ""
    """Folder of the label maps in `root`; "" finds annotations, masks, labels, annotation, mask, label or
    SegmentationClass."""
    map_suffix: str = ""
    """What the name of a label map has behind that of its image: "_mask" for 0001.jpg and 0001_mask.png."""
    val_share: float = 0.0
    """Share of the images that is for validation, where there are no train/ and val/, in [0, 1): drawn by their
    names alone."""
    val_list: str = ""
    """File with the names of the validation images, one a line, where there are no train/ and val/."""
    num_workers: int = 4
    """Reader processes per rank; 0 reads in the training process."""
    exif: Exif = "stop"
    """What to do with a photo that has an EXIF orientation, for which the label map may have been drawn either way:
    "stop" refuses it, "apply" turns the photo upright, "ignore" reads its pixels as stored."""
    evaluation_batch_size: int = 1
    """Images evaluated at once on one rank, of those that have the same size. Part of the configuration because
    rounding may depend on it."""

    def problems(self) -> list[str]:
        """What cannot be run as given."""
        found = [] if self.root else ["root: not given: the folder of images and label maps (--data.root DIR)"]
        if not 0 <= self.val_share < 1:
            found.append(f"val_share: {self.val_share} is outside [0, 1)")
        labels = [("label_offset", self.label_offset), *(("ignore_label", label) for label in self.ignore_label)]
        found += [f"{name}: {label} is outside [0, 65535]" for name, label in labels if not 0 <= label < 1 << 16]
        return found + self.image_problems() + _at_least(self, {"num_workers": 0, "evaluation_batch_size": 1})


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """What is done to a training image. Its short side is first brought to image_size times a random factor."""

    resize_ratio: tuple[float, float] = (0.5, 2.0)
    """Range of that factor. The long side is at most four times image_size times the factor."""
    cat_max_ratio: float = 0.75
    """A crop with more than this share of one class is drawn again, up to ten times; 1 accepts every crop."""
    flip: float = 0.5
    """Probability of a horizontal flip."""
    photometric: bool = True
    """Whether brightness, contrast, saturation and hue are changed at random (PhotoMetricDistortion)."""

    def problems(self) -> list[str]:
        """What cannot be run as given."""
        found = []
        if not 0 < self.resize_ratio[0] <= self.resize_ratio[1]:
            found.append(f"resize_ratio: {self.resize_ratio} is not 0 < smallest <= largest")
        if not 0 < self.cat_max_ratio <= 1:
            found.append(f"cat_max_ratio: {self.cat_max_ratio} is outside (0, 1]")
        if not 0 <= self.flip <= 1:
            found.append(f"flip: {self.flip} is outside [0, 1]")
        return found


@dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """The decoder and the auxiliary head. Their input channels come from the encoder."""

    kind: Literal["upernet", "fcn", "linear"] = "upernet"
    """"upernet": UPerHead on all four maps (Xiao et al. 2018); "fcn": FCNHead of two convolutions on the last map;
    "linear": batch norm and a 1x1 convolution, what a frozen encoder is measured with."""
    maps: Literal["last", "four"] = "last"
    """Of a linear head: the "last" map after the network's final norm, or "four" concatenated: those of the stages at
    stride 8, or of a ViT's last four blocks."""
    channels: int = 512
    """Width of the decoder."""
    aux_channels: int = 256
    """Width of the auxiliary FCN head on the last map but one; 0 for no such head."""
    aux_weight: float = 0.4
    """Of the auxiliary head's loss; the decoder's has weight 1."""
    dropout: float = 0.1
    """Probability of dropping a channel before each classifier, in [0, 1)."""

    def problems(self) -> list[str]:
        """What cannot be run as given."""
        found = _at_least(self, {"channels": 1, "aux_channels": 0})
        if self.kind == "linear" and self.aux_channels:
            found.append(f"aux_channels: {self.aux_channels}: a linear head has no auxiliary head beside it; use 0")
        if not self.aux_weight > 0:
            found.append(f"aux_weight: {self.aux_weight} is not above 0 (aux_channels 0 for no auxiliary head)")
        if not 0 <= self.dropout < 1:
            found.append(f"dropout: {self.dropout} is outside [0, 1)")
        return found


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """The optimizer; its learning rate follows the global batch: base_learning_rate * batch_size / base_batch."""

    name: Literal["sgd", "adamw"] = "sgd"
    """torch's SGD with momentum, or AdamW."""
    base_learning_rate: float = 0.01
    """Learning rate at a global batch of `base_batch`; the absolute rate is printed and stored in environment.json."""
    base_batch: int = 16
    """The global batch that base_learning_rate belongs to; 16 in every published file."""
    weight_decay: float = 5e-4
    """Of the parameters that `no_decay` does not spare."""
    no_decay: Literal["none", "norms", "one_dimensional"] = "none"
    """Which parameters have no weight decay: none of them; the encoder's norms and position tables (Swin's files); or
    everything of one dimension, every bias, position and class token (MMSegmentation's layer decay)."""
    momentum: float = 0.9
    """Of sgd."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Averaging factors of adamw."""
    layer_decay: float = 1.0
    """Learning rate of an encoder layer relative to the next one's, in (0, 1]; the heads learn at the full rate."""
    stage_layers: int = 0
    """0: layer_decay counts single layers as timm groups them (BEiT, MAE). n > 0: MMSegmentation's rule for ConvNeXt
    by stages: the blocks of stage i (0 to 3) learn at layer_decay^(n - i), stem and downsampling at ^(n + 1)."""
    clip_grad: float | None = None
    """Gradients of a larger global norm are scaled down to this norm; None for no clipping."""

    def problems(self) -> list[str]:
        """What cannot be run as given."""
        found = _at_least(self, {"base_batch": 1, "weight_decay": 0, "stage_layers": 0})
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
    """The learning rate over the iterations: a linear warm-up, then (1 - t)^power down to min_learning_rate."""

    power: float = 0.9
    """Of the polynomial."""
    warmup_iterations: int = 0
    """Iterations of linear rise to the peak."""
    warmup_start: float = 1e-6
    """The first learning rate of the warm-up relative to the peak."""
    min_learning_rate: float = 1e-4
    """The last learning rate, absolute, of every parameter group."""

    def problems(self) -> list[str]:
        """What cannot be run as given."""
        found = _at_least(self, {"warmup_iterations": 0, "min_learning_rate": 0})
        if not self.power > 0:
            found.append(f"power: {self.power} is not above 0")
        if not 0 <= self.warmup_start <= 1:
            found.append(f"warmup_start: {self.warmup_start} is outside [0, 1]")
        return found


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """How the validation images are predicted. Their short side is brought to image_size, the long side is at most
    four times as long; the prediction is compared at the size of the label map."""

    mode: Literal["whole", "slide"] = "whole"
    """"whole" image at once, or "slide": the mean over windows of image_size that overlap by a third (341 of 512, 426
    of 640 pixels apart), which is what encoders of fixed size (ViT) need."""
    multi_scale: bool = False
    """Whether the final evaluation also predicts at six scales with and without flip (mIoU_ms and so on)."""
    scales: tuple[float, ...] = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
    """Of multi_scale, relative to the single scale."""
    num_panels: int = 4
    """Validation images drawn with truth and prediction at the end, in panels/."""

    def problems(self) -> list[str]:
        """What cannot be run as given."""
        found = _at_least(self, {"num_panels": 0})
        if not self.scales or not all(scale > 0 for scale in self.scales):
            found.append(f"scales: {self.scales} are not all above 0")
        return found


@dataclass(frozen=True, kw_only=True)
class SegmentationConfig:
    """One segmentation run: a recipe returns one, `train` runs it, config.json stores it."""

    model: str
    """A published name (r50, vit_b, convnext_s, ...) or any timm model."""
    init: str = ""
    """Where the encoder starts: a weight file, the folder of a pre-training run, or "none" for from scratch."""
    iterations: int
    """Optimizer steps."""
    batch_size: int
    """Images per optimizer step over all ranks and accumulation steps."""
    image_size: int = 512
    """Side of the training crop, in pixels; also the short side in evaluation."""
    seed: int = 0
    """Everything random in the run is a function of it."""
    precision: Precision = "bfloat16"
    """Of the forward pass; weights, upsampling of the scores and losses are float32."""
    compile: bool = False
    """Whether to run the network through torch.compile."""
    checkpoint_every: int = 2000
    """Steps between checkpoints."""
    log_every: int = 50
    """Steps between lines of training metrics."""
    deterministic: bool = False
    """Whether a GPU may use only algorithms that repeat exactly: slower, but then a resumed run ends with the same
    bytes as an undisturbed one, as it always does on a CPU."""
    evaluate_every: int = 16_000
    """Steps between evaluations; the last step is always evaluated."""
    drop_path: float = 0.0
    """Largest stochastic-depth rate, reached in the last block (Huang et al. 2016)."""
    output_stride: Literal[8, 16, 32] = 32
    """Image pixels per position of the encoder's last map. 8 and 16 replace the strides of the last stages of a ResNet
    by dilation, on the same weights: 8 is the published D8 with dilations 1, 1, 2, 4."""
    freeze: Literal["none", "all"] = "none"
    """"all" trains the heads and nothing of the encoder: no gradients, batch norm with the statistics of the
    pre-training, no stochastic depth."""
    accumulation: int = 1
    """Forward-backward passes per optimizer step: a smaller memory footprint at the same global batch."""
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    head: HeadConfig = field(default_factory=HeadConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)

    @property
    def learning_rate(self) -> float:
        """The absolute peak learning rate."""
        return self.optimizer.base_learning_rate * self.batch_size / self.optimizer.base_batch

    def problems(self) -> list[str]:
        """What cannot be run as given, apart from what the groups say themselves."""
        sizes = {"iterations": 1, "batch_size": 1, "image_size": 32, "seed": 0, "accumulation": 1}
        found = _at_least(self, {**sizes, "checkpoint_every": 1, "log_every": 1, "evaluate_every": 1})
        if not self.init:
            found.append(
                'init: not given: a weight file, the folder of a pre-training run, or "none" to train from scratch'
            )
        if not 0 <= self.drop_path < 1:
            found.append(f"drop_path: {self.drop_path} is outside [0, 1)")
        if self.schedule.warmup_iterations >= self.iterations:
            found.append(
                f"schedule.warmup_iterations: {self.schedule.warmup_iterations} is not below the "
                f"{self.iterations} iterations"
            )
        if self.accumulation >= 1 and self.batch_size % self.accumulation:
            found.append(f"batch_size: {self.batch_size} is not a multiple of accumulation, {self.accumulation}")
        elif self.accumulation >= 1 and self.batch_size // self.accumulation < 2:
            found.append(
                f"batch_size: {self.batch_size} over {self.accumulation} accumulation steps is less than 2 images at "
                "once, of which batch norm cannot take statistics"
            )
        return found


def _at_least(group: object, smallest: dict[str, int]) -> list[str]:
    values = ((name, getattr(group, name), least) for name, least in smallest.items())
    return [f"{name}: {value} is below {least}, the smallest allowed" for name, value, least in values if value < least]
