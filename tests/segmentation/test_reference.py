"""Our models and protocols against MMSegmentation's own configuration files: the same weights, logits, losses and
gradients, and the same numbers in the recipe."""

from dataclasses import replace
from pathlib import Path

import mmseg
import pytest
import torch
from mmengine.config import Config
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from segmentation.config import DataConfig
from segmentation.dump import runner_config
from segmentation.mmseg_adapter import build_segmentor, mmseg_scope
from segmentation.recipes import RECIPES
from segmentation.train import loss_function

pytestmark = pytest.mark.mmseg
CONFIGS = Path(mmseg.__file__).parent / ".mim" / "configs"
FILES = {
    ("upernet-160k", "r50"): "upernet/upernet_r50_4xb4-160k_ade20k-512x512.py",
    ("upernet-80k", "r50"): "upernet/upernet_r50_4xb4-80k_ade20k-512x512.py",
    ("fcn-160k", "r50"): "fcn/fcn_r50-d8_4xb4-160k_ade20k-512x512.py",
    ("upernet-160k", "convnext_t"): "convnext/convnext-tiny_upernet_8xb2-amp-160k_ade20k-512x512.py",
    ("upernet-160k", "swin_t"): "swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py",
    ("upernet-160k", "vit_b"): "mae/mae-base_upernet_8xb2-amp-160k_ade20k-512x512.py",  # A2MIM's, with another rate
}


def recipe(name, model):
    return replace(RECIPES[name](model), init="none", precision="float32", data=DataConfig(root="/nowhere"))


def ours_and_theirs(name, depth):
    """Our segmentor at 64 pixels and that of MMSegmentation's file with the 7x7 stem, holding the same weights."""
    config = replace(recipe(name, "r50"), model=f"resnet{depth}" if depth != 50 else "r50", image_size=64)
    ours = build_segmentor(replace(config, head=replace(config.head, dropout=0.0)))
    settings = Config.fromfile(CONFIGS / FILES[name, "r50"]).model
    settings.pop("pretrained")
    settings.backbone.update(type="ResNet", depth=depth, norm_cfg={"type": "BN"})
    settings.data_preprocessor.size = (64, 64)
    for head in (settings.decode_head, settings.auxiliary_head):
        head.update(norm_cfg={"type": "BN"}, dropout_ratio=0.0)
    if depth < 50:  # widths of the maps, as upernet_r18 has them
        settings.decode_head.in_channels = [64, 128, 256, 512] if name.startswith("upernet") else 512
        settings.auxiliary_head.in_channels = 256
    with mmseg_scope():
        theirs = MODELS.build(settings)
    renamed = {key.replace("backbone.encoder.net.", "backbone."): value for key, value in ours.state_dict().items()}
    missing, left = theirs.load_state_dict(renamed, strict=False)
    assert not missing
    assert set(left) <= {"backbone.fc.weight", "backbone.fc.bias"}
    return ours, theirs


@pytest.mark.parametrize(("name", "depth"), [("upernet-160k", 18), ("fcn-160k", 50)])
def test_logits_losses_and_gradients_are_those_of_mmsegmentations_own_file(name, depth):
    torch.manual_seed(0)
    ours, theirs = ours_and_theirs(name, depth)
    images = [torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8) for _ in range(2)]
    labels = [torch.randint(0, 150, (1, 64, 64), dtype=torch.uint8) for _ in range(2)]
    labels[0][:, :9] = 255
    losses = loss_function(ours)(ours, {"image": images, "label": labels})
    samples = [SegDataSample(gt_sem_seg=PixelData(data=label.long())) for label in labels]
    data = theirs.data_preprocessor({"inputs": images, "data_samples": samples}, training=True)
    expected = theirs(**data, mode="loss")
    assert set(losses) == {key for key in expected if "loss" in key}
    assert all(torch.equal(losses[key], expected[key]) for key in losses)
    for values in (losses, expected):
        sum(value for key, value in values.items() if "loss" in key).backward()
    gradients = {key.replace("backbone.encoder.net.", "backbone."): p.grad for key, p in ours.named_parameters()}
    compared = 0
    for key, parameter in theirs.named_parameters():
        assert torch.equal(gradients[key], parameter.grad), key
        compared += 1
    assert compared == sum(gradient is not None for gradient in gradients.values()) > 60
    inputs = data["inputs"]
    with torch.no_grad():
        assert torch.equal(ours.eval()(inputs, mode="tensor"), theirs.eval()(inputs, mode="tensor"))


@pytest.mark.parametrize(("name", "model"), FILES)
def test_heads_test_mode_data_and_schedule_are_those_of_mmsegmentations_own_file(name, model):
    theirs = Config.fromfile(CONFIGS / FILES[name, model], import_custom_modules=False)
    ours = Config(runner_config(recipe(name, model)))
    batch_norm = {"norm_cfg": {"type": "BN", "requires_grad": True}}  # theirs is synchronised, as ours is by the loop
    for head in ("decode_head", "auxiliary_head"):
        assert {"ignore_index": 255, **theirs.model[head], **batch_norm} == dict(ours.model[head])
    for key in ("mean", "std", "bgr_to_rgb", "pad_val", "seg_pad_val", "size"):
        assert tuple_of(theirs.model.data_preprocessor[key]) == pytest.approx(
            tuple_of(ours.model.data_preprocessor[key])
        )
    assert dict(theirs.model.test_cfg) == dict(ours.model.test_cfg)
    assert (theirs.model.get("neck") is None) == (ours.model.get("neck") is None)
    if neck := theirs.model.get("neck"):
        assert (neck.embed_dim, neck.rescales) == (ours.model.neck.embed_dim, ours.model.neck.rescales)
    assert steps(theirs.train_pipeline) == steps(ours.train_dataloader.dataset.pipeline)
    assert steps(theirs.test_pipeline) == steps(ours.val_dataloader.dataset.pipeline)
    assert theirs.train_cfg.max_iters == ours.train_cfg.max_iters
    assert theirs.train_cfg.val_interval == ours.train_cfg.val_interval
    assert [dict(part) for part in theirs.param_scheduler] == [dict(part) for part in ours.param_scheduler]
    rate = 4e-4 if model == "vit_b" else theirs.optim_wrapper.optimizer.lr  # BEiT's file, which A2MIM has, not MAE's
    optimizer = {key: value for key, value in theirs.optim_wrapper.optimizer.items() if key != "weight_decay"}
    assert {**optimizer, "lr": rate} == dict(ours.optim_wrapper.optimizer)
    assert theirs.optim_wrapper.optimizer.weight_decay == ours.optim_wrapper.paramwise_cfg.weight_decay
    assert theirs.model.backbone.get("drop_path_rate", 0.0) == ours.model.backbone.drop_path


def tuple_of(value):
    return tuple(value) if isinstance(value, list | tuple) else value


def steps(pipeline):
    """A pipeline without the two readers, which are ours."""
    return [dict(step) for step in pipeline if not step["type"].startswith(("Load", "Read"))]
