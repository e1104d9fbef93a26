"""Other people's files: whose they are, of which network, what fits, and the file that is made of them."""

import argparse
import os
import pickle
import re

import numpy as np
import pytest
import timm
import torch
from safetensors import safe_open
from timm.models.beit import Beit
from timm.models.vision_transformer import VisionTransformer

from backbones import Backbone, WeightsError, WeightsFileError, build_backbone, find_architecture, load_weights
from backbones.__main__ import main
from backbones.weights.files import open_weights
from backbones.weights.guess import guess_network, native_size
from backbones.weights.keymaps import find_keymap
from classification.classifier import load_classifier
from engine.errors import ConfigError
from tests.backbones.networks import tiny

VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, "num_classes": 0}


def filled(net: torch.nn.Module) -> dict[str, torch.Tensor]:
    """All tensors different, so that a swap of two could not hide; variances above 0."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in net.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=generator) * 0.2 + 0.05)
    return net.state_dict()


def below(prefix: str, state: dict) -> dict:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def zeros(*names: str) -> dict:
    return {name: torch.zeros(2) for name in names}


# --- whose it is


def checkpoints() -> dict[str, dict]:
    """Origin -> a checkpoint with the containers, prefixes and names of its authors', of small networks."""
    resnet, vit = filled(tiny("r50").net), filled(VisionTransformer(**VIT))
    convnext = filled(tiny("convnext_t").net)
    second = {f"stages.0.0.grn.{name}": torch.zeros(1, 1, 1, 32) for name in ("gamma", "beta")}
    facebook = find_keymap("facebook", "convnext").from_timm(convnext)
    detectron2 = find_keymap("detectron2", "resnet").from_timm(resnet)
    masked = {re.sub("^norm", "pred_head.transforms.0.0", name): tensor for name, tensor in vit.items()}
    pixels = zeros("neck.decoder_pred.0.weight", "backbone.mask_gamma")
    return {
        "a2mim": {"state_dict": below("module.backbone.", resnet) | below("module.", pixels), "meta": {}},
        "simmim": {"model": below("encoder.", vit) | zeros("encoder.mask_token", "decoder.0.weight"), "epoch": 1},
        "mae": {"model": vit | zeros("mask_token", "decoder_embed.weight", "decoder_blocks.0.norm1.weight")},
        "spark": {"module": below("sparse_encoder.sp_cnn.", resnet) | zeros("dense_decoder.x", "mask_tokens.0")},
        "fcmae": {"model": below("encoder.", facebook | second) | zeros("mask_token", "proj.weight", "pred.weight")},
        "maskfeat": {"model_state": masked | zeros("pred_head.projections.0.weight", "mask_token"), "epoch": 3},
        "ijepa": {"encoder": zeros("module.norm.weight"), "predictor": {}, "target_encoder": below("module.", vit)},
        "dino": {"student": zeros("module.x"), "teacher": below("backbone.", vit) | zeros("head.mlp.0.weight")},
        "mmseg": {"state_dict": below("backbone.", resnet) | zeros("decode_head.conv_seg.weight")},
        "mmdet": {"state_dict": below("backbone.", resnet) | zeros("rpn_head.rpn_conv.weight")},
        "detectron2": {"model": below("backbone.bottom_up.", detectron2) | zeros("roi_heads.box.weight")},
        "openmixup": {"state_dict": below("backbone.", resnet) | zeros("head.fc.weight")},
        "convnext": {"model": facebook},
        "timm": resnet,
    }  # fmt: skip


@pytest.mark.parametrize("origin", checkpoints())
def test_the_names_tell_whose_it_is_and_the_encoder_is_found(origin, tmp_path):
    checkpoint = checkpoints()[origin]
    torch.save(checkpoint, tmp_path / "file.pth")
    file = open_weights(tmp_path / "file.pth")
    assert file.origin == origin
    vit = origin in ("simmim", "mae", "maskfeat", "ijepa", "dino")
    net = VisionTransformer(**VIT) if vit else tiny("convnext_t" if origin in ("fcmae", "convnext") else "r50").net
    grn = {f"stages.0.blocks.0.mlp.grn.{part}" for part in ("weight", "bias")} if origin == "fcmae" else set()
    found = {name for name in file.state if not name.startswith(("head.mlp", "head.fc", "fc"))}
    assert found == net.state_dict().keys() | grn


