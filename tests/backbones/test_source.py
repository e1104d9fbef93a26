"""A frozen encoder by reference: run folders, files, timm's cache, untrained networks; and what each refuses."""

import dataclasses

import pytest
import timm
import torch

from backbones import BackboneError, WeightsError, WeightsFileError, build_backbone, load_encoder, save_backbone
from backbones.source import weights_digest
from engine.run.storage import write_json

MODEL = "test_resnet"
TAG = "test_resnet.r160_in1k"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished pre-training of 64 px with other statistics, and the encoder in it."""
    folder = tmp_path_factory.mktemp("runs") / "mine"
    folder.mkdir()
    torch.manual_seed(3)
    encoder = build_backbone(MODEL, image_size=64)
    save_backbone(folder / "backbone.safetensors", encoder, {"method": "simmim", "mean": [0.5] * 3, "std": [0.25] * 3})
    write_json(folder / "config.json", {})
    return folder, encoder


def test_a_run_folder_and_its_file_are_the_same_frozen_encoder(run):
    folder, encoder = run
    found = load_encoder(str(folder))
    assert (found.name, found.method, found.image_size) == ("mine", "simmim", 64)
    assert (found.mean, found.std) == ((0.5,) * 3, (0.25,) * 3)
    assert found.digest == load_encoder(str(folder / "backbone.safetensors")).digest
    assert load_encoder(str(folder / "backbone.safetensors")).name == "mine"
    assert not found.backbone.training
    assert not any(weight.requires_grad for weight in found.backbone.parameters())
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(found.backbone(images), encoder.eval()(images))
    assert load_encoder(str(folder), image_size=96).image_size == 96


def test_the_digest_is_of_the_tensors_and_notices_one_bit(run):
    folder, encoder = run
    state = encoder.net.state_dict()
    assert load_encoder(str(folder)).digest == weights_digest(state)
    first = next(iter(state))
    changed = {name: tensor.clone() for name, tensor in state.items()}
    changed[first].view(-1)[:1].view(torch.int32).bitwise_xor_(1)
    assert weights_digest(changed) != weights_digest(state)
    assert weights_digest({**state, first: state[first].reshape(-1)}) != weights_digest(state)


def test_a_file_that_does_not_say_its_network_needs_a_name(run, tmp_path):
    _, encoder = run
    file = tmp_path / "plain.pth"
    torch.save(encoder.net.state_dict(), file)
    with pytest.raises(BackboneError, match="does not say which network it is of: write MODEL="):
        load_encoder(str(file))
    found = load_encoder(f"{MODEL}={file}")
    assert (found.digest, found.name) == (load_encoder(str(run[0])).digest, f"{MODEL}-plain")
    with pytest.raises(WeightsError, match="does not fit"):
        load_encoder(f"test_vit={file}")


def test_untrained_networks_are_a_function_of_the_seed_and_draw_nothing_from_the_process():
    before = torch.get_rng_state()
    first, again, other = (load_encoder(f"random:{MODEL}{seed}") for seed in ("", "@0", "@7"))
    assert torch.equal(torch.get_rng_state(), before)
    assert first.digest == again.digest != other.digest
    assert (first.method, other.name) == ("none", f"{MODEL}-untrained-7")
    assert first.image_size == timm.get_pretrained_cfg(MODEL).input_size[-1]


def test_timms_weights_come_from_its_cache_or_the_error_says_how_to_get_them(run, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(WeightsFileError, match=r"not in its cache.*pretrained=True"):
        load_encoder(f"timm:{TAG}")
    (tmp_path / "checkpoints").mkdir()
    torch.save(timm.create_model(MODEL).state_dict(), tmp_path / "checkpoints" / "cached.pth")
    config = dataclasses.replace(timm.get_pretrained_cfg(TAG), url="https://example.org/cached.pth")
    monkeypatch.setattr(timm, "get_pretrained_cfg", lambda name: config)
    found = load_encoder(f"timm:{TAG}")
    assert (found.name, found.method, found.image_size) == (TAG, f"timm {TAG}", config.input_size[-1])


@pytest.mark.parametrize(
    ("reference", "error", "text"),
    [
        (
            "timm:resnet50.nonsense",
            BackboneError,
            "no pre-trained weights called resnet50.nonsense: there are resnet50",
        ),
        ("timm:resnet5o", BackboneError, "nearest"),
        ("random:resnet5o", BackboneError, "nearest"),
        ("random:resnet50@x", BackboneError, "'x' is no seed"),
        ("resnet50", BackboneError, "write timm:resnet50 or random:resnet50"),
        ("nowhere/at-all", WeightsFileError, "does not exist"),
        ("resnet50=nowhere.pth", WeightsFileError, "does not exist"),
        ("resnet5o=nowhere.pth", BackboneError, "nearest"),
        ("released:nonsense", BackboneError, "released:nonsense"),
    ],
)
def test_what_cannot_be_had_is_refused_with_what_to_write(reference, error, text):
    with pytest.raises(error, match=text):
        load_encoder(reference)
