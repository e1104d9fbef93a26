"""The complete configuration of one detection run, with the allowed range of every field."""

import importlib.util
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from engine.data.options import Exif, ImageOptions

Precision = Literal["float32", "tf32", "bfloat16", "float16"]
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
class DataConfig(ImageOptions):
    """Where the images are, how they are read, and how large they are made."""

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
    val_share: float = 0.0
    """Share of the images of train_annotations that is kept for validation, for data that come in one file: always the
    same ones. 0 for a file of their own."""
    val_list: str = ""
    """A text file with the names of the images of train_annotations that are kept for validation, one on each line."""
    classes: tuple[str, ...] = ()
    """Names of the categories to detect, in the order of their labels, or a text file with one on each line; () for all
    that the annotation file lists, by their ids. Objects of other categories are left out and counted."""
    num_workers: int = 8
    """Reader processes per rank; 0 reads in the training process."""
    exif: Exif = "apply"
    """What to do with a photo's EXIF orientation: "apply" turns the photo upright, as Detectron2 does and as labelling
    tools show it, "ignore" reads the pixels as they are stored, "stop" refuses it. Annotated sizes that contradict are
    refused before the training."""
    short_sides: tuple[int, ...] = (640, 672, 704, 736, 768, 800)
    """Lengths in pixels of which one is drawn for the short side of a training image."""
    max_side: int = 1333
    """Longest side in pixels, in training and evaluation; a longer one is made this long, the other to match."""
    square: int = 0
    """Side in pixels of a square that every image is padded to (a multiple of 32, at least max_side). Networks with
    fixed positions (ViTs) need one; 0 pads a batch to its largest image."""
    flip: float = 0.5
    """Probability of a horizontal flip in training."""
    group_size: int = 2
    """Images that stand side by side in a batch are all wide or all high, in groups of this many, so that less is
    padding (the published 2 images of a GPU); 1 for no groups."""
    evaluation_batch_size: int = 1
    """Images per evaluation batch on one rank. Detectron2 tests with 1: the images of a larger batch are padded to one
    size, and a detection changes a little with the padding."""
    num_val: int = 0
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
        found = [] if self.root else ["root: not given: the folder that holds annotations/ (--data.root DIR)"]
        found += _at_least(self, {"num_workers": 0, "group_size": 1, "evaluation_batch_size": 1, "num_val": 0})
        if not self.short_sides or min(self.short_sides) < 1 or max(self.short_sides) > self.max_side:
            found.append(f"short_sides: {self.short_sides} are not lengths of 1 to max_side {self.max_side}")
        if not 0 <= self.val_share < 1 or (self.val_share and self.val_list):
            found.append(f"val_share: {self.val_share} is outside [0, 1), or given beside val_list {self.val_list!r}")
        if not 0 <= self.flip <= 1:
            found.append(f"flip: {self.flip} is outside [0, 1]")
        if self.square and (self.square % PADDED_TO or self.square < self.max_side):
            found.append(
                f"square: {self.square} is not a multiple of {PADDED_TO} of at least max_side {self.max_side} "
                "(0 for no square)"
            )
        return found + self.image_problems()


