import json
import re
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torchvision

from backbones import (
    Backbone,
    WeightsError,
    build_backbone,
    build_classifier,
    load_weights,
    save_backbone,
    to_openmixup,
)
from tests.backbones.networks import TINY, tiny

GOLDEN = Path(__file__).parents[1] / "data" / "golden" / "tiny"
RELEASED = {
    "tiny_a2mim_r50_l3_init": ("r50", {"channels": (4, 8, 16, 32)}),
    "tiny_simmim_r50": ("r50", {"channels": (4, 8, 16, 32)}),
    "tiny_a2mim_vit_l0": ("vit_b", {"embed_dim": 64, "depth": 2, "num_heads": 4, "mlp_ratio": 4}),
    "tiny_simmim_vit": ("vit_b", {"embed_dim": 64, "depth": 2, "num_heads": 4, "mlp_ratio": 4}),
    "tiny_a2mim_convnext_l3_init_fft": ("convnext_t", {"depths": (1, 1, 2, 1), "dims": (16, 32, 64, 96)}),
}


def released_checkpoint(case: str) -> dict[str, torch.Tensor]:
    """The tensors of a golden network under their released names, from their recipe (golden README)."""
    state = {}
    for _, name, shape, kind, mean, deviation, seed in json.loads((GOLDEN / f"{case}.json").read_text())["recipe"]:
        values = np.random.RandomState(seed).standard_normal(int(np.prod(shape))).reshape(shape)
        values = np.abs(values) if kind == "absnormal" else values
        state[name] = torch.from_numpy((mean + deviation * values).astype(np.float32))
    return state


def randomised(net: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in net.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.1)
    return net


def assert_equal_states(found: torch.nn.Module, expected: torch.nn.Module) -> None:
    one, other = found.state_dict(), expected.state_dict()
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


# --- what fits


@pytest.mark.parametrize("case", RELEASED)
def test_released_pretraining_checkpoints_load_with_nothing_missing(case, tmp_path):
    state = released_checkpoint(case)
    torch.save({"state_dict": state, "meta": {"epoch": 300}}, tmp_path / "full.pth")
    name, options = RELEASED[case]
    backbone = build_backbone(name, **options)
    report = load_weights(backbone, tmp_path / "full.pth")
    assert report.missing == () and report.changed == ()
    assert {dropped.split(".")[0] for dropped in report.dropped} <= {"mask_token", "mask_gamma", "neck"}
    encoder = [key for key in state if key.startswith("backbone.") and "mask_" not in key]
    assert report.num_loaded == len(encoder)
    total = sum(tensor.double().sum() for tensor in backbone.net.state_dict().values() if tensor.is_floating_point())
    assert total.item() == pytest.approx(sum(state[key].double().sum().item() for key in encoder), rel=1e-9)


@pytest.mark.parametrize("name", TINY)
def test_an_encoder_saved_by_a_run_is_the_start_of_a_classifier(name, tmp_path):
    backbone = randomised(tiny(name))
    save_backbone(tmp_path / "backbone.safetensors", backbone, {"method": "a2mim"})
    classifier = build_classifier(name, 7, image_size=64, **TINY[name])
    report = load_weights(classifier, tmp_path, allow_missing=("head.fc", "head.weight", "head.bias", "fc."))
    assert len(report.missing) == 2 and report.description["method"] == "a2mim"
    images = torch.randn(2, 3, 64, 64)
    backbone.eval(), classifier.eval()
    with torch.no_grad():
        features = [found.abs().sum() for found in Backbone(classifier).features(images)]
        assert torch.allclose(torch.stack(features), torch.stack([m.abs().sum() for m in backbone.features(images)]))


def test_the_final_norm_of_a_mean_pooled_vit_moves_behind_the_pooling_and_back(tmp_path):
    backbone = randomised(tiny("vit_b"))
    save_backbone(tmp_path / "backbone.safetensors", backbone, {})
    classifier = build_classifier("vit_b", 7, image_size=64, **TINY["vit_b"])
    report = load_weights(classifier, tmp_path, allow_missing=("head.",))
    assert report.changed == ("the file's norm is the network's fc_norm",)
    assert torch.equal(classifier.fc_norm.weight, backbone.net.norm.weight)

    save_backbone(tmp_path / "backbone.safetensors", classifier, {})
    other = tiny("vit_b")
    report = load_weights(other, tmp_path)
    assert report.changed == ("the file's fc_norm is the network's norm",)
    assert report.dropped == ("head.bias", "head.weight")
    assert_equal_states(other.net, backbone.net)


