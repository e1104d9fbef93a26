"""Networks, images and numbers of tests/data/golden3: what the published implementations gave."""

import json
from typing import Any

import numpy as np
import torch
from timm.models.resnet import Bottleneck, ResNet
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from tests.helpers import ROOT

GOLDEN = ROOT / "tests/data/golden3"


def read(name: str) -> dict[str, Any]:
    return json.loads((GOLDEN / f"{name}.json").read_text())


def network(case: dict[str, Any], dtype: torch.dtype = torch.float64) -> nn.Module:
    """Built from `network`, filled as `recipe` says, in evaluation mode."""
    options = dict(case["network"])
    if options.pop("class") == "ResNet":
        options["block"] = {"Bottleneck": Bottleneck}[options["block"]]
        net: nn.Module = ResNet(**options)
    else:
        net = VisionTransformer(**options)
    state = {}
    for _, name, shape, kind, mean, deviation, seed in case["recipe"]:
        drawn = np.random.RandomState(seed).standard_normal(int(np.prod(shape))).reshape(shape)
        values = mean + deviation * (np.abs(drawn) if kind == "absnormal" else drawn)
        state[name] = torch.from_numpy(values.astype(np.float32))
    result = net.load_state_dict(state, strict=False)
    assert not result.unexpected_keys
    assert all(name.endswith("num_batches_tracked") for name in result.missing_keys)
    return net.eval().to(dtype)


def images(case: dict[str, Any], dtype: torch.dtype = torch.float64) -> Tensor:
    size = case["image_size"]
    if size == 224:
        found = np.load(ROOT / "tests/data/golden/inputs_224.npz")["img_norm"]
    else:
        found = np.load(GOLDEN / "images_small.npz")[f"img{size}"]
    return torch.from_numpy(found[case["images"]]).to(dtype)
