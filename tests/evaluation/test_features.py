"""Features: which numbers they are, how they are cached, and what is left of them when a process is killed."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from backbones import load_encoder
from engine.data.order import SampleKey
from engine.errors import CheckpointError, ConfigError, DataError, DivergedError
from evaluation import features
from evaluation.cache import FeatureCache, Writer
from evaluation.config import DataConfig, FeaturesConfig
from evaluation.data import centre_crops, normalise, open_labelled
from evaluation.features import Representation, extract, open_readout, representations
from evaluation.intervals import accuracy_interval, difference_interval
from evaluation.measured import Inputs
from evaluation.measures import rank_me
from evaluation.run import for_encoder
from tests.evaluation.test_command import write_images

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    config = FeaturesConfig(data=DataConfig(root=str(write_images(tmp_path_factory.mktemp("i")))))
    return open_labelled(config), config


def prepare(model, data, cache_dir, **fields):
    images, config = data
    encoder = load_encoder(f"random:{model}", image_size=64)
    options = {"extract_batch": 4, "data": DataConfig(root=config.data.root, num_workers=0), **fields}
    own = for_encoder(FeaturesConfig(**options), encoder)
    return open_readout(encoder, CPU), encoder, own, Inputs(images, cache_dir)


def test_bad_training_images_may_be_left_out_and_bad_validation_images_never(tmp_path):
    root = write_images(tmp_path / "i")
    train, val = (sorted(path for path in (root / split).rglob("*") if path.is_file()) for split in ("train", "val"))
    train[1].write_bytes(train[1].read_bytes()[:40])
    train[2].write_bytes(b"")
    config = FeaturesConfig(data=DataConfig(root=str(root), unreadable="skip", max_unreadable=2, num_workers=0))
    found = open_labelled(config)
    assert [found.train.path(i) for i in range(len(found.train))] == [str(path) for path in (train[0], *train[3:])]
    with pytest.raises(DataError, match=r"more than --data.max-unreadable 1 accepts"):
        open_labelled(replace(config, data=replace(config.data, max_unreadable=1)))
    with pytest.raises(DataError, match=r"or, of a training image, set --data.unreadable skip$"):
        open_labelled(replace(config, data=replace(config.data, unreadable="stop")))
    val[0].write_bytes(b"")
    with pytest.raises(
        DataError, match=r"leave them out \(--data.exclude FILE\)$"
    ):  # it is set already, and of no help
        open_labelled(config)


def bytes_of(cache_dir):
    return {p.name: p.read_bytes() for p in sorted(cache_dir.rglob("*.float32"))}


@pytest.mark.parametrize(("model", "num"), [("test_vit", 4), ("test_convnext", 2), ("test_resnet", 1)])
def test_they_are_the_networks_own(model, num, data, tmp_path):
    readout, encoder, config, inputs = prepare(model, data, tmp_path)
    wanted = representations(readout, config)
    found = extract(readout, encoder, inputs.data.train, wanted, config, inputs)
    assert len(found) == num
    views = centre_crops(inputs.data.train, config)
    x = normalise(torch.stack([views[SampleKey(0, i)] for i in range(18)]), encoder)
    net = encoder.backbone.net
    with torch.no_grad():
        final = net.forward_features(x)
        if model == "test_vit":
            expected = {"layer6-cls-after": final[:, 0], "layer6-mean-after": final[:, net.num_prefix_tokens :].mean(1)}
        elif model == "test_convnext":
            pooled = final.mean((2, 3))
            normed = net.head.norm(pooled[..., None, None])[..., 0, 0]
            expected = {"layer4-mean-before": pooled, "layer4-mean-after": normed}
        else:
            expected = {"layer5-mean-before": final.mean((2, 3))}
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, atol=2e-5)


def test_a_middle_layer_is_that_of_forward_intermediates(data, tmp_path):
    readout, encoder, config, inputs = prepare("test_vit", data, tmp_path, layers=(-2, 3), token="mean")
    head, *rest = representations(readout, config)
    assert (head.name, rest[0].label(head)) == ("layer5-mean-before", "mean_after")
    assert {each.layer for each in rest} == {5, 3}
    found = extract(readout, encoder, inputs.data.val, [head], config, inputs)[head.name]
    views = centre_crops(inputs.data.val, config)
    x = normalise(torch.stack([views[SampleKey(0, i)] for i in range(6)]), encoder)
    with torch.no_grad():
        (expected,) = encoder.backbone.net.forward_intermediates(x, indices=[4], intermediates_only=True)
    np.testing.assert_allclose(found, expected.mean((2, 3)), atol=2e-5)


def test_killed_at_any_batch_they_go_on_and_are_the_same_bytes(data, tmp_path, monkeypatch):
    monkeypatch.setattr(features, "RECORD_EVERY_S", 0)
    whole = prepare("test_convnext", data, tmp_path / "whole")
    wanted = representations(whole[0], whole[2])
    extract(whole[0], whole[1], whole[3].data.train, wanted, *whole[2:])
    written = []
    real = Writer.write

    def killed(self, name, first, rows):
        written.append(first)
        real(self, name, first, rows)
        if first >= 8:
            raise KeyboardInterrupt

    monkeypatch.setattr(Writer, "write", killed)
    readout, encoder, config, inputs = prepare("test_convnext", data, tmp_path / "killed")
    with pytest.raises(KeyboardInterrupt):
        extract(readout, encoder, inputs.data.train, wanted, config, inputs)
    (folder,) = {path.parent for path in (tmp_path / "killed").rglob("features.json")}
    done = json.loads((folder / "features.json").read_text())["files"]
    assert {entry["done"] for entry in done.values()} == {8}
    monkeypatch.setattr(Writer, "write", lambda self, *rows: (written.append(rows[1]), real(self, *rows)))
    written.clear()
    extract(readout, encoder, inputs.data.train, wanted, config, inputs)
    assert min(written) == 8
    assert bytes_of(tmp_path / "killed") == bytes_of(tmp_path / "whole")


def test_a_torn_list_or_a_short_file_is_extracted_again(tmp_path):
    cache = FeatureCache(tmp_path / "c", 3, "float16")
    with cache.writing() as writer:
        writer.write("a", 0, np.arange(6.0).reshape(3, 2))
    assert cache.read("a").tolist() == [[0, 1], [2, 3], [4, 5]]
    path = tmp_path / "c" / "a.float16"
    path.write_bytes(path.read_bytes()[:-1])
    assert cache.missing(["a"]) == ["a"]
    with pytest.raises(CheckpointError, match="not complete"):
        cache.read("a")
    (tmp_path / "c" / "features.json").write_text("{")
    assert cache.known() == {}
    with cache.writing(), pytest.raises(ConfigError, match="already open"), cache.writing():
        pass


def test_other_images_weights_or_views_are_other_features(data, tmp_path):
    images, _ = data
    _, encoder, own, inputs = prepare("test_resnet", data, tmp_path)
    places = set()
    for changed in ({}, {"crop_pct": 1.0}, {"interpolation": "bilinear"}, {"stored": "float16"}):
        each = for_encoder(FeaturesConfig(**{"extract_batch": 4, "data": own.data, **changed}), encoder)
        places |= {
            features._cache(encoder, index, each, inputs, squash=False).folder for index in (images.train, images.val)
        }
    other = load_encoder("random:test_resnet@1", image_size=64)
    places.add(features._cache(other, images.train, own, inputs, squash=False).folder)
    places.add(features._cache(encoder, images.train, own, inputs, squash=True).folder)
    assert len(places) == 8  # the type of the numbers stands in the files' names
    path = Path(images.val.path(0))
    before = path.read_bytes()
    folder = features._cache(encoder, images.val, own, inputs, squash=False).folder
    path.write_bytes(before[:-1] + b"\0")
    assert features._cache(encoder, images.val, own, inputs, squash=False).folder != folder
    path.write_bytes(before)


def test_an_encoder_that_computes_nan_is_named(data, tmp_path):
    readout, encoder, config, inputs = prepare("test_resnet", data, tmp_path)
    with torch.no_grad():
        encoder.backbone.net.layer4[-1].bn2.bias[0] = torch.nan
    with pytest.raises(DivergedError, match="test_resnet-untrained computes layer5-mean-before that is not finite"):
        extract(readout, encoder, inputs.data.val, representations(readout, config), config, inputs)


def test_effective_rank():
    source = np.random.default_rng(0)
    assert rank_me(np.ones((5, 3))) == 1
    assert rank_me(np.concatenate([np.eye(8), -np.eye(8)])) == pytest.approx(8)
    flat = source.standard_normal((200, 2)) @ source.standard_normal((2, 30))
    assert 1 < rank_me(flat) <= 2 + 1e-6
    wide = source.standard_normal((20, 50))
    singular = np.linalg.svd(wide - wide.mean(0), compute_uv=False)
    shares = singular[:-1] / singular[:-1].sum()
    assert rank_me(wide) == pytest.approx(np.exp(-(shares * np.log(shares)).sum()), rel=1e-5)


def test_intervals_cover_what_they_say_and_of_differences_only_where_images_differ():
    right = np.arange(1000) % 4 != 0
    low, high = accuracy_interval(right, seed=0, resamplings=4000)
    assert (low, high) == pytest.approx((75 - 2.68, 75 + 2.68), abs=0.25)  # normal approximation
    assert accuracy_interval(right, seed=0, resamplings=100) == accuracy_interval(right, seed=0, resamplings=100)
    other = right.copy()
    other[::100] = True
    low, high = difference_interval(right, other, seed=0, resamplings=2000)
    assert 0 < low < 1 < high < 2
    assert difference_interval(right, right, seed=0, resamplings=50) == (0, 0)


def test_names_of_representations():
    assert Representation(3, "cls+mean", True).name == "layer3-cls+mean-after"
