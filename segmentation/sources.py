"""What the files behind each recipe hold where the recipe may differ: engine/deviations.py makes the list.

Read in MMSegmentation 1.2.2 and in seg_mmsegmentation of Westlake-AI/A2MIM at ccca6dc. With the same encoder inside,
model, losses and gradients equal those of MMSegmentation's own files (tests/segmentation/test_reference.py).
"""

from engine.deviations import Source, Sources

_FLOAT32, _FLOAT16 = {"precision": "float32"}, {"precision": "float16"}
_STEM = "encoder: ResNet with the 7x7 stem that gets pre-trained, there ResNetV1c with three 3x3 convolutions"
_ORDER = "order of images: whole epochs, each image once, there an endless draw of permutations on each process"
_NO_STAGE_NORM = "encoder: its four maps as they are, there each behind a LayerNorm of its own"
_SHAPE = "encoder: the pre-trained network's own positions, there BEiT's of MMSegmentation"
_SINGLE = "evaluation: one scale unless --evaluation.multi-scale, there six with flips"

SOURCES: Sources = {
    "upernet-160k": (
        Source(name="MMSegmentation upernet_r50_4xb4-160k", settings=_FLOAT32, other=(_STEM, _ORDER)),
        Source(
            name="MMSegmentation convnext-tiny_upernet_8xb2-amp-160k",
            settings=_FLOAT16,
            other=(_NO_STAGE_NORM, _ORDER),
            model="convnext_t",
        ),
        Source(
            name="A2MIM upernet_beit_base_8x2_512x512_160k",
            settings=_FLOAT32,
            other=(_SHAPE, _ORDER),
            model="vit_b",
        ),
        Source(
            name="MMSegmentation swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k",
            settings=_FLOAT32,
            other=(_NO_STAGE_NORM, _ORDER),
            model="swin_t",
        ),
    ),
    "upernet-80k": (Source(name="MMSegmentation upernet_r50_4xb4-80k", settings=_FLOAT32, other=(_STEM, _ORDER)),),
    "fcn-160k": (Source(name="A2MIM fcn_r50_d8_4x4_512x512_160k", settings=_FLOAT16, other=(_STEM, _ORDER)),),
    "linear-40k": (Source(name="DINOv2's linear head, as its paper tells it", other=(_ORDER,)),),
    "linear-four-40k": (Source(name="DINOv2's linear head +ms, as its paper tells it", other=(_SINGLE, _ORDER)),),
    "own": (),
    "demo": (),
}
"""Recipe -> the files it follows."""
