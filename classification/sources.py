"""What the files behind each recipe hold where the recipe may differ: engine/deviations.py makes the list.

Read in Westlake-AI/A2MIM at ccca6dc, Westlake-AI/openmixup (configs/benchmarks/classification) and MMPretrain 1.2.
"""

from engine.deviations import Source, Sources

_FLOAT16 = {"precision": "float16"}
_RSB = {**_FLOAT16, "schedule.warmup_start": 1e-5}
_FROM_STEP_ONE = "cosine: its phase counts from the end of the warm-up, there from the first step"
_WARM_COSINE = "warm-up: linear, there times a cosine that is mirrored about its end"
_SHORTCUTS = (
    "weight decay: spares every scale of a norm, there not those of the shortcuts' batch norms (matched by name)"
)
_LAMB = (_FROM_STEP_ONE, _SHORTCUTS)
_MIX_REPEAT = "mixing: once a batch, there twice (mix_repeat 2)"

SOURCES: Sources = {
    "rsb-a1": (Source(name="MMPretrain resnet50_8xb256-rsb-a1-600e", settings={"precision": "float32"}),),
    "rsb-a2": (
        Source(name="A2MIM r50_rsb_a2_ft_sz224_8xb256", settings=_RSB, other=_LAMB),
        Source(name="OpenMixup r101_rsb_a2", settings={**_RSB, "drop_path": 0.1}, other=_LAMB, model="r101"),
        Source(name="OpenMixup r152_rsb_a2", settings={**_RSB, "drop_path": 0.15}, other=_LAMB, model="r152"),
        Source(name="OpenMixup r200_rsb_a2", settings=_RSB, other=_LAMB, model="r200"),
    ),
    "rsb-a3": (
        Source(name="A2MIM r50_rsb_a3_ft_sz160_4xb512", settings=_RSB, other=_LAMB),
        Source(name="A2MIM convnext_t_rsb_a3", settings=_RSB, other=(_FROM_STEP_ONE,), model="convnext_t"),
    ),
    "vit-ft": (
        Source(name="A2MIM vit_base_p16_swin_ft_simmim_sz224", settings=_FLOAT16, other=(_MIX_REPEAT, _WARM_COSINE)),
        Source(
            name="OpenMixup vit_small_p16_swin_ft_simmim_sz224_..._ep100, SimMIM's row",
            settings={**_FLOAT16, "optimizer.layer_decay": 0.55},
            other=(_WARM_COSINE,),
            model="vit_s",
        ),
        Source(
            name="OpenMixup vit_small_p16_swin_ft_simmim_sz224_..._ep200, A2MIM's row",
            settings={**_FLOAT16, "epochs": 200},
            other=(_WARM_COSINE,),
            model="vit_s",
        ),
        Source(
            name="OpenMixup vit_large_p16_swin_ft_simmim_sz224_..._ep150, A2MIM's row",
            settings={**_FLOAT16, "epochs": 150, "augment.repeats": 3},
            other=(_WARM_COSINE,),
            model="vit_l",
        ),
    ),
    "deit-ft": (Source(name="A2MIM deit_small_p16_swin_ft_sz224_4xb256", settings=_FLOAT16, other=(_WARM_COSINE,)),),
    "swin-ft": (
        Source(
            name="A2MIM swin_tiny_swin_ft_sz224_4xb128_accu4",
            settings={"precision": "float32"},
            other=(_FROM_STEP_ONE,),
        ),
    ),
    "resnet-deit-ft": (
        Source(
            name="A2MIM r50_swin_ft_sz224_8xb128_accu2",
            settings=_FLOAT16,
            other=_LAMB,
        ),
    ),
    "convnext-ft": (
        Source(
            name="OpenMixup convnext_s_spark_ft_sz224_8xb256_..._ep300",
            settings={**_FLOAT16, "schedule.warmup_epochs": 5, "schedule.warmup_start": 1e-5},
            other=(_FROM_STEP_ONE,),
        ),
    ),
    "linear-probe": (
        Source(name="A2MIM r50_linear_sz224_4xb64_step_ep100", settings={"precision": "float32"}),
        Source(
            name="OpenMixup vit_small_p16_linear_sz224_8xb128_cos_ep90",
            other=("whatever its base file says, which the repository lacks",),
            model="vit_s",
        ),
    ),
    "own": (),
    "demo": (),
    "small": (),
    "small-linear": (),
    "cifar-vit": (
        Source(
            name="small MAE train_classifier",
            other=("images are normalised with ImageNet's mean and deviation, there with 0.5 and 0.5",),
        ),
    ),
}
"""Recipe -> the files it follows."""