@dataclass(frozen=True, kw_only=True)
class HeadsConfig:
    """What stands on the encoder. RetinaNet takes the pyramid and the last two fields only."""

    pyramid_channels: int = 256
    """Width of the feature pyramid."""
    pyramid_norm: NormName = "bn"
    """Norm after the pyramid's convolutions; "bn" is synchronised over GPUs."""
    rpn_convs: int = 1
    """3x3 convolutions of the region proposal network."""
    rpn_pre_nms: tuple[int, int] = (2000, 1000)
    """Proposals of each pyramid level before non-maximum suppression, in training and in evaluation."""
    rpn_post_nms: tuple[int, int] = (1000, 1000)
    """Proposals of an image after non-maximum suppression, in training and in evaluation."""
    anchors_per_image: int = 256
    """Anchors that the proposal network's loss samples, at most half of them on objects."""
    rois_per_image: int = 512
    """Proposals that the heads' loss samples, at most a quarter of them on objects."""
    box_convs: int = 0
    """3x3 convolutions of the box head."""
    box_fcs: int = 2
    """Linear layers of the box head, after the convolutions."""
    box_features: int = 1024
    """Width of the box head's linear layers."""
    mask_convs: int = 4
    """3x3 convolutions of the mask head."""
    mask_channels: int = 256
    """Width of the box and mask heads' convolutions."""
    norm: NormName = "none"
    """Norm after the box and mask heads' convolutions."""
    box_loss: Literal["l1", "giou"] = "l1"
    """Regression loss of the box head: the framework's own (L1, or torchvision's smooth L1), or 10 times GIoU."""
    score_threshold: float = 0.05
    """Detections below this score are not reported."""
    detections_per_image: int = 100
    """How many detections of an image are reported at most."""

    def problems(self) -> list[str]:
        """What cannot be run as given."""
        names = ("pyramid_channels", "rpn_convs", "anchors_per_image", "rois_per_image", "box_fcs", "box_features")
        found = _at_least(self, dict.fromkeys((*names, "mask_channels", "detections_per_image"), 1))
        found += _at_least(self, {"box_convs": 0, "mask_convs": 0})
        for name in ("rpn_pre_nms", "rpn_post_nms"):
            if min(getattr(self, name)) < 1:
                found.append(f"{name}: {getattr(self, name)} are not both at least 1")
        if not 0 <= self.score_threshold < 1:
            found.append(f"score_threshold: {self.score_threshold} is outside [0, 1)")
        return found


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """Optimizer, learning rate and weight decay."""

    name: Literal["sgd", "adamw"] = "sgd"
    """sgd: with momentum."""
    base_learning_rate: float = 0.02
    """At base_batch images per step; proportional to the batch size otherwise."""
    base_batch: int = 16
    """Batch size for which base_learning_rate, iterations and the schedule are given."""
    weight_decay: float = 1e-4
    """Of everything but norms, layer scales, position embeddings and tables, and class tokens. Biases decay."""
    momentum: float = 0.9
    """Of sgd."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Averaging factors of adamw."""
    layer_decay: float = 1.0
    """Learning rate of an encoder layer relative to the next one's, in (0, 1]; 1 for the same rate everywhere."""
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
    """The learning rate over the iterations, counted in steps of optimizer.base_batch images."""

    kind: Literal["step", "cosine"] = "step"
    """ "step" multiplies the rate by step_factor at every milestone, "cosine" lets it fall to zero."""
    milestones: tuple[int, ...] = (60_000, 80_000)
    """Iterations of "step"."""
    step_factor: float = 0.1
    """Of each milestone."""
    warmup_iterations: int = 1000
    """Iterations of linear rise to the full rate."""
    warmup_start: float = 0.001
    """The first learning rate relative to the full one."""

    def problems(self) -> list[str]:
        """What cannot be run as given."""
        found = _at_least(self, {"warmup_iterations": 0})
        if (self.kind == "step") != bool(self.milestones):
            found.append(f'milestones: {self.milestones} with kind "{self.kind}": "step" needs some, "cosine" none')
        if list(self.milestones) != sorted(set(self.milestones)) or any(m < 1 for m in self.milestones):
            found.append(f"milestones: {self.milestones} are not rising iterations of 1 or more")
        for name in ("step_factor", "warmup_start"):
            if not 0 <= getattr(self, name) <= 1:
                found.append(f"{name}: {getattr(self, name)} is outside [0, 1]")
        return found


