"""The complete configuration of one segmentation run, with the allowed range of every field."""

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from engine.data.options import Exif
from engine.fields import Count, Natural, NotNegative, PartialShare, Positive, Range, Share, UpToOne
from engine.groups import DataOptions, FineTuningOptimizer, IterationRun, IterationSchedule, OptimizerName, ScheduleKind

Label = Annotated[int, Range(0, 65535)]


@dataclass(frozen=True, kw_only=True)
class DataConfig(DataOptions):
    """Where the images and label maps are and how they are read."""

    HOLDS: ClassVar[str] = "the folder of images and label maps"

    root: str = ""
    """ADEChallengeData2016, the folder that holds it, or one of your own with a folder of images and one of label maps
    (PNG) of the same names: images/ and masks/, each with train/ and val/ in it, or train/ and val/ with both in each,
    or without either and then with `val_share` or `val_list`."""
    classes: str = ""
    """Names of your own classes, "road,car,tree", or a file with one a line (.txt, .json), in the order of their
    labels; with labels or colours where they do not count up: "road=7,car=26", "road=#804080,car=#00008e". "ade20k" are
    the 150 of ADE20K, and so is "", unless the labels look like other ones."""
    ignore_label: tuple[Annotated[int, Range(0, 0xFFFFFF)], ...] = ()
    """Stored labels that do not count in loss and metrics, such as 255; with ADE20K's classes, beside 0. Of maps in
    colours "#000000", or the number of the colour, 0xRRGGBB."""
    label_offset: Label = 0
    """Stored label of the first of `classes`, where they are given without labels: 1 if 0 is something else."""
    images: str = ""
    """Folder of the images in `root`; "" finds images, imgs, image, img or JPEGImages."""
    maps: str = ""
    """Folder of the label maps in `root`; "" finds annotations, masks, labels, annotation, mask, label or
    SegmentationClass."""
    map_suffix: str = ""
    """What the name of a label map has behind that of its image: "_mask" for 0001.jpg and 0001_mask.png."""
    val_share: PartialShare = 0.0
    """Share of the images that is for validation, where there are no train/ and val/: drawn by their
    names alone."""
    val_list: str = ""
    """File with the names of the validation images, one a line, where there are no train/ and val/; instead of
    `val_share`."""
    num_workers: Natural = 4
    exif: Exif = "stop"
    """What to do with a photo that has an EXIF orientation, for which the label map may have been drawn either way:
    "stop" refuses it, "apply" turns the photo upright, "ignore" reads its pixels as stored."""
    evaluation_batch_size: Count = 1
    """Images evaluated at once on one rank, of those that have the same size. Part of the configuration because
    rounding may depend on it."""


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """What is done to a training image. Its short side is first brought to image_size times a random factor."""

    resize_ratio: Annotated[tuple[float, float], Range(0, open_low=True, rising=True)] = (0.5, 2.0)
    """Range of that factor. The long side is at most four times image_size times the factor."""
    cat_max_ratio: UpToOne = 0.75
    """A crop with more than this share of one class is drawn again, up to ten times; 1 accepts every crop."""
    flip: Share = 0.5
    """Probability of a horizontal flip."""
    photometric: bool = True
    """Whether brightness, contrast, saturation and hue are changed at random (PhotoMetricDistortion)."""


@dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """The decoder and the auxiliary head. Their input channels come from the encoder."""

    kind: Literal["upernet", "fcn", "linear"] = "upernet"
    """"upernet": UPerHead on all four maps (Xiao et al. 2018); "fcn": FCNHead of two convolutions on the last map;
    "linear": batch norm and a 1x1 convolution, what a frozen encoder is measured with."""
    maps: Literal["last", "four"] = "last"
    """Of a linear head: the "last" map after the network's final norm, or "four" concatenated: those of the stages at
    stride 8, or of a ViT's last four blocks."""
    channels: Count = 512
    """Width of the decoder."""
    aux_channels: Natural = 256
    """Width of the auxiliary FCN head on the last map but one; 0 for no such head."""
    aux_weight: Positive = 0.4
    """Of the auxiliary head's loss; the decoder's has weight 1."""
    dropout: PartialShare = 0.1
    """Probability of dropping a channel before each classifier."""

    def problems(self) -> list[str]:
        """What cannot be run as given."""
        if self.kind == "linear" and self.aux_channels:
            return [f"aux_channels is {self.aux_channels}; allowed beside a linear head: 0"]
        return []


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig(FineTuningOptimizer):
    """The optimizer, and which parameters it treats differently; the heads learn at the full rate."""

    name: OptimizerName = "sgd"
    base_learning_rate: Positive = 0.01
    base_batch: Count = 16
    """The global batch that base_learning_rate belongs to; 16 in every published file."""
    weight_decay: NotNegative = 5e-4
    """Of the parameters that `no_decay` does not spare."""
    no_decay: Literal["none", "norms", "one_dimensional"] = "none"
    """Which parameters have no weight decay: none of them; the encoder's norms and position tables (Swin's files); or
    everything of one dimension, every bias, position and class token (MMSegmentation's layer decay)."""
    stage_layers: Natural = 0
    """0: layer_decay counts single layers as timm groups them (BEiT, MAE). n > 0: MMSegmentation's rule for ConvNeXt
    by stages: the blocks of stage i (0 to 3) learn at layer_decay^(n - i), stem and downsampling at ^(n + 1)."""


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig(IterationSchedule):
    """The learning rate over the iterations: a linear warm-up, then (1 - t)^power down to min_rate."""

    kind: ScheduleKind = "poly"
    power: Positive = 0.9
    warmup_start: Share = 1e-6
    min_rate: NotNegative = 1e-4


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """How the validation images are predicted. Their short side is brought to image_size, the long side is at most
    four times as long; the prediction is compared at the size of the label map."""

    mode: Literal["whole", "slide"] = "whole"
    """"whole" image at once, or "slide": the mean over windows of image_size that overlap by a third (341 of 512, 426
    of 640 pixels apart), which is what encoders of fixed size (ViT) need."""
    multi_scale: bool = False
    """Whether the final evaluation also predicts at six scales with and without flip (mIoU_ms and so on)."""
    scales: tuple[Positive, ...] = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
    """Of multi_scale, relative to the single scale."""
    num_panels: Natural = 4
    """Validation images drawn with truth and prediction at the end, in panels/."""

    def problems(self) -> list[str]:
        """What cannot be run as given."""
        return [] if self.scales else ["scales is (); allowed: one or more"]


@dataclass(frozen=True, kw_only=True)
class SegmentationConfig(IterationRun):
    """One segmentation run: a recipe returns one, `train` runs it, config.json stores it."""

    image_size: Annotated[int, Range(32)] = 512
    """Side of the training crop, in pixels; also the short side in evaluation."""
    checkpoint_every: Count = 2000
    log_every: Count = 50
    evaluate_every: Natural = 16_000
    output_stride: Literal[8, 16, 32] = 32
    """Image pixels per position of the encoder's last map. 8 and 16 replace the strides of the last stages of a ResNet
    by dilation, on the same weights: 8 is the published D8 with dilations 1, 1, 2, 4."""
    freeze: Literal["none", "all"] = "none"
    """"all" trains the heads and nothing of the encoder: no gradients, batch norm with the statistics of the
    pre-training, no stochastic depth."""
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    head: HeadConfig = field(default_factory=HeadConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)

    def problems(self) -> list[str]:
        """What cannot be run as given, apart from what the groups say themselves."""
        found = super().problems()
        if not found and self.accumulation >= 1 and self.batch_size // self.accumulation < 2:
            found.append(
                f"batch_size is {self.batch_size} over {self.accumulation} accumulation steps, less than 2 images at "
                "once, of which batch norm cannot take statistics"
            )
        return found
