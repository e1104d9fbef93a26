"""Every file of timm: its networks are pre-trained by A2MIM and SimMIM at the size that they take, or refused."""

import re
import sys
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from backbones import BackboneError, build_backbone, build_classifier, load_weights, save_backbone
from backbones.catalogue import kept, markdown, measure
from backbones.suggest import fitting_cell, reach, shapes_of
from engine import cli
from pretrain.build import build_model
from pretrain.masking import cell_mask
from pretrain.recipes import RECIPES, for_model
from tests.helpers import ROOT

CHEAP = ["test_resnet", "test_vit", "test_convnext", "test_efficientnet", "test_byobnet", "test_mambaout", "test_nfnet",
         "starnet_s050"]  # fmt: skip
ODD = {
    "levit_128s": "three stages of strides 16 to 64",
    "inception_v3": "convolutions that do not pad: positions are no whole pixels",
    "pit_ti_224": "maps and class tokens pass together; forward_features returns the class token alone",
    "efficientvim_m1": "a list of maps, one of them flat",
    "xcit_nano_12_p8_224": "patch_size and reductions are bare integers, the class token comes last",
    "halonet_h1": "images of 256 pixels, not 224",
    "selecsls42": "lists between its modules",
    "mvitv2_tiny": "feature_info names modules that do not exist",
    "ghostnet_050": "a convolution after the last stage",
    "crossvit_tiny_240": "images of 240 pixels only, two branches of different strides",
}


@pytest.mark.parametrize("method", ["a2mim", "simmim"])
@pytest.mark.parametrize("name", CHEAP)
def test_the_loss_falls_on_a_fixed_batch(name, method):
    config = for_model(name, method)
    config = replace(config, drop_path=0.0)
    torch.manual_seed(0)
    model = build_model(config)
    size, cell = config.image_size, config.mask.cell_size
    masks = [cell_mask(np.random.default_rng(i), size, cell, 0.6) for i in range(2)]
    images = torch.full((2, 3, size, size), 90, dtype=torch.uint8)
    images[:, 1] = 160
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    losses = []
    for _ in range(3):
        loss = sum(model(images, torch.from_numpy(np.stack(masks))).values())
        loss.backward()
        assert not [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", ODD)
def test_unusual_networks_are_measured_as_the_list_says(name):
    row = measure(name)
    assert row in kept(), ODD[name]
    assert not row.problem


def test_every_file_of_timm_is_in_the_list_and_at_least_ninety_can_be_pre_trained():
    rows = kept()
    files = {timm.model_entrypoint(name).__module__.rpartition(".")[2] for name in timm.list_models()}
    assert {row.file for row in rows} == files
    assert sum(not row.problem for row in rows) >= 90
    assert all(row.a2mim and row.simmim for row in rows if not row.problem)


def test_the_page_is_the_list():
    assert markdown(kept()) in (ROOT / "docs" / "backbones.md").read_text()


@pytest.mark.parametrize(
    ("name", "size"),
    [("crossvit_tiny_240", 224), ("halonet_h1", 224), ("vit_tiny_patch16_224", 100), ("deepseek_vit_412m", 96)],
)
def test_a_size_that_a_network_does_not_take_is_a_backbone_error(name, size):
    with pytest.raises(BackboneError, match=str(size)), torch.device("meta"):
        build_backbone(name, image_size=size)


@pytest.mark.parametrize("size", [96, 160, 384, 512])
def test_free_networks_take_sizes_from_96_to_512(size):
    with torch.device("meta"):
        backbone = build_backbone("test_resnet", image_size=size)
    assert backbone.final_map_size * backbone.final_stride == size
    assert fitting_cell(size, backbone.entry(3), 32) == 32


def test_a_token_hides_at_the_stages_of_a_resnet_and_not_behind_its_first_skip():
    backbone = shapes_of("test_resnet")
    assert all(reach(backbone, backbone.entry(k)).hides for k in range(4))
    block = next(name for name, _ in backbone.net.named_modules() if name.endswith("conv2"))
    assert not reach(backbone, backbone.entry(block)).hides


@pytest.fixture
def own_networks(tmp_path, monkeypatch):
    """mynets.py of docs/backbones.md, and some that lack something."""
    page = (ROOT / "docs" / "backbones.md").read_text()
    program = "\n\n".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL))
    more = "class Bare(nn.Module):\n    forward_features = None\n\nnumber = 3\n\ndef three():\n    return 3\n"
    (tmp_path / "mynets.py").write_text(f"{program}\n\n{more}")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("mynets", None)


def test_the_documented_network_of_ones_own_is_pre_trained_by_the_documented_command(own_networks, tmp_path):
    page = (ROOT / "docs" / "backbones.md").read_text()
    (command,) = re.findall(r"```bash\n(python -m pretrain any --model .*)\n```", page)
    for i in range(2):
        Image.new("RGB", (64, 64), (50 * i, 90, 40)).save(tmp_path / f"{i}.png")
    words = command.replace("data/imagenet", str(tmp_path)).replace("runs/mine", str(tmp_path / "run")).split()
    short = ["--epochs", "1", "--batch-size", "2", "--image-size", "64", "--data.num-workers", "0"]
    with pytest.raises(SystemExit) as left:
        cli.main("pretrain", RECIPES, argv=[*words[3:], *short])
    assert left.value.code == 0
    encoder = build_backbone("mynets:MyNet", image_size=64)
    assert encoder.strides == (4, 8, 16, 32) and encoder.family == "other"
    assert load_weights(encoder, tmp_path / "run").missing == ()


def test_the_documented_classifier_takes_what_its_encoder_learned(own_networks, tmp_path):
    config = for_model("mynets:MyClassifier")
    assert (config.options.token.stage, config.mask.cell_size) == (3, 32)
    save_backbone(tmp_path / "mine.safetensors", build_backbone("mynets:MyNet", image_size=64), {})
    network = build_classifier("mynets:MyClassifier", 7, image_size=64)
    load_weights(network, tmp_path / "mine.safetensors", allow_missing=["fc."])
    assert network(torch.zeros(2, 3, 64, 64)).shape == (2, 7)
    assert "mynets:MyNet" in markdown([measure("mynets:MyNet")])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mynets:Bare", "has no forward_features and no forward_intermediates and no feature_info"),
        ("mynets:number", "is a int, not a class or function"),
        ("mynets:three", "makes a int, not a torch.nn.Module"),
        ("mynets:Absent", "cannot be imported"),
        ("no.such.module:Net", "cannot be imported"),
    ],
)
def test_what_a_network_of_ones_own_lacks_is_named(name, message, own_networks):
    with pytest.raises(BackboneError, match=message):
        build_backbone(name)


def test_grey_images_are_pre_trained_with_one_channel():
    config = for_model("test_resnet")
    config = replace(config, data=replace(config.data, mean=(0.45,), std=(0.22,)))
    model = build_model(config)
    images = torch.full((1, 3, 224, 224), 128, dtype=torch.uint8)
    mask = torch.from_numpy(cell_mask(np.random.default_rng(0), 224, 32, 0.6))[None]
    assert model.encoder.in_channels == 1
    torch.testing.assert_close(model.normalise(images), torch.full((1, 1, 224, 224), (128 / 255 - 0.45) / 0.22))
    sum(model(images, mask).values()).backward()
    original, _, prediction = model.reconstruct(images, mask)
    assert torch.equal(original, images) and prediction.shape == images.shape
    wrong = replace(config.data, root="images", mean=(0.1, 0.2, 0.3, 0.4), std=(1.0,) * 3)
    assert any("mean and std have 4 and 3 values; allowed: as many each" in line for line in wrong.problems())
