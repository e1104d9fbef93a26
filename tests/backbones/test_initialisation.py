"""Fresh weights follow the released constructors: their statistics are in the golden files, tensor by tensor."""

import json
from pathlib import Path

import pytest
import torch

from backbones import build_backbone, to_openmixup

GOLDEN = Path(__file__).parents[1] / "data" / "golden" / "init_stats.json"
NETWORKS = {
    "tiny_a2mim_r50_l3_init": ("r50", {"channels": (4, 8, 16, 32)}),
    "tiny_a2mim_vit_l0": ("vit_b", {"embed_dim": 64, "depth": 2, "num_heads": 4, "mlp_ratio": 4}),
    "tiny_a2mim_convnext_l3_init_fft": ("convnext_t", {"depths": (1, 1, 2, 1), "dims": (16, 32, 64, 96)}),
}


@pytest.mark.parametrize("case", NETWORKS)
def test_initial_statistics_are_those_of_the_released_constructors(case):
    published = json.loads(GOLDEN.read_text())[case]
    name, options = NETWORKS[case]
    torch.manual_seed(0)
    ours = to_openmixup(build_backbone(name, **options).net.state_dict())
    compared = 0
    for key, stats in published.items():
        if not key.startswith("backbone.") or "mask_" in key:
            continue
        values = ours[key].double()
        assert list(values.shape) == stats["shape"], key
        if stats["std"] < 1e-6:  # constants: zeros, ones, layer scales
            assert values.min().item() == values.max().item() == pytest.approx(stats["mean"], rel=1e-6), key
        else:
            noise = stats["std"] / values.numel() ** 0.5
            assert values.std().item() == pytest.approx(stats["std"], rel=6 / (2 * values.numel()) ** 0.5), key
            assert values.mean().item() == pytest.approx(stats["mean"], abs=9 * noise), key
        compared += 1
    assert compared > 35


def test_deep_blocks_of_a_vit_start_as_wide_as_the_first():
    """No division by the depth of a block, unlike timm's own BEiT."""
    torch.manual_seed(0)
    net = build_backbone("vit_b", image_size=32, embed_dim=64, depth=8, num_heads=2).net
    for layer in ("attn.proj", "mlp.fc2"):
        deviations = [block.get_submodule(layer).weight.std().item() for block in net.blocks]
        assert all(deviation == pytest.approx(0.02, rel=0.05) for deviation in deviations)


def test_the_patch_convolution_keeps_pytorchs_default():
    torch.manual_seed(0)
    conv = build_backbone("vit_b", image_size=32, embed_dim=64, depth=1, num_heads=2).net.patch_embed.proj
    bound = (3 * 16 * 16) ** -0.5
    assert conv.weight.abs().max() <= bound
    assert conv.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.02)
    assert conv.bias.abs().max() > 0
