"""The published COCO recipes, each a function that returns a complete configuration.

Sources, in short: "A2MIM" is the folder det_detectron2 of the A2MIM repository at ccca6dc with the base files that
OpenMixup keeps (the MoCo protocol: nothing frozen, SyncBN, an extra norm after res5); "SparK" its downstream_d2 at
5bf1fb1; "MMDetection" A2MIM's det_mmdetection; Detectron2 at 02b5c4e2. With the same weights, a ResNet's C4, FPN and
RetinaNet equal the models of its own configurations: losses, gradients, detections (tests/detection/test_reference.py).
Momentum 0.9, weight decay 1e-4 and warm-up (1000 iterations from 0.001) are Detectron2's defaults, where a source sets
none. Every recipe takes RGB images with ImageNet's mean and deviation, as timm's weights want, and any of our
backbones. Costs were never published; "unknown" stands where we have not measured one either.

The recipes ask for Detectron2. `--framework torchvision` trains the same values in torchvision's detectors, whose own
definitions differ: smooth L1 with beta 1/9 instead of L1, RoIAlign without the half-pixel shift and with 2 samples per
bin, RetinaNet's loss normalised per image instead of by a running mean. It has no C4 detector, and its smooth L1 is all
it has for the ViT recipe's GIoU (--heads.box-loss l1).
"""

from collections.abc import Callable
from dataclasses import replace

from backbones import family
from detection.config import (
    DataConfig,
    DetectionConfig,
    FrameworkName,
    HeadsConfig,
    OptimizerConfig,
    ScheduleConfig,
)
from engine.deviations import FLOAT32, follows, with_deviations

_SHORT_SIDES_480_TO_800 = tuple(range(480, 801, 32))
_SHORT_SIDES_480_TO_896 = tuple(range(480, 897, 32))

# What the files behind the recipes hold where ours may differ.
_DETECTRON2 = {**FLOAT32, "evaluate_every": 0}
_PADDING = "padding: every image of a forward pass to the largest of them, there the two images of a GPU"
_ORDER = "order of images: whole epochs, their left-over dropped, there an endless draw of permutations"
_CONTROL = (
    "control: the same file from scratch, there from MSRA's ImageNet weights, BGR without deviation, stride in the 1x1 "
    "convolutions"
)
_SAME = (_PADDING, _ORDER, _CONTROL)


@follows("A2MIM coco_R_50_C4_1x_moco", _DETECTRON2, *_SAME)
def mask_rcnn_c4_1x(model: str = "r50") -> DetectionConfig:
    """Mask R-CNN C4, 90,000 iterations: the encoder's last stage and an extra norm are the RoI head.

    Source: A2MIM's coco_R_50_C4 files, pre-trained variant (longest side 1200). Encoder: ResNets and ConvNeXts.
    Expected for R50: no published number for A2MIM at 1x. Cost: unknown.
    """
    return DetectionConfig(
        model=model,
        detector="mask-rcnn-c4",
        evaluate_every=15_000,
        data=DataConfig(max_side=1200),
        heads=HeadsConfig(rpn_pre_nms=(12_000, 6000), rpn_post_nms=(2000, 1000), mask_convs=0),
    )


@follows("A2MIM coco_R_50_C4_2x_moco", _DETECTRON2, *_SAME)
def mask_rcnn_c4_2x(model: str = "r50") -> DetectionConfig:
    """Mask R-CNN C4, 180,000 iterations: the protocol of A2MIM's COCO table for ResNets.

    Source: A2MIM's coco_R_50_C4_2x_moco. Expected for R50 after 300 epochs of A2MIM: 39.8 box AP and 34.9 mask AP. The
    entry says 2x but not C4 or FPN, and test-dev where the files evaluate val2017. Supervised R50 at 3x: 39.8 and 34.4
    (Detectron2's zoo). Cost: unknown.
    """
    return _twice_as_long(mask_rcnn_c4_1x(model))


@follows("A2MIM coco_R_50_FPN_1x_moco", _DETECTRON2, *_SAME)
def mask_rcnn_fpn_1x(model: str = "r50") -> DetectionConfig:
    """Mask R-CNN FPN, 90,000 iterations, norm in encoder and pyramid.

    Source: A2MIM's coco_R_50_FPN_1x with its pre-trained variant's RGB input. Expected for R50, MMSelfSup's model zoo
    under the MoCo protocol: SimCLR 38.7 / 34.9, MoCo v2 40.2 / 36.1, BYOL 40.9 / 36.8 box / mask AP. Cost: unknown.
    """
    return DetectionConfig(model=model, evaluate_every=15_000)


@follows("A2MIM coco_R_50_FPN_2x_moco", _DETECTRON2, *_SAME)
def mask_rcnn_fpn_2x(model: str = "r50") -> DetectionConfig:
    """Mask R-CNN FPN, 180,000 iterations. Source: A2MIM's coco_R_50_FPN_2x.

    Expected: no published number for A2MIM. Cost: unknown.
    """
    return _twice_as_long(mask_rcnn_fpn_1x(model))


