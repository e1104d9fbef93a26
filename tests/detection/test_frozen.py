"""`--freeze all`: what stands on the encoder trains, and nothing of the encoder changes, its statistics included."""

from dataclasses import replace

import pytest
import torch

from backbones import build_backbone, save_backbone
from detection.recipes import RECIPES
from detection.train import train
from engine.config import check
from engine.errors import ConfigError
from engine.run import checkpoint
from tests.detection.folders import FRAMEWORKS, make_coco, tiny_config


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_coco(tmp_path_factory.mktemp("coco"), num_train=8, num_val=2)


@pytest.fixture(scope="module", params=["test_resnet", "test_vit"])
def encoder(request, tmp_path_factory):
    """A file of weights, with batch norm statistics that no training has just begun with."""
    backbone = build_backbone(request.param, image_size=64)
    for number, buffer in enumerate(backbone.buffers()):
        if buffer.is_floating_point() and buffer.ndim == 1:
            buffer.add_(0.05 * torch.rand(buffer.shape, generator=torch.Generator().manual_seed(number)))
    path = tmp_path_factory.mktemp("encoder") / "backbone.safetensors"
    save_backbone(path, backbone, {"method": "test"})
    return request.param, path, {name: value.clone() for name, value in backbone.net.state_dict().items()}


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_frozen_encoder_ends_as_it_began_and_the_rest_trains(root, tmp_path, encoder, framework):
    model, path, begun = encoder
    config = tiny_config(root, model=model, framework=framework, init=str(path), iterations=3, checkpoint_every=1)
    config = replace(config, freeze="all", num_panels=0, precise_bn=1, data=replace(config.data, square=64))
    assert "box_AP" in train(config, tmp_path / "run", keep_all=True)
    ended = checkpoint.load(checkpoint.newest(tmp_path / "run")).model
    of_encoder = {
        name.partition(".backbone.net.")[2]: value for name, value in ended.items() if ".backbone.net." in name
    }
    assert of_encoder.keys() == begun.keys()
    assert all(torch.equal(of_encoder[name], begun[name]) for name in begun)
    earlier = checkpoint.load(tmp_path / "run" / "checkpoints" / "00000002").model
    moved = [name for name in ended if not torch.equal(ended[name], earlier[name])]
    assert moved
    assert not any(".backbone.net." in name for name in moved)
    precise = tmp_path / "run" / "precise_bn.safetensors"
    assert b".backbone.net." not in (precise.read_bytes() if precise.exists() else b"")


def test_c4_whose_head_is_the_last_stage_is_refused():
    config = RECIPES["mask-rcnn-c4-2x"]()
    config = replace(config, init="none", freeze="all", data=replace(config.data, root="coco"))
    with pytest.raises(ConfigError, match='freeze is "all" with a C4 detector'):
        check(config)
