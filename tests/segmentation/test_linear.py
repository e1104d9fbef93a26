"""A linear head on a frozen encoder: which maps it sees, and that nothing of the encoder changes."""

from dataclasses import replace

import pytest
import torch

from backbones import build_backbone, save_backbone
from engine.config import check
from engine.errors import ConfigError
from engine.run import checkpoint
from segmentation.config import EvaluationConfig, HeadConfig
from segmentation.export import export
from segmentation.mmseg_adapter import build_segmentor
from segmentation.recipes import RECIPES
from segmentation.train import train
from tests.segmentation.folders import tiny_config

pytestmark = pytest.mark.mmseg
LINEAR = HeadConfig(kind="linear", aux_channels=0, dropout=0.0)


def frozen(root, model, maps="last", **changes):
    config = tiny_config(root, model=model, freeze="all", head=replace(LINEAR, maps=maps), **changes)
    return replace(config, evaluation=EvaluationConfig(mode="slide", num_panels=0))


def saved_encoder(path, model, size):
    """A file of weights, with batch norm statistics that no training has just begun with; and its tensors."""
    backbone = build_backbone(model, image_size=size)
    for number, buffer in enumerate(backbone.buffers()):
        if buffer.is_floating_point() and buffer.ndim == 1:
            buffer.add_(0.05 * torch.rand(buffer.shape, generator=torch.Generator().manual_seed(number)))
    save_backbone(path, backbone, {"method": "test"})
    return {name: value.clone() for name, value in backbone.net.state_dict().items()}


@pytest.mark.parametrize(("model", "maps"), [("test_resnet", "four"), ("test_convnext", "last"), ("test_vit", "four")])
def test_a_frozen_encoder_ends_as_it_began_and_the_head_trains(root, tmp_path, model, maps):
    begun = saved_encoder(tmp_path / "encoder.safetensors", model, 64)
    config = frozen(root, model, maps, image_size=64, init=str(tmp_path / "encoder.safetensors"), iterations=3)
    assert "mIoU" in train(replace(config, checkpoint_every=1, batch_size=2), tmp_path / "run", keep_all=True)
    ended, earlier = (checkpoint.load(tmp_path / "run" / "checkpoints" / f"{step:08d}").model for step in (3, 2))
    of_encoder = {name: value for name, value in ended.items() if name.startswith("backbone.encoder.net.")}
    assert {name.removeprefix("backbone.encoder.net.") for name in of_encoder} == begun.keys()
    assert all(torch.equal(of_encoder[f"backbone.encoder.net.{name}"], value) for name, value in begun.items())
    moved = {name for name in ended if not torch.equal(ended[name], earlier[name])}
    assert {"decode_head.conv_seg.weight", "decode_head.norm.running_mean"} <= moved
    assert all(name.startswith("decode_head.") for name in moved)
    if model == "test_resnet":  # whose encoder could go by MMSegmentation's name, but its head cannot
        assert export(tmp_path / "run", tmp_path / "out")
        assert "LinearHead" in (tmp_path / "out" / "config.py").read_text()


def test_a_vit_shows_its_last_maps_after_the_final_norm():
    encoder = build_backbone("test_vit", image_size=64).eval()
    images, depth = torch.randn(1, 3, 64, 64), len(encoder.net.blocks)
    for maps in ("last", "four"):
        segmentor = build_segmentor(frozen("/nowhere", "test_vit", maps, image_size=64, drop_path=0.0))
        segmentor.backbone.encoder.load_state_dict(encoder.state_dict())
        segmentor.train()
        with torch.no_grad():
            blocks = encoder.net.forward_intermediates(
                images, indices=range(depth)[-4:], norm=True, intermediates_only=True
            )
            found = segmentor.backbone(images)
        expected = blocks[-1:] if maps == "last" else blocks
        assert len(found) == len(expected) == (1 if maps == "last" else min(4, depth))
        assert all(torch.allclose(one, other, atol=1e-5) for one, other in zip(found, expected, strict=True))
        assert segmentor.decode_head.conv_seg.in_channels == sum(m.shape[1] for m in expected)


def test_four_maps_of_stages_meet_at_stride_8_and_the_last_has_stride_32():
    channels_of = build_backbone("test_resnet", image_size=64).channels
    images = torch.randn(1, 3, 64, 64)
    for maps, channels, side in (("four", sum(channels_of), 8), ("last", channels_of[-1], 2)):
        segmentor = build_segmentor(frozen("/nowhere", "test_resnet", maps, image_size=64, drop_path=0.0)).eval()
        head = segmentor.decode_head
        with torch.no_grad():
            scores = head(segmentor.backbone(images))
        assert (head.conv_seg.in_channels, tuple(scores.shape)) == (channels, (1, 150, side, side))
        assert [name for name, p in segmentor.named_parameters() if p.requires_grad] == [
            f"decode_head.{name}" for name in ("conv_seg.weight", "conv_seg.bias", "norm.weight", "norm.bias")
        ]


def test_upernet_stands_on_a_frozen_encoder_too_and_a_linear_head_alone(root):
    segmentor = build_segmentor(replace(tiny_config(root), freeze="all")).train()
    assert not segmentor.backbone.encoder.training
    assert segmentor.decode_head.training
    with pytest.raises(ConfigError, match="aux_channels is 8; allowed beside a linear head: 0"):
        check(tiny_config(root, head=HeadConfig(kind="linear", aux_channels=8)))


def test_the_recipes_are_the_published_ones_on_a_frozen_encoder():
    for name, maps in (("linear-40k", "last"), ("linear-four-40k", "four")):
        config = RECIPES[name]("r50")
        assert (config.freeze, config.head.kind, config.head.maps, config.head.dropout) == ("all", "linear", maps, 0.0)
        assert (config.iterations, config.batch_size, config.learning_rate) == (40_000, 16, 1e-3)
        assert (config.optimizer.name, config.optimizer.weight_decay, config.schedule.warmup_iterations) == (
            "adamw",
            1e-4,
            1500,
        )
