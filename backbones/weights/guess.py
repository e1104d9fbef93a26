"""Which network a file of weights is of, by its names and shapes."""

import math
import re
from collections.abc import Mapping

from torch import Tensor

from backbones.errors import WeightsError

from .files import WeightsFile
from .keymaps import State
from .resize import TABLE

BODY_SIZES = {
    "r50": 23_561_152, "r101": 42_605_504, "r152": 58_295_232, "r200": 62_800_832, "resnet18": 11_186_112,
    "resnet34": 21_301_696, "resnet50c": 23_580_512, "resnet50d": 23_580_512, "resnet101c": 42_624_864,
    "resnet101d": 42_624_864, "resnext50_32x4d": 23_048_128, "resnext101_32x4d": 42_266_560,
    "resnext101_32x8d": 86_945_216, "wide_resnet50_2": 66_902_464, "wide_resnet101_2": 124_975_552,
    "convnext_t": 27_818_592, "convnext_s": 49_453_152, "convnext_b": 87_564_416, "convnext_large": 196_227_264,
    "convnext_xlarge": 348_143_872, "convnextv2_atto": 3_386_760, "convnextv2_femto": 4_847_472,
    "convnextv2_pico": 8_552_256, "convnextv2_nano": 14_981_520, "convnextv2_tiny": 27_864_960,
    "convnextv2_base": 87_690_752, "convnextv2_large": 196_416_768, "convnextv2_huge": 657_467_008,
    "vit_s": 47_857_152, "vit_b": 85_655_040, "vit_l": 303_122_432, "deit_s": 21_593_856,
    "vit_tiny_patch16_224": 5_486_208, "vit_small_patch16_224": 21_589_248, "vit_base_patch16_224": 85_645_824,
    "vit_large_patch16_224": 303_097_856, "vit_huge_patch14_224": 630_433_280, "vit_base_patch32_224": 87_415_296,
    "vit_small_patch8_224": 21_368_064, "vit_base_patch8_224": 85_203_456, "vit_base_patch16_gap_224": 85_645_056,
    "vit_huge_patch14_gap_224": 630_432_000, "vit_huge_patch16_gap_448": 630_662_400,
    "vit_giant_patch16_gap_224": 1_011_089_792, "beit_base_patch16_224": 85_655_040,
    "beit_large_patch16_224": 303_122_432, "vit_small_patch14_dinov2": 21_529_344,
    "vit_base_patch14_dinov2": 85_526_016, "vit_large_patch14_dinov2": 302_962_688,
    "vit_small_patch14_reg4_dinov2": 21_530_880, "vit_base_patch14_reg4_dinov2": 85_529_088,
    "vit_large_patch14_reg4_dinov2": 302_966_784, "swin_t": 27_494_496, "swin_b": 86_677_632,
    "swin_small_patch4_window7_224": 48_788_064, "swin_large_patch4_window7_224": 194_897_088,
    "swin_large_patch4_window12_384": 194_897_088,
}  # fmt: skip
"""Network -> body_size of its encoder. A file without a name can be of any of these, whatever its image size."""
_NOT_BODY = re.compile(
    rf"pos_embed|.*({TABLE}|relative_position_index|num_batches_tracked|attn_mask)|(norm|fc_norm|head|fc|classifier)\..*"
)
_PATCH = "patch_embed.proj.weight"


def guess_network(file: WeightsFile, source: str) -> str:
    """The name of the network that what open_weights has read from `source` is of: the one that the file names, else
    that of BODY_SIZES which is as large.

    Raises WeightsError where none is.
    """
    named = file.description.get("name") or file.description.get("model")
    if isinstance(named, str):
        return named
    size = body_size(file.state)
    same = [name for name, known in BODY_SIZES.items() if known == size and _may_be(name, file.state)]
    if same:
        return same[0]
    raise WeightsError(
        f"{source}: no network known by name has an encoder of {size:,} numbers such as this one "
        f"({', '.join(list(file.state)[:3])}, ...). Say which it is: --model NAME"
    )


def _may_be(name: str, state: State) -> bool:
    """Of networks of one size, whether `name` has what tells it from the others."""
    pooled = state.get("layer1.0.downsample.1.weight")
    if pooled is not None and re.fullmatch(r"resnet\d+[cd]", name):
        return (pooled.ndim == 4) == name.endswith("d")
    if name in ("vit_b", "vit_l", "beit_base_patch16_224", "beit_large_patch16_224"):
        return ("pos_embed" in state) == name.startswith("vit")
    if name.startswith("swin_large"):
        return (native_size(state) == 384) == name.endswith("384")
    return True


def body_size(state: Mapping[str, Tensor]) -> int:
    """How many numbers there are in an encoder without what depends on image size and task: tables of positions, the
    final norm, classifiers, counters."""
    return sum(tensor.numel() for name, tensor in state.items() if not _NOT_BODY.fullmatch(name))


def native_size(state: State, default: int = 224) -> int:
    """Side in pixels of the images that a ViT's or Swin's tables of positions are for; `default` without tables."""
    patch = state[_PATCH].shape[-1] if _PATCH in state else 0
    if patch and "pos_embed" in state and state["pos_embed"].ndim == 3:
        extra = sum(state[name].shape[1] for name in ("cls_token", "reg_token") if name in state)
        tokens = state["pos_embed"].shape[1]
        side = math.isqrt(tokens - extra) if math.isqrt(tokens - extra) ** 2 == tokens - extra else math.isqrt(tokens)
        return side * patch
    tables = [tensor for name, tensor in state.items() if name.endswith(TABLE)]
    if patch and tables:
        window = (math.isqrt(tables[0].shape[0]) + 1) // 2
        # a Swin's last map is one or more windows of 32 pixels a position, a ViT's table covers the image
        return window * (32 if "layers.0.blocks.0.attn.qkv.weight" in state else patch)
    return default
