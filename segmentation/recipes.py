"""Complete configurations by name: the published ADE20K protocols, for any initialisation of any of our encoders.

Every recipe is the same for every initialisation, so a pre-trained network and its from-scratch control get the same
budget. Common to all: 150 classes, label 0 ignored, batch 16, image short side 512 (up to 2048 long) times 0.5 to 2,
crop 512 with at most 75 % of one class, flip, colour distortion; the auxiliary FCN head (256 channels, loss weight 0.4)
on the third map, its input channels taken from the encoder; single-scale evaluation every 16,000 iterations. Add
`--evaluation.multi-scale` for six scales with flips. `--image-size 640` gives the published 640 variant of all this
(short side 640, long side up to 2560, windows of 640 every 426 pixels).

Sources: A2MIM = seg_mmsegmentation of Westlake-AI/A2MIM at ccca6dc, as in configs/benchmarks/mmsegmentation of
OpenMixup (MMSegmentation 0.x); MMSegmentation = configs of 1.2.2, whose model, losses and gradients ours equal with the
same encoder inside (tests/segmentation/test_reference.py). A2MIM's paper gives 38.3 mIoU for ResNet-50 and 49.0 for
ViT-B and no other number; its files are silent or broken in places, and each recipe says what it does there:

- It names no UPerNet file for ResNet, ConvNeXt or Swin, only model parts left at 19 classes: MMSegmentation's complete
  files for the same networks are followed, with 150 classes.
- Its ResNets are ResNetV1c, whose stem of three 3x3 convolutions cannot take the 7x7 stem that A2MIM pre-trains. Ours
  keep the 7x7 stem, so all weights load, and score a little below V1c's published references.
- Its ConvNeXt-B auxiliary head expects 384 channels where the network has 512.
- Published normalisation layers are synchronised over GPUs; so are ours wherever there are several.
- Published half precision is float16 here and there; ours is bfloat16 with float32 losses throughout.

"Reference" numbers are mIoU, single-scale / multi-scale, of MMSegmentation's supervised ImageNet-1K initialisation, one
run. Cost: the published runs took 4 V100 (ResNet) or 8 V100 (others); hours were not published.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from backbones import family
from engine.deviations import FLOAT16, FLOAT32, follows, with_deviations
from segmentation.config import (
    AugmentConfig,
    DataConfig,
    EvaluationConfig,
    HeadConfig,
    OptimizerConfig,
    ScheduleConfig,
    SegmentationConfig,
)

_WARM = ScheduleConfig(power=1.0, warmup_iterations=1500, warmup_start=1e-6, min_rate=0.0)
_CONVNEXT_DROP_PATH = {"convnext_t": 0.4, "convnext_s": 0.3, "convnext_b": 0.4}
_VIT_WIDTH = {"vit_s": 768, "vit_b": 768, "vit_l": 1024, "deit_s": 384}

# What the files behind the recipes hold where ours may differ.
_STEM = "encoder: ResNet with the 7x7 stem that gets pre-trained, there ResNetV1c with three 3x3 convolutions"
_ORDER = "order of images: whole epochs, each image once, there an endless draw of permutations on each process"
_NO_STAGE_NORM = "encoder: its four maps as they are, there each behind a LayerNorm of its own"
_SHAPE = "encoder: the pre-trained network's own positions, there BEiT's of MMSegmentation"
_SINGLE = "evaluation: one scale unless --evaluation.multi-scale, there six with flips"


@follows("MMSegmentation upernet_r50_4xb4-160k", FLOAT32, _STEM, _ORDER)
@follows("MMSegmentation convnext-tiny_upernet_8xb2-amp-160k", FLOAT16, _NO_STAGE_NORM, _ORDER, model="convnext_t")
@follows("A2MIM upernet_beit_base_8x2_512x512_160k", FLOAT32, _SHAPE, _ORDER, model="vit_b")
@follows(
    "MMSegmentation swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k",
    FLOAT32,
    _NO_STAGE_NORM,
    _ORDER,
    model="swin_t",
)
def upernet_160k(model: str = "r50") -> SegmentationConfig:
    """UPerNet (Xiao et al. 2018), 160,000 iterations; the optimizer follows the family of the encoder.

    ResNet (r50, r101, ...): SGD 0.01, weight decay 5e-4, polynomial 0.9 down to 1e-4 (MMSegmentation's
    upernet_r50_4xb4-160k; A2MIM's base schedule has the same). Reference R50 42.1 / 42.8, R101 43.8 / 44.9.

    ConvNeXt-T/S/B: AdamW 1e-4, weight decay 0.05, stage-wise decay 0.9 over 6 (T) or 12 (S, B) layers, drop path 0.4 /
    0.3 / 0.4, windows (MMSegmentation's convnext files). A2MIM's base has drop path 0.4 and evaluates whole images.
    Reference T 46.1 / 46.6, S 48.6 / 49.0, B 48.7 / 49.5; 640 pixels after ImageNet-21K B 52.1 / 52.7.

    ViT-S/B/L, DeiT-S: AdamW 4e-4, weight decay 0.05, layer decay 0.65, drop path 0.1, decoder as wide as the encoder,
    pyramid by Feature2Pyramid, windows (A2MIM's upernet_beit_base_8x2_512x512). A2MIM also has MAE's file, which
    differs in the rate, 1e-4; BEiT's is followed because the pre-trained encoders are of BEiT's kind (relative
    positions, layer scale). Which one gave 49.0 for A2MIM's ViT-B is not stated. Its 640 file (3e-5, layer decay 0.9)
    is for weights already fine-tuned on ImageNet-22K: --image-size 640 --optimizer.base-learning-rate 3e-5
    --optimizer.layer-decay 0.9. Nothing is published for ViT-L without ImageNet-22K: here drop path 0.2 (BEiT-L's) and
    layer decay 0.8, by which the first of 24 blocks learns about as fast as the first of ViT-B's 12.

    Swin-T/B: AdamW 6e-5, weight decay 0.01 except on norms and position tables, drop path 0.3, whole images
    (MMSegmentation's swin files, A2MIM's base). Reference T 44.4 / 45.8, B 48.0 / 49.6.

    Every other timm network gets ResNet's. ViT-B/MAE's reference is 48.1 / 48.7, BEiT-B at 640 after ImageNet-22K
    53.1 / 53.8.
    """
    return {"vit": _vit, "swin": _swin, "convnext": _convnext}.get(family(model), _resnet)(model)


@follows("MMSegmentation upernet_r50_4xb4-80k", FLOAT32, _STEM, _ORDER)
def upernet_80k(model: str = "r50") -> SegmentationConfig:
    """As upernet-160k in half the iterations, evaluated every 8,000.

    Source: MMSegmentation's schedule_80k; A2MIM has the schedule but no file that uses it. Reference R50 40.7 / 41.8,
    R101 42.9 / 44.0.
    """
    return replace(upernet_160k(model), iterations=80_000, evaluate_every=8_000)


@follows("A2MIM fcn_r50_d8_4x4_512x512_160k", FLOAT16, _STEM, _ORDER)
def fcn_160k(model: str = "r50") -> SegmentationConfig:
    """FCN (Long et al. 2015) on a dilated ResNet, "D8": strides 1, 2, 1, 1, dilations 1, 1, 2, 4; 160,000 iterations.

    Source: A2MIM's fcn_r50_d8_4x4_512x512_160k_ade20k: SGD 0.01, weight decay 5e-4, polynomial 0.9 down to 1e-4, head
    of two convolutions of 512 channels with its input concatenated. It is A2MIM's only complete file for a ResNet, and
    38.3, its number for R50, is near this head's reference and far from UPerNet's; but the paper does not say.
    Reference R50 36.1 / 38.1, R101 39.9 / 41.4.
    """
    return replace(_resnet(model), output_stride=8, head=HeadConfig(kind="fcn"))


@follows("DINOv2's linear head, as its paper tells it", {}, _ORDER)
def linear_40k(model: str = "vit_b") -> SegmentationConfig:
    """A linear head on the last map of a frozen encoder, 40,000 iterations: what its features know of places.

    Source: DINOv2's "linear" (Oquab et al. 2023): batch norm and a 1x1 convolution on the last map after the final
    norm, AdamW 1e-3, weight decay 1e-4, 1,500 iterations of warm-up, then linearly to 0; windows of 512 every 341
    pixels. The encoder is in evaluation mode, without gradients. For networks with stages nothing is published: the
    last map has stride 32 there, so compare them with each other, and see linear-four-40k.
    Reference mIoU: 47.7, DINOv2's ViT-L/14; of a CNN none is known. Cost: unknown; no backward pass through the
    encoder.
    """
    return SegmentationConfig(
        model=model,
        iterations=40_000,
        batch_size=16,
        freeze="all",
        evaluate_every=10_000,
        head=HeadConfig(kind="linear", aux_channels=0, dropout=0.0),
        optimizer=OptimizerConfig(name="adamw", base_learning_rate=1e-3, weight_decay=1e-4),
        schedule=_WARM,
        evaluation=EvaluationConfig(mode="slide"),
    )


@follows("DINOv2's linear head +ms, as its paper tells it", {}, _SINGLE, _ORDER)
def linear_four_40k(model: str = "vit_b") -> SegmentationConfig:
    """As linear-40k on four maps, concatenated: of a ViT its last four blocks, of a network with stages their ends.

    Source: DINOv2's "+ms", which adds scales and flips in evaluation (--evaluation.multi-scale). The maps of stages are
    brought to stride 8, which no source says. Reference: none at hand.
    """
    base = linear_40k(model)
    return replace(base, head=replace(base.head, maps="four"))


def _resnet(model: str) -> SegmentationConfig:
    return SegmentationConfig(model=model, iterations=160_000, batch_size=16)


def _convnext(model: str) -> SegmentationConfig:
    layers = 6 if model in ("convnext_t", "convnext_tiny") else 12
    return SegmentationConfig(
        model=model,
        iterations=160_000,
        batch_size=16,
        drop_path=_CONVNEXT_DROP_PATH.get(model, 0.4),
        optimizer=OptimizerConfig(
            name="adamw",
            base_learning_rate=1e-4,
            weight_decay=0.05,
            no_decay="one_dimensional",
            layer_decay=0.9,
            stage_layers=layers,
        ),
        schedule=_WARM,
        evaluation=EvaluationConfig(mode="slide"),
    )


def _vit(model: str) -> SegmentationConfig:
    large = model.startswith("vit_l")
    return SegmentationConfig(
        model=model,
        iterations=160_000,
        batch_size=16,
        drop_path=0.2 if large else 0.1,
        head=HeadConfig(channels=_VIT_WIDTH.get(model, 768)),
        optimizer=OptimizerConfig(
            name="adamw",
            base_learning_rate=4e-4,
            weight_decay=0.05,
            no_decay="one_dimensional",
            layer_decay=0.8 if large else 0.65,
        ),
        schedule=_WARM,
        evaluation=EvaluationConfig(mode="slide"),
    )


def _swin(model: str) -> SegmentationConfig:
    return SegmentationConfig(
        model=model,
        iterations=160_000,
        batch_size=16,
        drop_path=0.3,
        optimizer=OptimizerConfig(name="adamw", base_learning_rate=6e-5, weight_decay=0.01, no_decay="norms"),
        schedule=_WARM,
    )


def demo(model: str = "r50") -> SegmentationConfig:
    """A small UPerNet at 96 pixels for the generated scenes, small enough for two CPU cores: shows that everything
    works, measures nothing.

    Source: none. Expected: mIoU several times that of predicting the most frequent class everywhere, which the run
    records as constant_mIoU. Cost: 120 CPU-seconds for R50 (bfloat16 on a CPU with AMX), less than a minute
    and a half on two cores.
    """
    mode: Literal["whole", "slide"] = "slide" if family(model) == "vit" else "whole"
    return SegmentationConfig(
        model=model,
        iterations=140,
        batch_size=8,
        image_size=96,
        checkpoint_every=200,
        log_every=10,
        evaluate_every=200,
        data=DataConfig(num_workers=1, evaluation_batch_size=20),
        augment=AugmentConfig(resize_ratio=(0.75, 1.5), photometric=False),
        head=HeadConfig(channels=128, aux_channels=0),
        optimizer=OptimizerConfig(
            name="adamw",
            base_learning_rate=1e-3,
            base_batch=8,
            weight_decay=0.05,
            no_decay="one_dimensional",
            clip_grad=5.0,
        ),
        schedule=ScheduleConfig(power=1.0, warmup_iterations=20, warmup_start=0.01, min_rate=0.0),
        evaluation=EvaluationConfig(mode=mode),
    )


def own(model: str = "r50") -> SegmentationConfig:
    """Images and label maps of your own, from a pre-trained encoder: UPerNet, AdamW, 4,000 iterations of 8 images.

    `--data.root DIR --data.classes road,car,tree` say what there is (`python -m segmentation.check DIR` says which
    labels the maps hold), `--init RUN_DIR|FILE` where the encoder comes from; label 255 does not count. Without train/
    and val/ a fifth of the images is for validation. Large images need `--image-size 768` or more where small things
    count, small ones their own size; a few hundred images need no more iterations than 4,000.
    Source: none; ViTs with BEiT's layer decay. Expected: depends on the data. Cost: an eightieth of upernet-160k.
    """
    token_model = family(model) == "vit"
    return SegmentationConfig(
        model=model,
        iterations=4000,
        batch_size=8,
        checkpoint_every=500,
        log_every=20,
        evaluate_every=500,
        drop_path=0.1 if token_model else 0.0,
        data=DataConfig(ignore_label=(255,), val_share=0.2),
        head=HeadConfig(channels=256),
        optimizer=OptimizerConfig(
            name="adamw",
            base_learning_rate=2e-4,
            weight_decay=0.05,
            no_decay="one_dimensional",
            layer_decay=0.65 if token_model else 1.0,
            clip_grad=5.0,
        ),
        schedule=ScheduleConfig(power=1.0, warmup_iterations=50, warmup_start=0.01, min_rate=0.0),
        evaluation=EvaluationConfig(mode="slide" if token_model else "whole"),
    )


def recipe_for(model: str) -> str:
    """The recipe of a model for the full benchmark: UPerNet, whose settings follow the model's family."""
    return "upernet-160k"


RECIPES: dict[str, Callable[..., SegmentationConfig]] = with_deviations(
    {
        "upernet-160k": upernet_160k,
        "upernet-80k": upernet_80k,
        "fcn-160k": fcn_160k,
        "linear-40k": linear_40k,
        "linear-four-40k": linear_four_40k,
        "own": own,
        "demo": demo,
    }
)