@pytest.mark.parametrize(
    ("checkpoint", "containers"),
    [
        ({"pytorch-lightning_version": "2.1", "state_dict": "model."}, ("state_dict", "model.")),
        ({"state_dict": "model._orig_mod.module."}, ("state_dict", "model._orig_mod.module.")),
        ({"model": "", "optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}}}, ("model",)),
        ({"model_state": "module."}, ("model_state", "module.")),
    ],
)
def test_containers_are_named_and_what_else_is_there(checkpoint, containers, tmp_path):
    state = filled(tiny("r50").net)
    content = {key: below(value, state) if isinstance(value, str) and key != "pytorch-lightning_version" else value
               for key, value in checkpoint.items()}  # fmt: skip
    torch.save({**content, "args": argparse.Namespace(lr=1)}, tmp_path / "file.pth")
    file = open_weights(tmp_path / "file.pth")
    assert file.containers == containers and file.state.keys() == state.keys()
    assert file.unused == (("optimizer",) if "optimizer" in checkpoint else ())


@pytest.mark.parametrize("kind", ["container", "prefix", "ema_"])
def test_averaged_weights_are_taken_where_they_are_asked_for(kind, tmp_path):
    state = filled(tiny("r50").net)
    averaged = {name: tensor + 1 for name, tensor in state.items()}
    content = {
        "container": {"model": state, "model_ema": below("module.", averaged)},
        "prefix": {"state_dict": below("model.", state) | below("model_ema.module.", averaged)},
        "ema_": {"state_dict": state | {f"ema_{name.replace('.', '_')}": averaged[name] for name in state}},
    }[kind]
    torch.save(content, tmp_path / "file.pth")
    plain, taken = open_weights(tmp_path / "file.pth"), open_weights(tmp_path / "file.pth", ema=True)
    assert torch.equal(plain.state["bn1.bias"], state["bn1.bias"])
    assert torch.equal(taken.state["bn1.bias"], averaged["bn1.bias"])
    assert plain.state.keys() == taken.state.keys() == state.keys()
    assert plain.unused == (("model_ema",) if kind == "container" else ())


# --- what is stored otherwise


def test_the_norm_before_maskfeats_prediction_is_the_final_norm(tmp_path):
    net = VisionTransformer(**VIT)
    state = filled(net)
    renamed = {
        name.replace("norm.", "pred_head.transforms.0.0.") if name.startswith("norm.") else name: t
        for name, t in state.items()
    }
    other = zeros("mask_token", "pred_head.projections.0.weight", "pred_head.transforms.0.1.weight")
    torch.save({"model_state": renamed | other}, tmp_path / "maskfeat.pyth")
    target = Backbone(VisionTransformer(**VIT), image_size=32)
    report = load_weights(target, tmp_path / "maskfeat.pyth")
    assert torch.equal(target.net.norm.weight, state["norm.weight"])
    assert report.dropped == tuple(sorted(other)) and "its final norm is that before its prediction" in str(report)


def same_output(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return torch.allclose(one.eval()(images), other.eval()(images), atol=1e-5)


@pytest.mark.parametrize("name", ["swin_t", "convnext_t"])
def test_the_norms_that_a_segmentor_puts_on_maps_are_left_out(name, tmp_path):
    net = tiny(name)
    foreign = find_keymap("openmixup", name[:-2]).from_timm(filled(net.net))
    norms = zeros(*(f"backbone.norm{number}.{part}" for number in range(3) for part in ("weight", "bias")))
    head = zeros("decode_head.conv_seg.weight", "auxiliary_head.conv_seg.weight")
    torch.save({"state_dict": below("backbone.", foreign) | norms | head, "meta": {}}, tmp_path / "upernet.pth")
    target = tiny(name)
    report = load_weights(target, tmp_path / "upernet.pth")
    assert len(report.dropped) == 8 and report.missing == ()
    own = target.net.state_dict()
    assert all(torch.equal(own[key], tensor) for key, tensor in net.net.state_dict().items())
    assert open_weights(tmp_path / "upernet.pth").origin == "mmseg"


@pytest.mark.parametrize("scales", [None, 0.1])
@pytest.mark.parametrize("to", ["one bias", "two biases"])
def test_biases_of_queries_and_values_become_those_of_queries_keys_and_values_and_back(to, scales, tmp_path):
    one = VisionTransformer(**VIT, init_values=scales, global_pool="token")
    two = Beit(**VIT, init_values=scales, use_abs_pos_emb=True, global_pool="token")
    source, target = (two, one) if to == "one bias" else (one, two)
    torch.save(filled(source), tmp_path / "file.pth")  # keys with biases of their own in the second case
    report = load_weights(target, tmp_path / "file.pth")
    assert ("are folded" if to == "one bias" else "left out of 2 blocks") in str(report)
    assert same_output(source, target)


@pytest.mark.parametrize("convention", ["facebook", "sparse facebook"])
def test_a_pre_trained_convnext_without_a_final_norm_begins_it(convention, tmp_path):
    net = build_backbone("convnextv2_atto", depths=(1, 1, 1, 1), dims=(8, 8, 16, 16))
    state = {name: tensor for name, tensor in filled(net.net).items() if not name.startswith("head.")}
    torch.save({"model": below("encoder.", find_keymap(convention, "convnext").from_timm(state))}, tmp_path / "file.pt")
    target = build_backbone("convnextv2_atto", depths=(1, 1, 1, 1), dims=(8, 8, 16, 16))
    report = load_weights(target, tmp_path / "file.pt")
    assert "no final norm: it begins at 1 and 0" in str(report)
    own = target.net.state_dict()
    assert all(torch.equal(own[name], tensor.reshape(own[name].shape)) for name, tensor in state.items())
    assert bool((own["head.norm.weight"] == 1).all() and (own["head.norm.bias"] == 0).all())


def test_detectron2s_pickle_of_arrays_is_read_and_one_with_code_is_not(tmp_path):
    state = filled(tiny("r50").net)
    arrays = {name: tensor.numpy() for name, tensor in find_keymap("detectron2", "resnet").from_timm(state).items()}
    for protocol in (2, 4):
        content = {"model": arrays, "__author__": "someone", "matching_heuristics": True}
        (tmp_path / "R-50.pkl").write_bytes(pickle.dumps(content, protocol=protocol))
        report = load_weights(tiny("r50"), tmp_path / "R-50.pkl")
        assert (report.convention, report.missing, report.dropped) == ("detectron2", (), ())
        assert report.num_loaded == len(arrays)

    class Payload:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    (tmp_path / "R-50.pkl").write_bytes(pickle.dumps({"model": arrays, "author": Payload()}))
    with pytest.raises(WeightsFileError, match=r"contains code \(posix\.mkdir\)"):
        open_weights(tmp_path / "R-50.pkl")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_numbers_of_numpy_beside_the_weights_are_no_code(zipped, tmp_path):
    state = filled(tiny("r50").net)
    beside = {"best": np.float64(78.3), "epoch": np.int64(3), "losses": np.arange(3.0), "flags": np.array([True])}
    torch.save({"model": state, **beside}, tmp_path / "file.pth", _use_new_zipfile_serialization=zipped)
    assert open_weights(tmp_path / "file.pth").state.keys() == state.keys()


# --- which network it is of


@pytest.mark.parametrize(
    "name", ["resnet18", "resnet50c", "vit_tiny_patch16_224", "vit_s", "beit_base_patch16_224", "swin_t"]
)
def test_the_network_is_found_by_the_size_of_its_encoder(name, tmp_path):
    architecture = find_architecture(name)
    with torch.device("meta"):
        net = timm.create_model(architecture.timm_name, **{**architecture.options, **architecture.for_size(224)})
    torch.save({"x": torch.zeros(1)}, tmp_path / "file.pth")
    file = open_weights(tmp_path / "file.pth")
    file.state.clear()
    file.state.update(net.state_dict())  # shapes without memory
    assert guess_network(file, "file") == name
    assert native_size(file.state) == 224


def test_tensors_of_no_known_network_ask_for_its_name(tmp_path):
    torch.save(filled(tiny("r50").net), tmp_path / "file.pth")
    with pytest.raises(WeightsError, match=r"has an encoder of 49,568 numbers .* --model NAME"):
        guess_network(open_weights(tmp_path / "file.pth"), "file")


# --- the command


@pytest.fixture(scope="module")
def mae(tmp_path_factory):
    """A whole MAE checkpoint of a small ViT; (file, its encoder's state)."""
    path = tmp_path_factory.mktemp("mae") / "mae_pretrain_full.pth"
    state = filled(timm.create_model("vit_tiny_patch16_224", num_classes=0, depth=12))
    decoder = {"mask_token": torch.rand(1, 1, 512), "decoder_embed.weight": torch.rand(512, 192)}
    torch.save({"model": state | decoder, "optimizer": {"state": {0: {"exp_avg": torch.zeros(1)}}}}, path)
    return path, state


def test_import_prints_what_it_found_and_writes_a_file_of_ours(mae, tmp_path, capsys):
    path, state = mae
    assert main(["import", str(path), "--from", "mae", "-o", str(tmp_path / "vit.safetensors")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        f"{path}: MAE, timm names, below model",
        "network     vit_tiny_patch16_224 at 224 px",
        f"matched     {len(state)}",
        *(f"{kind:<11} 0" for kind in ("renamed", "resized", "missing", "unexpected", "mis-shaped")),
        "unused      1: optimizer (all of it)",
        "classifier  0",
        "beside      2: decoder_embed.weight (to go on from), mask_token (to go on from)",
        f"written     {tmp_path / 'vit.safetensors'}",
    ]
    target = build_backbone("vit_tiny_patch16_224")
    assert load_weights(target, tmp_path / "vit.safetensors").num_loaded == len(state)
    assert all(torch.equal(tensor, target.net.state_dict()[name]) for name, tensor in state.items())
    file = open_weights(tmp_path / "vit.safetensors")
    assert file.origin == "mim-benchmark" and sorted(file.rest) == ["decoder_embed.weight", "mask_token"]
    told = {"name": "vit_tiny_patch16_224", "image_size": 224, "imported_from": path.name, "origin": "mae"}
    assert file.description == told


def test_import_for_another_size_resizes_and_says_so(mae, tmp_path, capsys):
    path, _ = mae
    assert main(["import", str(path), "--image-size", "96", "-o", str(tmp_path / "vit.safetensors")]) == 0
    assert "resized     1: pos_embed from [1, 197, 192] to [1, 37, 192]" in capsys.readouterr().out
    with safe_open(tmp_path / "vit.safetensors", "pt") as file:
        assert file.get_slice("pos_embed").get_shape() == [1, 37, 192]


def test_import_of_openmixups_names_lists_what_was_renamed(tmp_path, capsys):
    state = filled(timm.create_model("vit_tiny_patch16_224", num_classes=5))
    foreign = find_keymap("openmixup", "vit").from_timm(state)
    head = {name: tensor for name, tensor in foreign.items() if name.startswith("head.")}
    torch.save(
        {"state_dict": below("backbone.", {n: t for n, t in foreign.items() if n not in head}) | head},
        tmp_path / "f.pth",
    )
    assert main(["import", str(tmp_path / "f.pth"), "-o", str(tmp_path / "vit.safetensors")]) == 0
    said = capsys.readouterr().out
    assert "renamed     148: patch_embed.projection.weight -> patch_embed.proj.weight, " in said
    assert "unused      2: head.bias, head.weight" in said  # the names do not tell how it pools


@pytest.mark.parametrize("num_classes", [3, 1000])
def test_an_imported_classifier_is_evaluated_as_one_of_ours(num_classes, tmp_path, capsys):
    network = timm.create_model("convnextv2_atto", num_classes=num_classes)
    state = filled(network)
    torch.save({"model": find_keymap("facebook", "convnext").from_timm(state)}, tmp_path / "ft.pt")
    output = tmp_path / "atto.safetensors"
    assert main(["import", str(tmp_path / "ft.pt"), "--model", "convnextv2_atto", "-o", str(output)]) == 0
    assert "classifier  2: head.fc.bias, head.fc.weight" in capsys.readouterr().out
    classifier = load_classifier(output)
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(classifier.network(images), network.eval()(images), rtol=1e-4)
    first = "0" if num_classes == 3 else "n01440764"
    assert (classifier.classes[0], len(classifier.classes)) == (first, num_classes)
    assert load_weights(build_backbone("convnextv2_atto"), output).dropped == ("head.fc.bias", "head.fc.weight")
    with torch.no_grad():  # the file of others itself
        assert torch.equal(load_classifier(tmp_path / "ft.pt").network(images), classifier.network(images))
    backbone = {name: tensor for name, tensor in state.items() if not name.startswith("head.fc")}
    torch.save({"model": find_keymap("facebook", "convnext").from_timm(backbone)}, tmp_path / "encoder.pt")
    with pytest.raises(ConfigError, match="no classifier that could be used"):
        load_classifier(tmp_path / "encoder.pt")


def test_a_missing_encoder_tensor_is_an_error_unless_partial_is_allowed(mae, tmp_path, capsys):
    _, state = mae
    part = {name: tensor for name, tensor in state.items() if not name.startswith("blocks.3.attn.qkv")}
    torch.save(part | {"blocks.3.extra": torch.zeros(1), "norm.bias": torch.zeros(3)}, tmp_path / "part.pth")
    arguments = ["import", str(tmp_path / "part.pth"), "--model", "vit_tiny_patch16_224"]
    output = ["-o", str(tmp_path / "vit.safetensors")]
    assert main([*arguments, *output]) == 2
    error = capsys.readouterr().err
    assert "2 missing: blocks.3.attn.qkv.bias, blocks.3.attn.qkv.weight" in error and "--allow-partial" in error
    assert "1 unexpected: blocks.3.extra" in error and "1 of another shape: norm.bias [3] for [192]" in error
    assert not (tmp_path / "vit.safetensors").exists()
    assert main([*arguments, *output, "--allow-partial"]) == 0
    said = capsys.readouterr().out
    assert "missing     2: blocks.3" in said and "unexpected  1: " in said and "mis-shaped  1: norm.bias" in said
    assert open_weights(tmp_path / "vit.safetensors").description["partial"] == {"missing": 2, "of another shape": 1}


def test_import_refuses_what_cannot_be(mae, tmp_path, capsys):
    path, state = mae
    torch.save({**state, "norm.bias": torch.full((192,), torch.nan)}, tmp_path / "nan.pth")
    for arguments, code, said in (
        ([str(path), "--from", "detectron2"], 2, "is of MAE by its names"),
        ([str(path), "--model", "vit_nothing"], 2, "no model is called 'vit_nothing'"),
        ([str(path), "-o", str(tmp_path / "x.pth")], 2, "must end in .safetensors"),
        ([str(path), "-o", str(tmp_path / "no" / "x.safetensors")], 2, "there is no folder"),
        ([str(tmp_path / "none.pth")], 5, "does not exist"),
        ([str(tmp_path / "nan.pth"), "--allow-partial"], 2, "1 not finite: norm.bias"),
    ):
        assert main(["import", *arguments]) == code
        assert said in capsys.readouterr().err
