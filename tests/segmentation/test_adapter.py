"""The segmentor sees exactly the encoder's features, starts from all of its weights, and is MMSegmentation's model."""

import sys
from dataclasses import replace

import pytest
import timm
import torch
from mmengine.utils.dl_utils import mmcv_full_available

from backbones import WeightsError, build_backbone, load_weights, save_backbone
from engine.errors import ConfigError
from segmentation.mmseg_adapter import IGNORED, build_segmentor, model_config
from segmentation.recipes import RECIPES
from segmentation.train import loss_function
from tests.segmentation.folders import tiny_config

pytestmark = pytest.mark.mmseg


def small(model, **changes):
    config = tiny_config("/nowhere", model=model, image_size=64, drop_path=0.0, **changes)
    mode = "slide" if "vit" in model or "deit" in model else "whole"
    return replace(config, evaluation=replace(config.evaluation, mode=mode))


@pytest.mark.parametrize("model", ["r50", "convnext_t", "swin_t", "deit_s"])
def test_features_inside_the_segmentor_are_the_encoders_own_and_its_weights_load_whole(model, tmp_path):
    torch.manual_seed(1)
    encoder = build_backbone(model, image_size=64).eval()
    with torch.no_grad():
        for parameter in encoder.parameters():  # away from every initial value
            parameter.add_(0.01 * torch.randn_like(parameter))
    save_backbone(tmp_path / "encoder.safetensors", encoder, {})
    segmentor = build_segmentor(small(model)).eval()
    load_weights(segmentor.backbone.encoder, tmp_path / "encoder.safetensors")

    loaded, given = segmentor.backbone.encoder.state_dict(), encoder.state_dict()
    assert loaded.keys() == given.keys()
    assert all(torch.equal(loaded[name], given[name]) for name in given)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected, found = encoder.features(images), segmentor.backbone(images)
    assert len(found) == 4
    for one, other in zip(expected, found, strict=True):
        assert torch.allclose(one, other, rtol=0, atol=1e-6)
    head = segmentor.auxiliary_head
    assert head.in_channels == encoder.channels[2]
    assert (head.num_classes, segmentor.decode_head.num_classes) == (150, 150)


def test_the_dilated_resnet_has_the_features_of_timms_on_the_same_weights():
    config = replace(small("r50"), output_stride=8, head=replace(small("r50").head, kind="fcn"))
    segmentor = build_segmentor(config).eval()
    net = timm.create_model("resnet50", output_stride=8, features_only=True, out_indices=(1, 2, 3, 4)).eval()
    net.load_state_dict(segmentor.backbone.encoder.net.state_dict(), strict=False)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected, found = net(images), segmentor.backbone(images)
    assert [m.shape[1:] for m in found] == [(256, 16, 16), (512, 8, 8), (1024, 8, 8), (2048, 8, 8)]
    for one, other in zip(expected, found, strict=True):
        assert torch.allclose(one, other, rtol=0, atol=1e-6)
    stages = segmentor.backbone.encoder.net
    dilations = [layer[-1].conv2.dilation[0] for layer in (stages.layer1, stages.layer2, stages.layer3, stages.layer4)]
    assert dilations == [1, 1, 2, 4]
    assert stages.conv1.kernel_size == (7, 7)


def test_weights_that_leave_a_tensor_of_the_encoder_out_are_refused(tmp_path):
    segmentor = build_segmentor(small("test_resnet"))
    encoder = build_backbone("test_resnet", image_size=64)
    state = {name: tensor for name, tensor in encoder.net.state_dict().items() if name != "layer4.0.bn2.bias"}
    from safetensors.torch import save_file

    save_file(state, tmp_path / "lacking.safetensors")
    before = {name: tensor.clone() for name, tensor in segmentor.state_dict().items()}
    with pytest.raises(WeightsError, match=r"1 missing: layer4.0.bn2.bias"):
        load_weights(segmentor.backbone.encoder, tmp_path / "lacking.safetensors")
    assert all(torch.equal(tensor, before[name]) for name, tensor in segmentor.state_dict().items())


def loss_of(config, labels):
    segmentor = build_segmentor(config)
    images = [torch.randint(0, 255, (3, *label.shape[1:]), dtype=torch.uint8) for label in labels]
    return segmentor, loss_function(segmentor)(segmentor, {"image": images, "label": labels})


