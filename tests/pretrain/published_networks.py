"""The small networks of tests/data/golden/tiny, built from timm's classes, and the released names of their weights."""

import json
import re
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from safetensors.torch import load_file
from timm.models.beit import Beit
from timm.models.convnext import ConvNeXt
from timm.models.resnet import Bottleneck, ResNet

from backbones import Backbone
from pretrain.methods import a2mim, simmim
from pretrain.methods.a2mim import LossOptions
from pretrain.methods.released import TokenOptions
from pretrain.model import TokenModel

GOLDEN = Path(__file__).parents[1] / "data" / "golden"

FOCAL = LossOptions(kind="focal_l1", frequency_weight=0.5, frequency_unmask_weight=1e-3)


def of_a2mim(encoder: Backbone, *, token: TokenOptions, loss: LossOptions) -> TokenModel:
    """A2MIM's model without the checks of a configuration."""
    return TokenModel(encoder, token=token, terms=partial(a2mim.losses, loss))


def of_simmim(encoder: Backbone, *, token: TokenOptions, fill: Literal["mean", "none"] = "none") -> TokenModel:
    """SimMIM's model without the checks of a configuration."""
    return TokenModel(encoder, token=token, terms=simmim.losses, fill=fill)


METHODS = {
    "tiny_a2mim_r50_l3_init": lambda: of_a2mim(resnet(), token=TokenOptions(stage=3, form="gated"), loss=FOCAL),
    "tiny_a2mim_convnext_l3_init_fft": lambda: of_a2mim(
        convnext(), token=TokenOptions(stage=3, form="gated"), loss=FOCAL
    ),
    "tiny_a2mim_vit_l0": lambda: of_a2mim(
        vit(),
        token=TokenOptions(stage=0, form="add"),
        loss=LossOptions(kind="l1", frequency_weight=0.1, frequency_unmask_weight=0.0),
    ),
    "tiny_simmim_r50": lambda: of_simmim(resnet(), token=TokenOptions(stage=0, form="replace")),
    "tiny_simmim_vit": lambda: of_simmim(vit(), token=TokenOptions(stage=0, form="replace")),
}


def resnet() -> Backbone:
    net = ResNet(Bottleneck, (3, 4, 6, 3), channels=(4, 8, 16, 32))
    return Backbone(net, name="tiny_resnet", image_size=224)


def convnext() -> Backbone:
    return Backbone(ConvNeXt(depths=(1, 1, 2, 1), dims=(16, 32, 64, 96)), name="tiny_convnext", image_size=224)


def vit() -> Backbone:
    net = Beit(
        embed_dim=64,
        depth=2,
        num_heads=4,
        use_abs_pos_emb=True,
        use_rel_pos_bias=True,
        init_values=0.1,
        global_pool="token",
    )
    return Backbone(net, name="tiny_vit", image_size=224)


class Case:
    """One golden case: settings and numbers (`numbers`, `numbers64`), and tensors under their released names."""

    def __init__(self, name: str) -> None:
        info = json.loads((GOLDEN / "tiny" / f"{name}.json").read_text())
        self.name, self.mode = name, info["mode"]
        self.numbers, self.numbers64, self.rows = info["numbers"], info["numbers64"], info["recipe"]
        self.tensors = load_file(GOLDEN / "tiny" / f"{name}.safetensors")
        with np.load(GOLDEN / "inputs_224.npz") as file:
            self.images_bchw = torch.from_numpy(file["img_u8"]).permute(0, 3, 1, 2)
            self.mask_bgg = torch.from_numpy(file["mask_mp32"])

    def model(self) -> TokenModel:
        """The network with every weight as the reference had it."""
        model = METHODS[self.name]()
        state = model.state_dict()
        for _, name, shape, kind, mean, std, seed in self.rows:
            values = np.random.RandomState(seed).standard_normal(int(np.prod(shape))).reshape(shape)
            values = np.abs(values) if kind == "absnormal" else values
            ours = our_name(name)
            state[ours].copy_(torch.from_numpy(np.float32(mean + std * values)).reshape(state[ours].shape))
        filled = {our_name(row[1]) for row in self.rows}
        assert {name for name in state if "index" not in name and "num_batches" not in name} == filled
        return model.train(self.mode == "train")


def our_name(released: str) -> str:
    """OpenMixup's parameter name -> ours: the encoder under timm's names, the token and decoder beside it."""
    part, _, name = released.partition(".")
    if part == "neck":
        return re.sub(r"decoder(_pred)?\.0\.", "decoder.projection.", name)
    if name in ("mask_token", "mask_gamma"):
        return f"token.{name}"
    return f"encoder.net.{_encoder_name(name)}"


def _encoder_name(name: str) -> str:
    rules = (
        # ViT
        (r"^patch_embed\.projection\.", "patch_embed.proj."),
        (r"^layers\.(\d+)\.", r"blocks.\1."),
        (r"\.ffn\.layers\.0\.0\.", ".mlp.fc1."),
        (r"\.ffn\.layers\.1\.", ".mlp.fc2."),
        (r"^ln1\.", "norm."),
        (r"\.ln(\d)\.", r".norm\1."),
        # ConvNeXt
        (r"^downsample_layers\.0\.", "stem."),
        (r"^downsample_layers\.(\d)\.", r"stages.\1.downsample."),
        (r"^stages\.(\d)\.(\d+)\.", r"stages.\1.blocks.\2."),
        (r"\.depthwise_conv\.", ".conv_dw."),
        (r"\.pointwise_conv(\d)\.", r".mlp.fc\1."),
        (r"^norm3\.", "head.norm."),
    )
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name