@follows("A2MIM coco_R_50_RetinaNet_1x_moco", _DETECTRON2, *_SAME)
def retinanet_fpn_1x(model: str = "r50") -> DetectionConfig:
    """RetinaNet FPN, 90,000 iterations, learning rate 0.01; boxes only.

    Source: A2MIM's Base-RetinaNet and coco_R_50_RetinaNet_1x. Expected: no published number for A2MIM. Cost: unknown.
    """
    return DetectionConfig(
        model=model,
        detector="retinanet-fpn",
        evaluate_every=15_000,
        optimizer=OptimizerConfig(base_learning_rate=0.01),
    )


@follows("A2MIM coco_R_50_RetinaNet_2x_moco", _DETECTRON2, *_SAME)
def retinanet_fpn_2x(model: str = "r50") -> DetectionConfig:
    """RetinaNet FPN, 180,000 iterations. Source: as retinanet-fpn-1x, with the 2x milestones.

    Expected: no published number for A2MIM. Cost: unknown.
    """
    return _twice_as_long(retinanet_fpn_1x(model))


@follows(
    "A2MIM mask-rcnn_vit_base_giou_4conv1f_1x_coco (MMDetection)",
    {
        **FLOAT32,
        "data.max_side": 1333,
        "data.square": 0,
        "heads.pyramid_norm": "none",
        "heads.rpn_convs": 1,
        "heads.norm": "bn",
        "optimizer.layer_decay": 1.0,
    },
    "framework: Detectron2 (or torchvision), there MMDetection",
    "pyramid: of the last map (ViTDet's), there a pyramid over four maps of one size, which cannot be run",
    "encoder: the pre-trained network's own positions, there BEiT's without any",
    "augmentation: one resizing, there half of the images are also cropped and resized again",
    "weight decay: spares norms and embeddings, and not biases, as there by a misspelt key",
    _ORDER,
)
def mask_rcnn_vit_1x(model: str = "vit_b") -> DetectionConfig:
    """Mask R-CNN on a ViT with a simple feature pyramid (x4, x2, x1, x0.5 of the last map), 12 epochs, AdamW.

    Source: A2MIM's MMDetection file for ViT-B: AdamW 3e-4, weight decay 0.05, drop path 0.2, rate times 0.1 after
    epochs 9 and 11, warm-up 500 iterations, short sides 480 to 800, four convolutions and one linear layer in the box
    head, 10 x GIoU. It cannot be run as shipped: it feeds four maps of one size to a pyramid made for four sizes. So
    the pyramid, the LayerNorm in it and in the heads, the two convolutions of the proposal network and the layer decay
    (0.7, for ViT-L 0.8) are those of ViTDet (Li et al. 2022), with 12 epochs as 90,000 iterations. Fixed positions need
    one size of square: images are scaled to fit 1024 x 1024 (ViTDet's), where the file has 1333 x 800.
    Expected for ViT-B after A2MIM: 49.4 box AP, 43.5 mask AP (paper). Cost: unknown.
    """
    return DetectionConfig(
        model=model,
        evaluate_every=15_000,
        drop_path=0.2,
        precise_bn=0,
        data=DataConfig(short_sides=_SHORT_SIDES_480_TO_800, max_side=1024, square=1024),
        heads=HeadsConfig(pyramid_norm="ln", rpn_convs=2, box_convs=4, box_fcs=1, norm="ln", box_loss="giou"),
        optimizer=OptimizerConfig(
            name="adamw", base_learning_rate=3e-4, weight_decay=0.05, layer_decay=0.8 if model == "vit_l" else 0.7
        ),
        schedule=ScheduleConfig(milestones=(67_500, 82_500), warmup_iterations=500),
    )


@follows("SparK coco_R_50_FPN_CONV_1x_moco_adam", {**FLOAT32, "evaluate_every": 5000}, _PADDING, _ORDER)
def mask_rcnn_fpn_1x_spark(model: str = "r50") -> DetectionConfig:
    """Mask R-CNN FPN, 90,000 iterations, AdamW 2.5e-4 with layer decay 0.6: the protocol for modern CNNs.

    Source: SparK's coco_R_50_FPN_CONV_1x_moco_adam (norm in pyramid and heads, box head of four convolutions and one
    linear layer, short sides 480 to 896, rate times 0.25 at the milestones). Its layer decay counts the stem, stages
    one and two, every three blocks of stage three, and stage four. Also used here for Swin.
    Expected: no published number for A2MIM; SparK's page shows its own as a figure only. Cost: unknown.
    """
    return DetectionConfig(
        model=model,
        evaluate_every=15_000,
        data=DataConfig(short_sides=_SHORT_SIDES_480_TO_896),
        heads=HeadsConfig(box_convs=4, box_fcs=1, norm="bn"),
        optimizer=OptimizerConfig(name="adamw", base_learning_rate=2.5e-4, layer_decay=0.6),
        schedule=ScheduleConfig(step_factor=0.25, warmup_start=0.01),
    )


