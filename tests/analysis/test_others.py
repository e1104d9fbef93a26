"""Robustness, CKA, loss landscape and activation maps: what they compute, and that each runs on any backbone."""

import json

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch
from torch import nn

from analysis.__main__ import main
from analysis.cka import batches, unbiased_hsic
from analysis.landscape import direction, mean_loss, moved
from analysis.robustness import drop_patches, filter_frequencies, shuffle_patches
from tests.results.written import page_of


def draw(seed=0):
    return np.random.default_rng(seed)


def test_more_dropped_patches_include_the_fewer():
    image = torch.ones(3, 30, 30)
    kept = [drop_patches(image, ratio, 14, draw()) for ratio in (0.0, 0.3, 0.9)]
    assert torch.equal(kept[0], image)
    assert ((kept[2] == 1) <= (kept[1] == 1)).all()
    cells = drop_patches(torch.ones(1, 28, 28), 0.3, 14, draw())[0, ::2, ::2]
    assert (cells == 0).sum() == round(0.3 * 196)


def test_shuffling_moves_whole_pieces_and_leaves_the_rest():
    image = torch.arange(3 * 10 * 10.0).view(3, 10, 10)
    assert torch.equal(shuffle_patches(image, 1, draw()), image)
    found = shuffle_patches(image, 3, draw())
    assert torch.equal(found[:, 9:], image[:, 9:])
    assert torch.equal(found[:, :, 9:], image[:, :, 9:])
    pieces = [[x[:, r : r + 3, c : c + 3] for r in (0, 3, 6) for c in (0, 3, 6)] for x in (image, found)]
    places = [next(n for n, piece in enumerate(pieces[0]) if torch.equal(piece, other)) for other in pieces[1]]
    assert sorted(places) == list(range(9)) != places


def test_filters_keep_the_waves_that_they_should():
    row, column = torch.meshgrid(*[torch.arange(32, dtype=torch.float64)] * 2, indexing="ij")
    slow, fast = torch.cos(2 * torch.pi * 2 * column / 32), torch.cos(2 * torch.pi * 12 * row / 32)
    image = (3 + slow + fast)[None]
    low = filter_frequencies(image, 0.2, low=True)
    torch.testing.assert_close(low, (3 + slow)[None], atol=1e-9, rtol=0)
    torch.testing.assert_close(low + filter_frequencies(image, 0.2, low=False), image, atol=1e-9, rtol=0)
    torch.testing.assert_close(filter_frequencies(image, 1.5, low=True), image, atol=1e-9, rtol=0)


def test_hsic_is_unbiased_and_sees_rotated_features_as_the_same():
    generator = torch.Generator().manual_seed(0)

    def hsic(one, other):
        return unbiased_hsic((one @ one.T)[None], (other @ other.T)[None]).item()

    features = torch.randn(40, 8, generator=generator, dtype=torch.float64)
    rotation = torch.linalg.qr(torch.randn(8, 8, generator=generator, dtype=torch.float64))[0]
    other = 3 * features @ rotation + 5
    assert hsic(features, other) / np.sqrt(hsic(features, features) * hsic(other, other)) == pytest.approx(1)
    few = [torch.randn(2, 6, 300, generator=generator, dtype=torch.float64) for _ in range(300)]
    found = [hsic(one, two) / np.sqrt(abs(hsic(one, one) * hsic(two, two))) for one, two in few]
    assert abs(np.mean(found)) < 0.1  # of independent features; the biased estimate gives nearly 1 here
    assert batches(10, 4) == [(0, 4), (4, 10)]
    assert batches(3, 4) == [(0, 3)]


def test_directions_have_the_norms_of_filters_and_weights_come_back():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 3)).eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    found = direction(network, 0)
    assert set(found) == {"0.weight", "3.weight"}
    norms = [weight.flatten(1).norm(dim=1) for weight in (found["0.weight"], network[0].weight.detach())]
    torch.testing.assert_close(*norms)
    images = [(torch.randn(5, 3, 3, 3), torch.tensor([0, 1, 0, 1, 0]))]
    plain = mean_loss(network, images, (2, 0))
    expected = nn.functional.cross_entropy(network(images[0][0]), torch.tensor([2, 0, 2, 0, 2])).item()
    assert plain == pytest.approx(expected, rel=1e-6)
    with moved(network, [(0.7, found), (0.2, direction(network, 1))]):
        assert mean_loss(network, images, (2, 0)) != plain
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize("model", ["test_vit", "resnet18"])
def test_each_runs_by_its_command_on_a_transformer_and_a_cnn(data, tmp_path, capsys, model):
    def run(name, *more):
        out = tmp_path / name
        common = ["--data.root", data, "--image-size", 64, "--out", out, "--init", f"random:{model}"]
        assert main([name, *map(str, [*common, *more])]) == 0
        (folder,) = out.glob(f"{name}-*/")
        assert (out / f"{name}.png").stat().st_size > 5000
        return pd.read_csv(out / f"{name}.csv"), json.loads((folder / "finished.json").read_text()), folder

    table, finished, _ = run("robustness", "--drop-ratios", 0, 0.9, "--shuffle-grids", 1, 4, "--frequencies", 0.1, 1.5)
    drop, shuffle, low = (
        table[table[f"top1_{kind}"].notna()].set_index("at")[f"top1_{kind}"] for kind in ("drop", "shuffle", "low_pass")
    )
    whole = finished["metrics"]["top1"]
    assert whole == drop[0] == shuffle[1] == low[1.5] > 90
    assert drop[0.9] < whole
    table, finished, _ = run("cka", "--images", 8)
    own = [table.loc[row, f"cka_{row:02}"] for row in range(len(table))]
    assert own == pytest.approx([1] * len(table))
    plane = ["--plane"] if model == "test_vit" else []
    table, finished, _ = run("landscape", "--points", 3, "--images", 6, *plane)
    assert table["at"].tolist() == [-1, 0, 1] * (3 if plane else 1)
    assert table["loss"][len(table) // 2] == finished["metrics"]["loss_of_weights"] < table["loss"].max()
    table, finished, folder = run("cam", "--images", 3)
    assert finished["layer"] == {"test_vit": "pooled.backbone.net.blocks.5.norm1"}.get(model, finished["layer"])
    content = safetensors.torch.load_file(folder / "maps.safetensors")
    assert content["maps"].shape == (3, 64, 64)
    assert content["maps"].min() == 0 and 0.9 < content["maps"].max() <= 1
    if model == "test_vit":  # all of them are parts of the page
        text = page_of(tmp_path, tmp_path / "report.html").read_text()
        for title in ("Accuracy on images of which", "How alike the layers", "Loss landscape", "Class activation maps"):
            assert f"<h3>{title}" in text
        assert text.count("Depth of random:test_vit") == 1, "what stands across"
        assert text.count("Depth of untrained") == 1, "and what up"
