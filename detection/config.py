"""The complete configuration of one detection run, with the allowed range of every field."""

import importlib.util
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from engine.data.options import Exif
from engine.fields import Count, Natural, NotNegative, PartialShare, Positive, Share
from engine.groups import (
    DataOptions,
    FineTuningOptimizer,
    IterationRun,
    IterationSchedule,
    Milestones,
    OptimizerName,
    ScheduleKind,
)

DetectorName = Literal["mask-rcnn-fpn", "mask-rcnn-c4", "retinanet-fpn"]
FrameworkName = Literal["detectron2", "torchvision"]
NormName = Literal["none", "bn", "ln"]
SplitName = Literal["train", "val"]

DETECTRON2_COMMIT = "02b5c4e2"
DETECTRON2_INSTALL = "https://github.com/facebookresearch/detectron2/blob/main/INSTALL.md"
PADDED_TO = 32
"""Images are padded to a multiple of this many pixels: the coarsest stride of the backbones."""


def detectron2_is_installed() -> bool:
    """Whether Detectron2 can be imported; it is not imported here."""
    try:
        return importlib.util.find_spec("detectron2") is not None
    except (ImportError, ValueError):
        return False


@dataclass(frozen=True, kw_only=True)
class DataConfig(DataOptions):
    """Where the images are, how they are read, and how large they are made."""

    HOLDS: ClassVar[str] = "the folder that holds annotations/"

    root: str = ""
    """Folder with annotations/instances_{train,val}2017.json and the images in train2017/ and val2017/, or with what
    the next four say."""
    train_annotations: str = "annotations/instances_train2017.json"
    """The COCO file of the training images, under root or absolute."""
    train_images: str = "train2017"
    """The folder of the training images, under root or absolute."""
    val_annotations: str = "annotations/instances_val2017.json"
    """The COCO file of the validation images, under root or absolute."""
    val_images: str = "val2017"
    """The folder of the validation images, under root or absolute."""
    val_share: PartialShare = 0.0
    """Share of the images of train_annotations that is kept for validation, for data that come in one file: always the
    same ones. 0 for a file of their own."""
    val_list: str = ""
    """A text file with the names of the images of train_annotations that are kept for validation, one on each line."""
    classes: tuple[str, ...] = ()
    """Names of the categories to detect, in the order of their labels, or a text file with one on each line; () for all
    that the annotation file lists, by their ids. Objects of other categories are left out and counted."""
    exif: Exif = "apply"
    """What to do with a photo's EXIF orientation: "apply" turns the photo upright, as Detectron2 does and as labelling
    tools show it, "ignore" reads the pixels as they are stored, "stop" refuses it. Annotated sizes that contradict are
    refused before the training."""
    short_sides: tuple[Count, ...] = (640, 672, 704, 736, 768, 800)
    """Lengths in pixels of which one is drawn for the short side of a training image."""
    max_side: Count = 1333
    """Longest side in pixels, in training and evaluation; a longer one is made this long, the other to match."""
    square: Natural = 0
    """Side in pixels of a square that every image is padded to (a multiple of 32, at least max_side). Networks with
    fixed positions (ViTs) need one; 0 pads a batch to its largest image."""
    flip: Share = 0.5
    """Probability of a horizontal flip in training."""
    group_size: Count = 2
    """Images that stand side by side in a batch are all wide or all high, in groups of this many, so that less is
    padding (the published 2 images of a GPU); 1 for no groups."""
    evaluation_batch_size: Count = 1
    """Images per evaluation batch on one rank. Detectron2 tests with 1: the images of a larger batch are padded to one
    size, and a detection changes a little with the padding."""
    num_val: Natural = 0
    """How many validation images are evaluated, the first by file name; 0 for all."""

    @property
    def one_file(self) -> bool:
        """Whether training and validation images come from one annotation file."""
        return bool(self.val_share or self.val_list)

    def annotations(self, split: SplitName) -> Path:
        """The COCO file of a split."""
        return Path(self.root) / (self.train_annotations if split == "train" or self.one_file else self.val_annotations)

    def images(self, split: SplitName) -> Path:
        """The folder of a split's images."""
        return Path(self.root) / (self.train_images if split == "train" or self.one_file else self.val_images)

    def problems(self) -> list[str]:
        """What cannot be run as given."""
        found = super().problems()
        if not self.short_sides or max(self.short_sides) > self.max_side:
            found.append(f"short_sides is {self.short_sides}; allowed: lengths up to max_side {self.max_side}")
        if self.val_share and self.val_list:
            found.append(f"val_share is {self.val_share} beside val_list {self.val_list!r}: leave one of the two out")
        if self.square and (self.square % PADDED_TO or self.square < self.max_side):
            found.append(
                f"square is {self.square}; allowed: a multiple of {PADDED_TO} of at least max_side {self.max_side}, "
                "or 0 for no square"
            )
        return found