@pytest.mark.parametrize("model", ["test_resnet", "test_convnext", "test_vit", "swin_t"])
def test_every_trainable_parameter_gets_a_gradient(model):
    labels = [torch.randint(0, 150, (1, 64, 64), dtype=torch.uint8) for _ in range(2)]
    segmentor, losses = loss_of(small(model), labels)
    assert set(losses) == {"decode.loss_ce", "aux.loss_ce"}
    sum(losses.values()).backward()
    without = [name for name, p in segmentor.named_parameters() if p.requires_grad and p.grad is None]
    assert not without


def test_an_image_without_labels_contributes_a_loss_of_zero():
    nothing = torch.full((1, 64, 64), IGNORED, dtype=torch.uint8)
    segmentor, losses = loss_of(small("test_resnet"), [nothing, nothing])
    total = sum(losses.values())
    total.backward()
    assert float(total.detach()) == 0.0
    assert all(torch.isfinite(p.grad).all() for p in segmentor.parameters() if p.grad is not None)


def test_an_image_smaller_than_the_crop_is_padded_with_ignored_labels():
    torch.manual_seed(0)
    label = torch.zeros(1, 40, 64, dtype=torch.uint8)
    full = torch.cat([label, torch.full((1, 24, 64), IGNORED, dtype=torch.uint8)], dim=1)
    segmentor = build_segmentor(small("test_resnet")).eval()
    mean = segmentor.data_preprocessor.mean.flip(0).round().to(torch.uint8)  # BGR
    image = mean.expand(3, 40, 64)
    padded = segmentor.data_preprocessor(
        {"inputs": [image, image], "data_samples": [_sample(label), _sample(label)]}, training=True
    )
    assert padded["inputs"].shape == (2, 3, 64, 64)
    assert torch.equal(padded["data_samples"][0].gt_sem_seg.data, full.long())
    assert padded["inputs"][:, :, 40:].abs().max() == 0


def _sample(label):
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    return SegDataSample(gt_sem_seg=PixelData(data=label.long()))


def test_scores_and_losses_are_float32_under_autocast():
    segmentor = build_segmentor(small("test_resnet"))
    images = [torch.zeros(3, 64, 64, dtype=torch.uint8)] * 2
    labels = [torch.zeros(1, 64, 64, dtype=torch.uint8)] * 2
    with torch.autocast("cpu", torch.bfloat16):
        losses = loss_function(segmentor)(segmentor, {"image": images, "label": labels})
        scores = segmentor.eval()(torch.randn(1, 3, 64, 64), mode="tensor")
    assert {value.dtype for value in losses.values()} == {torch.float32}
    assert scores.dtype == torch.float32


def test_the_same_seed_gives_the_same_segmentor_and_another_seed_another():
    one, same, other = (build_segmentor(replace(small("test_resnet"), seed=seed)).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["decode_head.conv_seg.weight"], other["decode_head.conv_seg.weight"])


def test_an_encoder_of_fixed_size_is_refused_for_whole_images_before_training():
    config = small("deit_s")
    with pytest.raises(ConfigError, match=r"use --evaluation\.mode slide"):
        build_segmentor(replace(config, evaluation=replace(config.evaluation, mode="whole")))


def test_only_a_resnet_is_dilated():
    with pytest.raises(ConfigError, match="is no ResNet"):
        build_segmentor(replace(small("test_convnext"), output_stride=8))


def test_the_640_variant_follows_from_the_image_size():
    config = replace(RECIPES["upernet-160k"]("vit_b"), init="none", image_size=640)
    settings = model_config(config)
    assert settings["test_cfg"] == {"mode": "slide", "crop_size": (640, 640), "stride": (426, 426)}
    settings = model_config(replace(config, image_size=512))
    assert settings["test_cfg"]["stride"] == (341, 341)
    assert settings["neck"]["rescales"] == [4, 2, 1, 0.5]


def test_mmcv_still_says_that_it_is_not_compiled_and_its_operators_refuse():
    assert "mmcv._ext" not in sys.modules
    assert not mmcv_full_available()
    with pytest.raises(ConfigError, match="nms needs the compiled mmcv"):
        sys.modules["mmcv.ops"].nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