@dataclass(frozen=True, kw_only=True)
class DetectionConfig:
    """One detection run: a recipe returns one, `train` runs it, config.json stores it."""

    model: str
    """A published name (r50, vit_b, convnext_s, ...) or any timm model."""
    init: str = ""
    """Where the encoder starts: a weight file, the folder of a pre-training run, or "none" for from scratch."""
    detector: DetectorName = "mask-rcnn-fpn"
    """ "mask-rcnn-fpn" and "retinanet-fpn" stand on a feature pyramid (for ViTs a simple one made of the last map),
    "mask-rcnn-c4" on the map of stride 16, with the encoder's last stage and an extra norm as its head."""
    framework: FrameworkName = "detectron2"
    """Whose detector, samples and losses: "detectron2", or "torchvision", which needs no further installation."""
    iterations: int = 90_000
    """Optimizer steps of optimizer.base_batch images; with another batch_size, proportionally more or fewer."""
    batch_size: int = 16
    """Images per optimizer step over all ranks and accumulation steps."""
    image_size: int = 800
    """Short side of an evaluation image in pixels, unless its long side would be above data.max_side."""
    seed: int = 0
    """Everything random in the run is a function of it."""
    precision: Precision = "bfloat16"
    """Of the forward pass; weights, predictions and losses are float32."""
    compile: bool = False
    """Whether to run the encoder through torch.compile (what stands on it works on lists of changing length)."""
    checkpoint_every: int = 2500
    """Steps between checkpoints."""
    log_every: int = 20
    """Steps between lines of training metrics."""
    deterministic: bool = False
    """Whether a GPU may use only algorithms that repeat exactly, where there are any."""
    evaluate_every: int = 0
    """Steps between evaluations; 0 evaluates at the end only."""
    drop_path: float = 0.0
    """Largest stochastic-depth rate of the encoder, reached in its last block (Huang et al. 2016)."""
    freeze: Literal["none", "all"] = "none"
    """"all" trains what stands on the encoder and nothing of it: no gradients, batch norm with the statistics of the
    pre-training, no stochastic depth. What the pre-trained features are worth as they are; not for C4, whose head is
    the encoder's last stage."""
    accumulation: int = 1
    """Forward-backward passes per optimizer step: a smaller memory footprint at the same global batch."""
    precise_bn: int = 200
    """Training batches over which BatchNorm statistics are averaged anew before an evaluation; 0 for running ones."""
    num_panels: int = 4
    """Validation images whose boxes and masks are drawn at the end."""
    data: DataConfig = field(default_factory=DataConfig)
    heads: HeadsConfig = field(default_factory=HeadsConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)

    @property
    def has_masks(self) -> bool:
        """Whether the detector predicts masks beside boxes."""
        return self.detector != "retinanet-fpn"

    @property
    def learning_rate(self) -> float:
        """The absolute full learning rate (linear rule)."""
        return self.optimizer.base_learning_rate * self.batch_size / self.optimizer.base_batch

    def steps(self, iterations: int) -> int:
        """Optimizer steps that show as many images as `iterations` of optimizer.base_batch (linear rule)."""
        return max(1, round(iterations * self.optimizer.base_batch / self.batch_size)) if iterations else 0

    @property
    def build_size(self) -> int:
        """Side in pixels that networks with fixed positions are built for."""
        return self.data.square or self.image_size

    def problems(self) -> list[str]:
        """What cannot be run as given, apart from what the groups say themselves."""
        names = ("iterations", "batch_size", "image_size", "accumulation", "checkpoint_every", "log_every")
        found = _at_least(self, {**dict.fromkeys(names, 1), "seed": 0, "evaluate_every": 0, "precise_bn": 0})
        found += _at_least(self, {"num_panels": 0})
        if not self.init:
            found.append(
                'init: not given: a weight file, the folder of a pre-training run, or "none" to train from scratch'
            )
        if not 0 <= self.drop_path < 1:
            found.append(f"drop_path: {self.drop_path} is outside [0, 1)")
        if self.freeze == "all" and self.detector == "mask-rcnn-c4":
            found.append('freeze: "all" with a C4 detector, whose head is the encoder\'s last stage: use one with FPN')
        if self.image_size > self.data.max_side:
            found.append(f"image_size: {self.image_size} is above data.max_side {self.data.max_side}")
        return found + self._batch_problems() + self._schedule_problems() + self._framework_problems()

    def _batch_problems(self) -> list[str]:
        if self.batch_size < 1:
            return []
        sizes = {"accumulation": self.accumulation, "data.group_size": self.data.group_size}
        return [
            f"batch_size: {self.batch_size} is not a multiple of {name}, {size}"
            for name, size in sizes.items()
            if size > 0 and self.batch_size % size
        ]

    def _schedule_problems(self) -> list[str]:
        schedule = self.schedule
        steps = [*schedule.milestones, schedule.warmup_iterations]
        if all(step < self.iterations for step in steps):
            return []
        return [
            f"iterations: {self.iterations} end before the milestones {schedule.milestones} or the warm-up of "
            f"{schedule.warmup_iterations} do (--schedule.milestones, --schedule.warmup-iterations)"
        ]

    def _framework_problems(self) -> list[str]:
        if self.framework == "torchvision":
            found = []
            if self.detector == "mask-rcnn-c4":
                found.append('framework: "torchvision" has no C4 detector: use detectron2, or a recipe with FPN')
            if self.heads.box_loss == "giou":
                found.append('heads.box_loss: "giou" needs framework "detectron2"; torchvision has --heads.box-loss l1')
            return found
        if detectron2_is_installed():
            return []
        return [
            "framework: Detectron2 is not installed. Install it as its own page says (tested: commit "
            f"{DETECTRON2_COMMIT}; pip needs --no-build-isolation, for its setup imports torch), with this project's "
            f"extra [detection]: {DETECTRON2_INSTALL} ; "
            "or train the same recipe in torchvision: --framework torchvision"
        ]


def _at_least(group: object, smallest: dict[str, int]) -> list[str]:
    values = ((name, getattr(group, name), least) for name, least in smallest.items())
    return [f"{name}: {value} is below {least}, the smallest allowed" for name, value, least in values if value < least]