@dataclass(frozen=True, kw_only=True)
class HeadsConfig:
    """What stands on the encoder. RetinaNet takes the pyramid and the last two fields only."""

    pyramid_channels: Count = 256
    """Width of the feature pyramid."""
    pyramid_norm: NormName = "bn"
    """Norm after the pyramid's convolutions; "bn" is synchronised over GPUs."""
    rpn_convs: Count = 1
    """3x3 convolutions of the region proposal network."""
    rpn_pre_nms: tuple[Count, Count] = (2000, 1000)
    """Proposals of each pyramid level before non-maximum suppression, in training and in evaluation."""
    rpn_post_nms: tuple[Count, Count] = (1000, 1000)
    """Proposals of an image after non-maximum suppression, in training and in evaluation."""
    anchors_per_image: Count = 256
    """Anchors that the proposal network's loss samples, at most half of them on objects."""
    rois_per_image: Count = 512
    """Proposals that the heads' loss samples, at most a quarter of them on objects."""
    box_convs: Natural = 0
    """3x3 convolutions of the box head."""
    box_fcs: Count = 2
    """Linear layers of the box head, after the convolutions."""
    box_features: Count = 1024
    """Width of the box head's linear layers."""
    mask_convs: Natural = 4
    """3x3 convolutions of the mask head."""
    mask_channels: Count = 256
    """Width of the box and mask heads' convolutions."""
    norm: NormName = "none"
    """Norm after the box and mask heads' convolutions."""
    box_loss: Literal["l1", "giou"] = "l1"
    """Regression loss of the box head: the framework's own (L1, or torchvision's smooth L1), or 10 times GIoU."""
    score_threshold: PartialShare = 0.05
    """Detections below this score are not reported."""
    detections_per_image: Count = 100
    """How many detections of an image are reported at most."""


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig(FineTuningOptimizer):
    """Optimizer, learning rate and weight decay."""

    name: OptimizerName = "sgd"
    base_learning_rate: Positive = 0.02
    base_batch: Count = 16
    """Batch size for which base_learning_rate, iterations and the schedule are given."""
    weight_decay: NotNegative = 1e-4
    """Of everything but norms, layer scales, position embeddings and tables, and class tokens. Biases decay."""


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig(IterationSchedule):
    """The learning rate over the iterations, counted in steps of optimizer.base_batch images."""

    kind: ScheduleKind = "step"
    milestones: Milestones = (60_000, 80_000)
    warmup_iterations: Natural = 1000
    """Iterations of linear rise to the full rate."""
    warmup_start: Share = 0.001


@dataclass(frozen=True, kw_only=True)
class DetectionConfig(IterationRun):
    """One detection run: a recipe returns one, `train` runs it, config.json stores it."""

    detector: DetectorName = "mask-rcnn-fpn"
    """ "mask-rcnn-fpn" and "retinanet-fpn" stand on a feature pyramid (for ViTs a simple one made of the last map),
    "mask-rcnn-c4" on the map of stride 16, with the encoder's last stage and an extra norm as its head."""
    framework: FrameworkName = "detectron2"
    """Whose detector, samples and losses: "detectron2", or "torchvision", which needs no further installation."""
    iterations: Count = 90_000
    """Optimizer steps of optimizer.base_batch images; with another batch_size, proportionally more or fewer."""
    batch_size: Count = 16
    image_size: Count = 800
    """Short side of an evaluation image in pixels, unless its long side would be above data.max_side."""
    compile: bool = False
    """Whether to run the encoder through torch.compile (what stands on it works on lists of changing length)."""
    freeze: Literal["none", "all"] = "none"
    """"all" trains what stands on the encoder and nothing of it: no gradients, batch norm with the statistics of the
    pre-training, no stochastic depth. What the pre-trained features are worth as they are; not for C4, whose head is
    the encoder's last stage."""
    precise_bn: Natural = 200
    """Training batches over which BatchNorm statistics are averaged anew before an evaluation; 0 for running ones."""
    num_panels: Natural = 4
    """Validation images whose boxes and masks are drawn at the end."""
    data: DataConfig = field(default_factory=DataConfig)
    heads: HeadsConfig = field(default_factory=HeadsConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)

    @property
    def has_masks(self) -> bool:
        """Whether the detector predicts masks beside boxes."""
        return self.detector != "retinanet-fpn"

    def steps(self, iterations: float, steps_per_epoch: int = 0) -> int:
        """Optimizer steps that show as many images as `iterations` of optimizer.base_batch (linear rule)."""
        return max(1, round(iterations * self.optimizer.base_batch / self.batch_size)) if iterations else 0

    @property
    def build_size(self) -> int:
        """Side in pixels that networks with fixed positions are built for."""
        return self.data.square or self.image_size

    def problems(self) -> list[str]:
        """What cannot be run as given, apart from what the groups say themselves."""
        found = super().problems()
        if self.freeze == "all" and self.detector == "mask-rcnn-c4":
            found.append(
                'freeze is "all" with a C4 detector, whose head is the encoder\'s last stage: use one with FPN'
            )
        if self.image_size > self.data.max_side:
            found.append(f"image_size is {self.image_size}; allowed: up to data.max_side {self.data.max_side}")
        group = self.data.group_size
        if group >= 1 and self.batch_size % group:
            found.append(f"data.group_size is {group}; allowed: a divisor of batch_size {self.batch_size}")
        return found + self._framework_problems()

    def _framework_problems(self) -> list[str]:
        if self.framework == "torchvision":
            found = []
            if self.detector == "mask-rcnn-c4":
                found.append('framework "torchvision" has no C4 detector: use detectron2, or a recipe with FPN')
            if self.heads.box_loss == "giou":
                found.append('heads.box_loss is giou; allowed in framework "torchvision": l1 (--heads.box-loss l1)')
            return found
        if detectron2_is_installed():
            return []
        return [
            "framework: Detectron2 is not installed. Install it as its own page says (tested: commit "
            f"{DETECTRON2_COMMIT}; pip needs --no-build-isolation, for its setup imports torch), with this project's "
            f"extra [detection]: {DETECTRON2_INSTALL} ; "
            "or train the same recipe in torchvision: --framework torchvision"
        ]