def own(model: str = "r50") -> DetectionConfig:
    """Mask R-CNN FPN on images and classes of one's own, 3,000 iterations of 8 images, AdamW, cosine, short sides about
    640: for some hundred to some ten thousand images, from a pre-trained encoder.

    Source: none. Where the files are and what they are called: --data.train-annotations, --data.train-images,
    --data.val-share (docs/own-detection.md). Runs in torchvision, which needs no further installation. Annotations with
    boxes alone: --detector retinanet-fpn. The heads have LayerNorm, so that small batches and several GPUs do as well.
    Expected: depends on the data. Cost: unknown.
    """
    isotropic = family(model) == "vit"
    return DetectionConfig(
        model=model,
        framework="torchvision",
        iterations=3000,
        batch_size=8,
        image_size=640,
        checkpoint_every=500,
        evaluate_every=500,
        precise_bn=0 if isotropic else 50,
        data=DataConfig(
            num_workers=4,
            short_sides=(512, 576, 640, 704, 768),
            max_side=1024,
            square=1024 if isotropic else 0,
        ),
        heads=HeadsConfig(pyramid_norm="ln", norm="ln", box_convs=4, box_fcs=1),
        optimizer=OptimizerConfig(
            name="adamw", base_learning_rate=2e-4, base_batch=8, weight_decay=0.05, layer_decay=0.8, clip_grad=5.0
        ),
        schedule=ScheduleConfig(kind="cosine", milestones=(), warmup_iterations=200, warmup_start=0.01),
    )


def demo(model: str = "r50") -> DetectionConfig:
    """A narrow Mask R-CNN FPN on images of 96 to 128 pixels, AdamW, 150 steps: shows that it learns, measures nothing.

    Source: none. For the generated scenes of `python -m benchmarks demo-data`; the first 100 validation images are
    evaluated. The heads have LayerNorm and the numbers of proposals are small, so that something is learnt in fewer
    than two passes over 800 images. Also runs in Detectron2 (--framework detectron2).
    Expected: R50 from scratch 7 box AP and 6 mask AP. In Detectron2 4 and 3, for its prediction layers start closer to
    zero, which 150 steps feel: with torchvision's initialisation of these layers it reaches 7 and 5, too.
    Cost: a minute and a half for R50 on two CPU cores.
    """
    return DetectionConfig(
        model=model,
        framework="torchvision",
        iterations=150,
        batch_size=8,
        image_size=96,
        checkpoint_every=75,
        precise_bn=0,
        data=DataConfig(num_workers=1, short_sides=(96,), max_side=128, square=128, num_val=100),
        heads=HeadsConfig(
            pyramid_channels=64,
            rpn_pre_nms=(200, 100),
            rpn_post_nms=(100, 50),
            anchors_per_image=64,
            rois_per_image=32,
            box_convs=1,
            box_fcs=1,
            box_features=256,
            mask_convs=2,
            mask_channels=64,
            norm="ln",
            detections_per_image=20,
        ),
        optimizer=OptimizerConfig(
            name="adamw", base_learning_rate=1e-3, base_batch=8, weight_decay=0.05, clip_grad=5.0
        ),
        schedule=ScheduleConfig(kind="cosine", milestones=(), warmup_iterations=10, warmup_start=0.1),
    )


def _twice_as_long(config: DetectionConfig) -> DetectionConfig:
    """The 2x schedule: 180,000 iterations, the rate falls at 120,000 and 160,000."""
    return replace(config, iterations=180_000, schedule=replace(config.schedule, milestones=(120_000, 160_000)))


def with_framework(config: DetectionConfig, framework: FrameworkName) -> DetectionConfig:
    """The same recipe in another library, without what it lacks: torchvision has its smooth L1 for 10 x GIoU."""
    box_loss = "l1" if framework == "torchvision" else config.heads.box_loss
    return replace(config, framework=framework, heads=replace(config.heads, box_loss=box_loss))


def recipe_for(model: str, framework: FrameworkName = "detectron2") -> str:
    """The recipe of a model's published COCO table: C4 2x for ResNets, the ViT protocol, SparK's for the others.

    torchvision has no C4 detector: there it is FPN 2x.
    """
    if family(model) == "vit":
        return "mask-rcnn-vit-1x"
    if model not in ("r50", "r101", "r152", "r200"):
        return "mask-rcnn-fpn-1x-spark"
    return "mask-rcnn-c4-2x" if framework == "detectron2" else "mask-rcnn-fpn-2x"


RECIPES: dict[str, Callable[..., DetectionConfig]] = with_deviations(
    {
        "mask-rcnn-c4-1x": mask_rcnn_c4_1x,
        "mask-rcnn-c4-2x": mask_rcnn_c4_2x,
        "mask-rcnn-fpn-1x": mask_rcnn_fpn_1x,
        "mask-rcnn-fpn-2x": mask_rcnn_fpn_2x,
        "retinanet-fpn-1x": retinanet_fpn_1x,
        "retinanet-fpn-2x": retinanet_fpn_2x,
        "mask-rcnn-vit-1x": mask_rcnn_vit_1x,
        "mask-rcnn-fpn-1x-spark": mask_rcnn_fpn_1x_spark,
        "own": own,
        "demo": demo,
    }
)