def test_torchvision_resnet50_gives_the_same_features(tmp_path):
    torch.manual_seed(0)
    reference = torchvision.models.resnet50().eval()
    torch.save(reference.state_dict(), tmp_path / "resnet50.pth")
    backbone = build_backbone("r50").eval()
    report = load_weights(backbone, tmp_path / "resnet50.pth")
    assert report.dropped == ("fc.bias", "fc.weight") and report.missing == ()
    images = torch.randn(1, 3, 96, 96)
    with torch.no_grad():
        x = reference.maxpool(reference.relu(reference.bn1(reference.conv1(images))))
        for name, found in zip(("layer1", "layer2", "layer3", "layer4"), backbone.features(images), strict=True):
            x = getattr(reference, name)(x)
            assert (found - x).abs().max() <= 1e-6 * x.abs().max()


def test_the_classifier_of_a_finetuned_file_is_loaded_where_it_fits(tmp_path):
    trained = randomised(build_classifier("r50", 5, **TINY["r50"]))
    export = tmp_path / "ft.pth"
    torch.save({"state_dict": to_openmixup(trained.state_dict())}, export)
    same = build_classifier("r50", 5, **TINY["r50"])
    assert load_weights(same, export).missing == ()
    assert_equal_states(same, trained)
    other = build_classifier("r50", 3, **TINY["r50"])
    fresh = other.fc.weight.clone()
    report = load_weights(other, export, allow_missing=("fc.",))
    assert report.missing == report.dropped == ("fc.bias", "fc.weight")
    assert torch.equal(other.fc.weight, fresh)
    assert torch.equal(other.conv1.weight, trained.conv1.weight)


def test_layers_the_encoder_does_not_use_may_be_in_the_file(tmp_path):
    torch.save(timm.create_model("mobilenetv3_small_100").state_dict(), tmp_path / "weights.pth")
    report = load_weights(Backbone(timm.create_model("mobilenetv3_small_100")), tmp_path / "weights.pth")
    assert set(report.dropped) == {"conv_head.weight", "conv_head.bias", "classifier.weight", "classifier.bias"}


def test_half_precision_files_load_into_single_precision_networks(tmp_path):
    source = randomised(tiny("r50"))
    torch.save(
        {k: v.half() if v.is_floating_point() else v for k, v in source.net.state_dict().items()}, tmp_path / "h.pth"
    )
    target = tiny("r50")
    load_weights(target, tmp_path / "h.pth")
    assert target.net.conv1.weight.dtype == torch.float32
    assert torch.allclose(target.net.conv1.weight, source.net.conv1.weight, atol=1e-3)


def test_pointwise_convolutions_and_linear_layers_hold_the_same_weights(tmp_path):
    linear = randomised(tiny("convnext_t"))
    save_backbone(tmp_path / "w.safetensors", linear, {})
    convolution = build_backbone("convnext_t", image_size=64, conv_mlp=True, **TINY["convnext_t"])
    load_weights(convolution, tmp_path / "w.safetensors")
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(convolution.eval()(images), linear.eval()(images), atol=1e-4)


# --- other image sizes


def test_a_vit_for_a_larger_image_gets_resized_positions_and_says_so(tmp_path):
    small = randomised(tiny("vit_b"))
    save_backbone(tmp_path / "w.safetensors", small, {})
    large = tiny("vit_b", image_size=96)
    report = load_weights(large, tmp_path / "w.safetensors")
    (sentence,) = report.changed
    assert "resized for another image or window size" in sentence and "pos_embed from [1, 17, 32]" in sentence
    assert large.net.pos_embed.shape == (1, 37, 32)
    assert torch.equal(large.net.pos_embed[:, :1], small.net.pos_embed[:, :1])  # the class token's stays
    table, source = (net.net.blocks[0].attn.relative_position_bias_table for net in (large, small))
    assert table.shape == (11 * 11 + 3, 4)
    assert torch.equal(table[-3:], source[-3:])  # the class token's three rows
    assert torch.allclose(table[60], source[24], atol=1e-5)  # offset (0, 0), the middle of both tables


def test_a_swin_pretrained_with_window_6_fills_window_7(tmp_path):
    source = randomised(build_backbone("swin_t", image_size=192, **TINY["swin_t"]))
    save_backbone(tmp_path / "w.safetensors", source, {})
    target = build_backbone("swin_t", image_size=224, **TINY["swin_t"])
    report = load_weights(target, tmp_path / "w.safetensors")
    assert "from [121, 1] to [169, 1]" in report.changed[0]
    tables = [net.net.layers[0].blocks[0].attn.relative_position_bias_table for net in (source, target)]
    assert torch.allclose(tables[0][60], tables[1][84], atol=1e-5)


