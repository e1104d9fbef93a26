"""What the files behind each recipe hold where the recipe may differ: engine/deviations.py makes the list.

Read in configs/openmixup/pretrain of Westlake-AI/A2MIM at ccca6dc and in configs/selfsup of Westlake-AI/openmixup.
"""

from engine.deviations import Source, Sources


def _a2mim(name: str, precision: str, *other: str) -> tuple[Source, ...]:
    return (Source(name=name, settings={"precision": precision}, other=other),)


_TARGET = "target: the untouched image, there the image with its masked cells painted, so that a constant is predicted"
_TWO_BATCHES = "batch: 2048, there 2048 on the 4 GPUs of its comment and 4096 on the 8 of its name"

SOURCES: Sources = {
    "demo": (),
    "any": (),
    "a2mim-r50-300e": _a2mim("A2MIM r50_l3_sz224_init_8xb256_cos_ep300", "float32"),
    "a2mim-r50-300e-paper": (Source(name="a2mim-r50-300e"),),
    "a2mim-r50-100e": _a2mim("A2MIM r50_l3_sz224_init_8xb256_cos_ep100", "float32"),
    "a2mim-r50-100e-add": _a2mim("A2MIM r50_l3_sz224_8xb256_cos_ep100", "float32"),
    "a2mim-r50-100e-stem": _a2mim("A2MIM r50_l0_sz224_8xb256_cos_ep100", "float32"),
    "a2mim-r101-300e": _a2mim("A2MIM r101_l3_sz224_init_8xb256_cos_ep300", "float32"),
    "a2mim-r152-300e": (
        *_a2mim("A2MIM r152_l3_sz224_init_8xb256_cos_ep300", "float32"),
        Source(name="OpenMixup r152 of 2023-05-25", settings={"precision": "float32", "loss.frequency_weight": 0.0}),
    ),
    "a2mim-r200-300e": _a2mim("A2MIM r200_l3_sz224_init_8xb256_cos_ep300", "float32"),
    "a2mim-convnext_t-300e": _a2mim("A2MIM convnext_t_l3_sz224_init_8xb256_cos_ep300", "float16"),
    "a2mim-convnext_s-300e": _a2mim("OpenMixup convnext_s_l3_sz224_init_8xb256_cos_ep300", "float16"),
    "a2mim-convnext_b-300e": _a2mim("A2MIM convnext_b_l3_sz224_init_8xb256_cos_ep300", "float16"),
    "a2mim-vit_s-800e": _a2mim("A2MIM vit_small_l0_sz224_8xb256_step_ep800", "float32"),
    "a2mim-vit_b-800e": _a2mim("A2MIM vit_base_l0_sz224_8xb128_accu2_step_ep800", "float32"),
    "a2mim-vit_b-800e-paper": (Source(name="a2mim-vit_b-800e"),),
    "a2mim-vit_l-800e": _a2mim("A2MIM vit_large_l0_sz224_8xb128_accu2_step_ep800", "float32"),
    "simmim-r50-300e": _a2mim("A2MIM simmim r50_sz224_8xb256_fp16_ep300", "float16"),
    "simmim-r101-300e": _a2mim("A2MIM simmim r101_sz224_8xb256_fp16_ep300", "float16"),
    "simmim-r152-300e": _a2mim("A2MIM simmim r152_sz224_8xb256_fp16_ep300", "float16"),
    "simmim-r200-300e": _a2mim("A2MIM simmim r200_sz224_8xb256_fp16_ep300", "float16"),
    "simmim-convnext_t-300e": _a2mim("A2MIM simmim convnext_tiny_sz224_8xb256_fp16_ep300", "float16"),
    "simmim-convnext_t-300e-filled": (Source(name="simmim-convnext_t-300e"),),
    "simmim-convnext_s-300e": _a2mim("A2MIM simmim convnext_small_sz224_8xb256_fp16_ep300", "float16"),
    "simmim-convnext_s-300e-filled": (Source(name="simmim-convnext_s-300e"),),
    "simmim-convnext_b-300e": _a2mim("A2MIM simmim convnext_base_sz224_8xb256_fp16_ep300", "float16", _TWO_BATCHES),
    "simmim-convnext_b-300e-filled": (Source(name="simmim-convnext_b-300e"),),
    "simmim-vit_s-800e": _a2mim("A2MIM simmim vit_small_sz224_8xb256_step_fp16_ep800", "float16"),
    "simmim-vit_b-800e": _a2mim("A2MIM simmim vit_base_sz224_8xb128_accu2_step_fp16_ep800", "float32"),
    "simmim-vit_b-800e-filled": _a2mim(
        "A2MIM simmim vit_base_rgb_m_sz224_8xb128_accu2_step_fp16_ep800", "float32", _TARGET
    ),
    "simmim-vit_l-800e": _a2mim("A2MIM simmim vit_large_sz224_8xb128_accu2_step_fp16_ep800", "float16"),
}
"""Recipe -> the files it follows."""
