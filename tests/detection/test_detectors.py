"""Detectors on six kinds of backbone, in torchvision and where it is installed in Detectron2."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from backbones import build_backbone, load_weights, save_backbone
from detection.config import DataConfig
from detection.encoder import C4Encoder, build_encoder
from detection.frameworks.contract import load_framework
from detection.grouping import GroupedPlan
from detection.optimizer import parameter_groups
from detection.samples import decode_mask
from engine.data.order import SampleKey
from engine.errors import ConfigError
from engine.training import optim
from tests.detection.folders import FRAMEWORKS, make_coco, needs_detectron2, read_split, tiny_config

STEMS = {  # model -> its first weight
    "r50": "conv1.weight",
    "convnext_t": "stem.0.weight",
    "swin_t": "patch_embed.proj.weight",
    "vit_s": "patch_embed.proj.weight",
    "deit_s": "patch_embed.proj.weight",
    "regnety_002": "stem.conv.weight",
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_coco(tmp_path_factory.mktemp("coco"), num_train=8, num_val=2)


def set_up(root, model, framework, **changes):
    config = tiny_config(root, model=model, framework=framework, batch_size=2, **changes)
    config = replace(config, data=replace(config.data, short_sides=(48,), square=64))
    split = read_split(root, "train", training=True, masks=config.has_masks)
    return config, split, load_framework(framework)


def batch_of(config, split, library):
    samples = library.samples(split, config, True, None)
    return [samples[key] for key in GroupedPlan(split.is_wide, config.batch_size, 0, 2).batch(0)]


def encoder_of(detector):
    return next(
        m for m in detector.modules() if hasattr(m, "backbone") and type(m).__name__ in ("Encoder", "C4Encoder")
    )


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("model", STEMS)
def test_one_step_trains_the_whole_network_on_the_backbones_own_features(root, tmp_path, model, framework):
    config, split, library = set_up(root, model, framework)
    source = build_backbone(model, image_size=64)
    save_backbone(tmp_path / "backbone.safetensors", source, {"method": "test"})
    backbone = build_encoder(config)
    load_weights(backbone, str(tmp_path))
    own, given = backbone.net.state_dict(), source.net.state_dict()
    assert own.keys() == given.keys()
    assert all(torch.equal(own[name], given[name]) for name in own)

    detector = library.build(config, backbone, len(split.category_ids))
    optimizer = optim.build(config.optimizer, parameter_groups(detector, config), config.learning_rate)
    batch = batch_of(config, split, library)
    passed = {}
    encoder_of(detector).register_forward_hook(lambda _, inputs, maps: passed.update(images=inputs[0], maps=maps))
    detector.eval()
    with torch.no_grad():
        detector(batch) if framework == "detectron2" else detector([sample["image"] for sample in batch])
        expected = source.eval().features(passed["images"])
    found = list(passed["maps"].values())
    expected = expected[-1:] if len(found) == 1 else expected
    for one, other in zip(found, expected, strict=True):
        assert (one - other).abs().max() <= 1e-6 * max(1.0, float(other.abs().max()))
    image = batch[0]["image"].float()
    mean = torch.tensor([123.675, 116.28, 103.53]).view(3, 1, 1)
    std = torch.tensor([58.395, 57.12, 57.375]).view(3, 1, 1)
    height, width = image.shape[1:]
    assert torch.allclose(passed["images"][0, :, :height, :width], (image - mean) / std, atol=1e-5)  # RGB, unflipped

    detector.train()
    losses = library.losses(detector, batch)
    sum(losses.values()).backward()
    without = [name for name, p in detector.named_parameters() if p.requires_grad and p.grad is None]
    assert not without
    stem = backbone.net.get_parameter(STEMS[model])
    assert float(stem.grad.abs().sum()) > 0
    before = stem.detach().clone()
    optimizer.step()
    assert not torch.equal(stem, before)


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("model", ["test_resnet", "test_vit"])
def test_retinanet_trains_and_predicts_boxes_without_masks(root, model, framework):
    config, split, library = set_up(root, model, framework, detector="retinanet-fpn")
    config = replace(config, heads=replace(config.heads, score_threshold=0.001))
    detector = library.build(config, build_encoder(config), 3)
    batch = batch_of(config, split, library)
    sum(library.losses(detector.train(), batch).values()).backward()
    assert not [name for name, p in detector.named_parameters() if p.requires_grad and p.grad is None]
    with torch.no_grad():
        results = library.predictor(config, None)(detector.eval(), batch)
    assert results
    assert set(results[0]) == {"image_id", "label", "bbox", "score"}
    assert {result["label"] for result in results} <= {0, 1, 2}


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_detections_are_in_pixels_of_the_file_and_sorted_into_its_classes(root, framework):
    config, _, library = set_up(root, "test_resnet", framework)
    val = read_split(root, "val", training=False, masks=True)
    config = replace(config, image_size=60, heads=replace(config.heads, score_threshold=0.0))
    detector = library.build(config, build_encoder(config), 3).eval()
    heads = detector.roi_heads
    predictor = heads.mask_predictor.mask_fcn_logits if framework == "torchvision" else heads.mask_head.predictor
    torch.nn.init.constant_(predictor.bias, 50.0)  # every mask fills its box
    samples = library.samples(val, config, False, None)
    with torch.no_grad():
        results = library.predictor(config, None)(detector, [samples[SampleKey(0, i)] for i in range(2)])
    assert {result["image_id"] for result in results} == {1, 2}
    for result in results:
        assert result["label"] in (0, 1, 2)
        assert 0 <= result["score"] <= 1
        x, y, width, height = result["bbox"]
        assert -1e-3 <= x <= x + width <= 64 + 1e-3
        assert -1e-3 <= y <= y + height <= 48 + 1e-3
        mask = decode_mask(result["segmentation"], 48, 64)
        rows, columns = np.nonzero(mask)
        if width > 3 and height > 3:
            found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert found == pytest.approx([x, y, x + width, y + height], abs=1.6)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_predictions_and_losses_are_float32_under_bfloat16(root, framework):
    config, split, library = set_up(root, "test_resnet", framework)
    detector = library.build(config, build_encoder(config), 3).train()
    with torch.autocast("cpu", torch.bfloat16):
        losses = library.losses(detector, batch_of(config, split, library))
    assert {value.dtype for value in losses.values()} == {torch.float32}
    assert all(torch.isfinite(value) for value in losses.values())


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_images_without_any_target_left_still_give_finite_losses(root, framework):
    config, split, library = set_up(root, "test_resnet", framework)
    detector = library.build(config, build_encoder(config), 3).train()
    batch = batch_of(config, split, library)
    for sample in batch:
        if framework == "detectron2":
            sample["instances"] = sample["instances"][:0]
        else:
            sample.update({name: sample[name][:0] for name in ("boxes", "labels", "masks")})
    losses = library.losses(detector, batch)
    total = sum(losses.values())
    total.backward()
    assert torch.isfinite(total)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_number_of_classes_is_the_data_sets(root, framework):
    config, _, library = set_up(root, "test_resnet", framework)
    detector = library.build(config, build_encoder(config), 7)
    heads = detector.roi_heads
    predictor = heads.mask_predictor.mask_fcn_logits if framework == "torchvision" else heads.mask_head.predictor
    assert heads.box_predictor.cls_score.out_features == 8
    assert predictor.out_channels == (8 if framework == "torchvision" else 7)


def test_a_network_of_fixed_size_needs_a_square(root):
    config = tiny_config(root, model="vit_s")
    with pytest.raises(ConfigError, match=r"one size only: pad them to a square \(--data.square 64"):
        build_encoder(config)
    squared = replace(config, data=DataConfig(root=str(root), short_sides=(48,), max_side=64, square=64))
    assert build_encoder(squared).image_size == 64


def test_torchvisions_anchors_are_detectron2s(root):
    config, _, library = set_up(root, "test_resnet", "torchvision")
    detector = library.build(config, build_encoder(config), 3)
    assert detector.rpn.anchor_generator.strides == [4, 8, 16, 32, 64]
    images, _ = detector.transform([torch.zeros(3, 40, 64, dtype=torch.uint8)])
    maps = list(detector.backbone(images.tensors).values())
    assert maps[-1].shape[-1] == 1  # 64 pixels of a 64-pixel stride, though the map before it has 2 columns
    anchors = detector.rpn.anchor_generator(images, [level.bfloat16() for level in maps])[0]
    assert anchors.dtype == torch.float32
    first = torch.tensor([[-22.627417, -11.313708, 22.627417, 11.313708], [-16, -16, 16, 16.0]])
    assert torch.allclose(anchors[:2], first)
    assert torch.allclose(anchors[3:5], first + torch.tensor([4, 0, 4, 0.0]))


def test_region_scales_do_not_depend_on_the_first_batch(root):
    config, _, library = set_up(root, "test_resnet", "torchvision")
    detector = library.build(config, build_encoder(config), 3).eval()
    with torch.no_grad():
        detector([torch.zeros(3, 20, 30, dtype=torch.uint8)])  # mostly padding: inferring would be a factor 2 off
    assert detector.roi_heads.box_roi_pool.scales == [1 / 4, 1 / 8, 1 / 16, 1 / 32]


@pytest.mark.parametrize("model", ["r50", "convnext_t"])
def test_a_c4_encoder_gives_its_last_stage_away_and_both_halves_make_the_whole(model):
    whole = build_backbone(model, image_size=64).eval()
    split = build_backbone(model, image_size=64).eval()
    split.load_state_dict(whole.state_dict())
    encoder = C4Encoder(split)
    stage = encoder.take_last_stage()
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        c4 = encoder(images)["c4"]
        maps = whole.features(images)
        assert torch.allclose(c4, maps[-2], atol=1e-6)
        assert torch.allclose(stage(c4), maps[-1], atol=1e-5)
    names = {id(p) for p in encoder.parameters()}
    assert not names & {id(p) for p in stage.parameters()}


@pytest.mark.parametrize("model", ["swin_t", "vit_s"])
def test_a_network_without_a_last_stage_is_refused_for_c4(model):
    with pytest.raises(ConfigError, match="use a recipe with FPN"):
        C4Encoder(build_backbone(model, image_size=64))


@pytest.mark.parametrize("model", [pytest.param(name, marks=needs_detectron2) for name in ("r50", "convnext_t")])
def test_the_c4_head_is_the_last_stage_and_an_extra_norm(root, model):
    config, split, library = set_up(root, model, "detectron2", detector="mask-rcnn-c4")
    backbone = build_encoder(config)
    stage = list(backbone.net.get_submodule(backbone.net.feature_info[-1]["module"]).parameters())
    detector = library.build(config, backbone, 3)
    head = detector.roi_heads.res5
    assert [id(p) for p in head[0].parameters()] == [id(p) for p in stage]
    assert isinstance(head[1], torch.nn.BatchNorm2d)
    assert head[1].num_features == backbone.channels[-1]
    sum(library.losses(detector.train(), batch_of(config, split, library)).values()).backward()
    assert not [name for name, p in detector.named_parameters() if p.requires_grad and p.grad is None]