def test_the_shared_bias_table_of_the_official_simmim_fills_every_block(tmp_path):
    official = build_backbone(
        "vit_b",
        image_size=64,
        use_abs_pos_emb=False,
        use_rel_pos_bias=False,
        use_shared_rel_pos_bias=True,
        **TINY["vit_b"],
    )
    state = {f"encoder.{k}": v for k, v in randomised(official).net.state_dict().items()}
    extra = {
        "encoder.mask_token": torch.zeros(1, 1, 32),
        "decoder.0.weight": torch.zeros(1),
        "decoder.0.bias": torch.zeros(1),
    }
    index = {"encoder.rel_pos_bias.relative_position_index": torch.zeros(17, 17, dtype=torch.long)}
    torch.save({"model": state | extra | index}, tmp_path / "simmim.pth")
    target = build_backbone("vit_b", image_size=64, use_abs_pos_emb=False, **TINY["vit_b"])
    report = load_weights(target, tmp_path / "simmim.pth")
    assert report.changed == ("the file's shared bias table fills those of 3 blocks",)
    assert set(report.dropped) == {"mask_token", "decoder.0.weight", "decoder.0.bias"}
    for block in target.net.blocks:
        assert torch.equal(
            block.attn.relative_position_bias_table, official.net.rel_pos_bias.relative_position_bias_table
        )
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(target.eval()(images), official.eval()(images), atol=1e-5)


def test_the_official_simmim_swin_merges_at_the_end_of_its_stages(tmp_path):
    source = randomised(tiny("swin_t"))
    official = {}
    for name, tensor in source.net.state_dict().items():
        for stage in (1, 2, 3):
            if name.startswith(f"layers.{stage}.downsample."):
                name = name.replace(f"layers.{stage}", f"layers.{stage - 1}")
                break
        official[f"encoder.{name}"] = tensor
    official["encoder.layers.0.blocks.1.attn_mask"] = torch.zeros(4)
    official["decoder.0.weight"] = torch.zeros(1)
    torch.save({"model": official}, tmp_path / "simmim.pth")
    target = tiny("swin_t")
    assert load_weights(target, tmp_path / "simmim.pth").convention == "microsoft"
    assert_equal_states(target.net, source.net)


# --- what does not fit


def test_every_kind_of_mismatch_is_counted_and_named_and_nothing_is_loaded(tmp_path):
    state = tiny("r50").net.state_dict()
    missing = [name for name in state if name.startswith("layer3.1.bn")][:7]
    for name in missing:
        del state[name]
    state["layer9.weight"] = torch.zeros(3)
    state["conv1.weight"] = torch.zeros(64, 3, 3, 3)
    state["layer1.0.conv1.weight"] = torch.full_like(state["layer1.0.conv1.weight"], 9.0)
    torch.save(state, tmp_path / "weights.pth")
    target = tiny("r50")
    before = {name: tensor.clone() for name, tensor in target.net.state_dict().items()}
    with pytest.raises(WeightsError) as caught:
        load_weights(target, tmp_path / "weights.pth")
    message = str(caught.value)
    assert caught.value.exit_code == 2
    weights = sorted(name for name in missing if not name.endswith("num_batches_tracked"))
    assert len(weights) == 6
    assert f"6 missing: {', '.join(weights[:5])} and 1 more" in message
    assert "1 unexpected: layer9.weight" in message
    assert "1 of another shape: conv1.weight [64, 3, 3, 3] for [64, 3, 7, 7]" in message
    assert "Nothing was loaded" in message and str(tmp_path / "weights.pth") in message
    assert all(torch.equal(tensor, before[name]) for name, tensor in target.net.state_dict().items())


NOT_WEIGHTS = {
    "nan": (lambda t: t.index_fill(0, torch.tensor([0]), float("nan")), "1 not finite: {} (1 of 64 values)"),
    "inf": (lambda t: t / 0, "1 not finite: {}"),
    "too large": (lambda t: t.double() + 1e300, "1 not finite: {} (64 of 64 values)"),
    "negative": (lambda t: -t, "1 negative variances: {}"),
    "int8": (lambda t: t.to(torch.int8), "1 of another type: {} (int8 for float32)"),
    "int64": (lambda t: t.long(), "1 of another type: {} (int64 for float32)"),
    "bool": (lambda t: t.bool(), "1 of another type: {} (bool for float32)"),
    "complex": (lambda t: t.to(torch.complex64), "1 of another type: {} (complex64 for float32)"),
    "float8": (lambda t: t.to(torch.float8_e4m3fn), "1 of another type: {} (float8_e4m3fn for float32)"),
    "sparse": (lambda t: t.to_sparse(), "1 of another type: {} (stored as torch.sparse_coo for float32)"),
    "meta": (lambda t: t.to("meta"), "1 of another type: {} (a shape without values for float32)"),
}


