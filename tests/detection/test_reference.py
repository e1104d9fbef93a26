"""Detectors equal to those of Detectron2's own configurations: same weights, batch, losses, gradients, detections."""

from dataclasses import replace

import pytest
import torch

from detection.encoder import build_encoder
from detection.export import detectron2_names
from detection.frameworks.contract import load_framework
from detection.recipes import RECIPES
from engine.data.order import SampleKey
from tests.detection.folders import make_coco, needs_detectron2, read_split

NUM_CLASSES = 3


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_coco(tmp_path_factory.mktemp("coco"), num_train=4, num_val=3)


def own_configuration(recipe):
    """Detectron2's model of the published file: its template, with what A2MIM's file changes in it."""
    from detectron2 import model_zoo
    from detectron2.config import instantiate
    from detectron2.layers import get_norm

    template = {"mask-rcnn-c4-1x": "mask_rcnn_c4", "mask-rcnn-fpn-1x": "mask_rcnn_fpn", "retinanet-fpn-1x": "retinanet"}
    model = model_zoo.get_config(f"common/models/{template[recipe]}.py").model
    resnet = model.backbone if "c4" in recipe else model.backbone.bottom_up
    resnet.stem.norm = resnet.stages.norm = "BN"
    resnet.stages.stride_in_1x1 = False
    resnet.freeze_at = 0
    model.pixel_mean, model.pixel_std = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
    model.input_format = "RGB"
    if "c4" in recipe:
        model.roi_heads.res5.norm, model.roi_heads.res5.stride_in_1x1 = "BN", False
    else:
        model.backbone.norm = "BN"
    if "retinanet" in recipe:
        model.num_classes = NUM_CLASSES
        return instantiate(model)
    model.roi_heads.num_classes = NUM_CLASSES
    if "fpn" in recipe:
        return instantiate(model)
    detector = instantiate(model)
    detector.roi_heads.res5.add_module("norm", get_norm("BN", 2048))  # A2MIM's Res5ROIHeadsExtraNorm
    return detector


@pytest.mark.parametrize(
    "recipe",
    [pytest.param(n, marks=needs_detectron2) for n in ("mask-rcnn-c4-1x", "mask-rcnn-fpn-1x", "retinanet-fpn-1x")],
)
def test_a_recipes_detector_is_detectron2s_own(root, recipe):
    config = RECIPES[recipe]()
    data = replace(config.data, root=str(root), short_sides=(90,), max_side=150)
    config = replace(config, image_size=90, data=data, heads=replace(config.heads, rois_per_image=16))
    library = load_framework("detectron2")
    ours = library.build(config, build_encoder(config), NUM_CLASSES)
    theirs = own_configuration(recipe)
    if config.has_masks:
        theirs.roi_heads.batch_size_per_image = 16
    weights = {name: ours.state_dict()[own] for name, own in detectron2_names(ours.state_dict()).items()}
    theirs.load_state_dict(weights)  # strict: the same tensors, by name and shape
    train_set = read_split(root, "train", training=True, masks=config.has_masks)
    batch = [library.samples(train_set, config, True, None)[SampleKey(0, index)] for index in (0, 1)]
    losses = []
    for detector in (ours, theirs):
        torch.manual_seed(3)
        losses.append(library.losses(detector.train(), batch))
        sum(losses[-1].values()).backward()
    assert {k: v.item() for k, v in losses[0].items()} == {k: v.item() for k, v in losses[1].items()}
    parameters = dict(theirs.named_parameters())
    names = {own: name for name, own in detectron2_names(dict(ours.named_parameters())).items()}
    trained = {own for own, parameter in ours.named_parameters() if parameter.requires_grad}
    assert {names[own] for own in trained} == parameters.keys()
    for own, name in names.items():
        ours_grad, grad = ours.get_parameter(own).grad, parameters[name].grad
        assert (ours_grad - grad).abs().max() <= 1e-5 * grad.abs().max(), name  # summed in another order

    val = library.samples(read_split(root, "val", training=False, masks=config.has_masks), config, False, None)
    for index in range(3):
        with torch.no_grad():
            found, expected = (d.eval()([val[SampleKey(0, index)]])[0]["instances"] for d in (ours, theirs))
        assert torch.equal(found.pred_boxes.tensor, expected.pred_boxes.tensor)
        assert torch.equal(found.scores, expected.scores)
        assert torch.equal(found.pred_classes, expected.pred_classes)
        if config.has_masks:
            assert torch.equal(found.pred_masks, expected.pred_masks)
