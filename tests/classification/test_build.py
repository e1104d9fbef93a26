"""Networks start from any encoder file that fits, from nothing else, and leave their encoder behind."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from backbones import BackboneError, WeightsError, build_backbone, load_weights, save_backbone
from classification.build import (
    build_network,
    classifier_prefix,
    export_encoder,
    is_convolutional,
    load_encoder,
    network_state,
    trainable,
)
from engine.config import check
from engine.errors import ConfigError
from engine.task import start_from
from tests.classification.folders import tiny_config


def network(model="test_resnet", num_classes=3, **changes):
    return build_network(tiny_config("unused", model=model, **changes), num_classes)


@pytest.fixture
def encoder_file(tmp_path):
    torch.manual_seed(7)
    encoder = build_backbone("test_resnet", image_size=32)
    save_backbone(tmp_path / "backbone.safetensors", encoder, {"method": "a2mim"})
    return tmp_path / "backbone.safetensors"


def test_the_encoder_is_loaded_and_only_the_classifier_is_new(encoder_file, tmp_path):
    net = network()
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    start_from(str(encoder_file), lambda source: load_encoder(net, source), run_dir)
    for name, value in load_file(encoder_file).items():
        assert torch.equal(net.state_dict()[name], value), name
    report = json.loads((run_dir / "initialisation.json").read_text())
    assert report["missing"] == ["fc.bias", "fc.weight"]
    assert report["description"]["method"] == "a2mim"
    assert report["num_loaded"] == len(load_file(encoder_file))


def test_a_run_folder_stands_for_its_encoder(encoder_file):
    net = network()
    load_encoder(net, str(encoder_file.parent))
    assert torch.equal(net.state_dict()["conv1.0.weight"], load_file(encoder_file)["conv1.0.weight"])


def test_weights_of_another_architecture_are_refused_and_nothing_is_loaded(encoder_file):
    net = network("test_convnext")
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(WeightsError, match="missing") as caught:
        load_encoder(net, str(encoder_file))
    assert caught.value.exit_code == 2
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_an_encoder_file_with_a_missing_key_is_refused_by_name(encoder_file, tmp_path):
    encoder = build_backbone("test_resnet", image_size=32)
    del encoder.net.layer4
    save_backbone(tmp_path / "part.safetensors", encoder.net, {})
    with pytest.raises(WeightsError, match=r"missing: layer4"):
        load_encoder(network(), str(tmp_path / "part.safetensors"))


def test_an_unknown_model_is_refused_with_the_nearest_names():
    with pytest.raises(BackboneError, match="test_resnet"):
        network("test_resnett")


def test_the_same_seed_builds_the_same_network():
    one, two, other = network(), network(), network(seed=1)
    assert torch.equal(one.fc.weight, two.fc.weight)
    assert not torch.equal(one.fc.weight, other.fc.weight)


def test_a_network_of_fixed_size_cannot_be_tested_at_another():
    config = tiny_config("unused", model="test_vit_relpos", image_size=64)
    with pytest.raises(ConfigError, match=r"augment\.test_size 32"):
        build_network(config, 3)


@pytest.mark.parametrize(
    ("model", "expected"), [("test_resnet", "fc."), ("test_vit", "head."), ("test_convnext", "head.fc.")]
)
def test_the_classifier_is_found_in_any_network(model, expected):
    assert classifier_prefix(network(model)) == expected


@pytest.mark.parametrize(("model", "expected"), [("test_resnet", True), ("test_convnext", True), ("test_vit", False)])
def test_channels_last_is_for_convolutional_networks(model, expected):
    assert is_convolutional(network(model)) is expected


@pytest.mark.parametrize("freeze", ["none", "encoder"])
@pytest.mark.parametrize("model", ["test_resnet", "test_vit", "test_convnext"])
def test_the_exported_encoder_is_the_trained_one_without_classifier(model, freeze, tmp_path):
    config = tiny_config("unused", model=model, freeze=freeze)
    torch.manual_seed(0)
    trained = build_network(config, 3)
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    state = network_state(config, trainable(trained, config).state_dict())
    export_encoder(tmp_path / "b.safetensors", config, state, {"epochs": 3})
    encoder = build_backbone(model, image_size=32).eval()
    load_weights(encoder, tmp_path / "b.safetensors")
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(encoder.net.forward_features(images), trained.eval().forward_features(images))


def test_the_exported_published_vit_loads_back_into_encoder_and_classifier(tmp_path):
    config = tiny_config("unused", model="vit_s", image_size=32)
    trained = build_network(config, 3)
    export_encoder(tmp_path / "b.safetensors", config, trained.state_dict(), {})
    load_weights(build_backbone("vit_s", image_size=32), tmp_path / "b.safetensors")
    again = build_network(config, 5)
    load_encoder(again, str(tmp_path / "b.safetensors"))
    assert torch.equal(again.blocks[3].attn.qkv.weight, trained.blocks[3].attn.qkv.weight)


def test_a_standardising_probe_leaves_a_network_that_computes_the_same():
    config = tiny_config("unused", model="test_resnet", freeze="encoder", standardise=True)
    probe = trainable(build_network(config, 3), config)
    images = 3 * torch.rand(16, 3, 32, 32)
    for _ in range(30):
        probe.train()(images)
    with torch.no_grad():
        probe.network.get_classifier().bias.add_(torch.tensor([1.0, 2.0, 3.0]))
    network = build_network(config, 3).eval()
    network.load_state_dict(network_state(config, probe.state_dict()))
    expected = probe.eval()(images)
    assert expected.std() > 1e-3
    torch.testing.assert_close(network(images), expected, atol=1e-4, rtol=1e-4)
    with pytest.raises(ConfigError, match="standardise"):
        check(replace(config, freeze="none", data=replace(config.data, root="x")))