@pytest.mark.parametrize("kind", NOT_WEIGHTS)
def test_values_that_no_network_has_are_refused_and_named(kind, tmp_path):
    change, message = NOT_WEIGHTS[kind]
    name = "layer3.0.bn3.running_var"
    state = randomised(tiny("r50")).net.state_dict()
    torch.save(state | {name: change(state[name])}, tmp_path / "weights.pth")
    target = tiny("r50")
    before = {key: tensor.clone() for key, tensor in target.net.state_dict().items()}
    with pytest.raises(WeightsError, match=re.escape(message.format(name)[:60])) as caught:
        load_weights(target, tmp_path / "weights.pth")
    assert caught.value.exit_code == 2
    assert all(torch.equal(tensor, before[key]) for key, tensor in target.net.state_dict().items())


def test_nan_in_a_tensor_that_changes_its_name_on_the_way_is_refused_too(tmp_path):
    state = randomised(tiny("vit_b")).net.state_dict()
    torch.save(state | {"norm.bias": state["norm.bias"] * float("nan")}, tmp_path / "weights.pth")
    classifier = build_classifier("vit_b", 7, image_size=64, **TINY["vit_b"])
    with pytest.raises(WeightsError, match=r"1 not finite: fc_norm\.bias"):
        load_weights(classifier, tmp_path / "weights.pth", allow_missing=("head.",))


def test_a_broken_old_head_and_a_count_as_floating_point_do_no_harm(tmp_path):
    state = randomised(tiny("r50")).net.state_dict()
    state["bn1.num_batches_tracked"] = torch.tensor(5.0)
    torch.save(state | {"fc.weight": torch.full((9, 4), float("nan"))}, tmp_path / "weights.pth")
    target = tiny("r50")
    load_weights(target, tmp_path / "weights.pth")
    assert target.net.bn1.num_batches_tracked.item() == 5


def test_the_encoder_of_another_architecture_is_refused_by_its_name(tmp_path):
    save_backbone(tmp_path / "backbone.safetensors", tiny("r50"), {})
    with pytest.raises(WeightsError, match=r"describes itself as r50.* does not fit ConvNeXt"):
        load_weights(tiny("convnext_t"), tmp_path)


def test_a_head_that_was_not_announced_as_new_is_missing(tmp_path):
    save_backbone(tmp_path / "backbone.safetensors", tiny("r50"), {})
    with pytest.raises(WeightsError, match=r"2 missing: fc\.bias, fc\.weight"):
        load_weights(build_classifier("r50", 3, **TINY["r50"]), tmp_path)


def test_another_width_is_refused_rather_than_resized(tmp_path):
    save_backbone(tmp_path / "backbone.safetensors", tiny("vit_b"), {})
    wider = build_backbone("vit_b", image_size=64, **{**TINY["vit_b"], "embed_dim": 64})
    with pytest.raises(WeightsError, match="of another shape: "):
        load_weights(wider, tmp_path)


def test_plain_vit_weights_do_not_pass_for_the_published_vit(tmp_path):
    """An MAE encoder has no relative positions and a joint qkv bias: it belongs into timm's plain ViT."""
    options = {"embed_dim": 32, "depth": 3, "num_heads": 4, "mlp_ratio": 2}
    mae = timm.create_model("vit_base_patch16_224", img_size=64, num_classes=0, **options)
    torch.save({"model": mae.state_dict() | {"mask_token": torch.zeros(1, 1, 32)}}, tmp_path / "mae.pth")
    with pytest.raises(WeightsError, match=r"9 missing: blocks\.0\.attn\.relative_position_bias_table"):
        load_weights(tiny("vit_b"), tmp_path / "mae.pth")
    plain = build_backbone("vit_base_patch16_224", image_size=64, **options)
    assert load_weights(plain, tmp_path / "mae.pth").dropped == ("mask_token",)


def test_the_report_is_one_readable_line(tmp_path):
    save_backbone(tmp_path / "backbone.safetensors", tiny("r50"), {})
    report = load_weights(build_classifier("r50", 3, **TINY["r50"]), tmp_path, allow_missing=("fc.",))
    assert str(report) == f"{report.num_loaded} tensors from {tmp_path} (timm names); 2 new: fc.bias, fc.weight"
