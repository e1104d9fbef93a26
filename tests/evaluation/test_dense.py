"""Segmentation on frozen features: the nearest patches equal a search by hand, a linear head leaves the encoder be."""

import csv
import json
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import jaccard_score

from backbones import load_encoder, save_backbone
from backbones.frozen import Readout
from engine.errors import ConfigError, DataError
from engine.run import checkpoint
from evaluation import features
from evaluation.command import parse
from evaluation.dense import nearest
from evaluation.dense.labels import areas, mean_iou, mean_iou_interval
from evaluation.dense.nearest import Rows, nearest_patches, scaling_of, vote
from evaluation.measured import ROW_FIELDS
from evaluation.run import evaluate_all
from results.runs.collect import collect
from tests.segmentation.folders import make_ade

CPU = torch.device("cpu")
ENCODERS = ("random:test_resnet", "random:test_convnext", "random:test_vit")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_ade(tmp_path_factory.mktemp("data") / "ADEChallengeData2016", num_train=12, num_val=4)


def ask(root, where, *more, encoders=ENCODERS):
    folders = ["--data.root", str(root), "--data.num-workers", "0", "--runs-dir", str(where)]
    return parse(["dense", *encoders, *folders, "--image-size", "64", *more])


@pytest.mark.parametrize("similarity", ["cosine", "l2"])
def test_the_nearest_patches_are_those_of_a_search_by_hand_whatever_is_looked_at_at_once(similarity, monkeypatch):
    source = np.random.default_rng(0)
    bank, queries = source.normal(3, 2, (200, 8)), source.normal(3, 2, (50, 8))
    bank[100:120] = bank[:20]  # equal rows: the earlier one is nearer
    chosen = np.arange(200)[source.random(200) < 0.8]
    rows = Rows(bank.astype(np.float32), chosen)
    monkeypatch.setattr(nearest, "_BANK_FLOATS", 8 * 37)
    monkeypatch.setattr(nearest, "_PRODUCTS", 37 * 11)
    found = nearest_patches(rows, Rows.all(queries.astype(np.float32)), 7, scaling_of(rows, CPU), similarity)
    mean, std = bank[chosen].mean(axis=0), bank[chosen].std(axis=0)
    one, other = (queries - mean) / std, (bank[chosen] - mean) / std
    if similarity == "cosine":
        scores = (one / np.linalg.norm(one, axis=1)[:, None]) @ (other / np.linalg.norm(other, axis=1)[:, None]).T
    else:
        scores = -((one[:, None] - other[None]) ** 2).sum(axis=2)
    expected = np.argsort(-scores.round(9), axis=1, kind="stable")[:, :7]
    assert np.array_equal(found.numpy(), expected)


def test_each_pixel_gets_the_most_frequent_label_at_its_place(monkeypatch):
    monkeypatch.setattr(nearest, "_VOTES", 6 * 4 * 3)
    source = np.random.default_rng(0)
    labels = np.where(source.random((30, 6)) < 0.3, 255, source.integers(0, 3, (30, 6))).astype(np.uint8)
    places = torch.from_numpy(source.integers(0, 30, (20, 5)))
    found = vote(places, Rows.all(labels), [1, 2, 5], 3, CPU)
    for k, answers in found.items():
        for query, near in enumerate(places[:, :k].numpy()):
            for pixel in range(6):
                votes = Counter(sorted(label for label in labels[near, pixel].tolist() if label != 255))
                assert answers[query, pixel] == (votes.most_common(1)[0][0] if votes else 255)


def test_mean_iou_is_scikit_learns_over_the_pixels_that_count():
    source = np.random.default_rng(0)
    truth, said = source.integers(0, 4, (2, 5, 100)).astype(np.uint8)
    truth[source.random(truth.shape) < 0.2] = 255
    said[0, :5] = 255  # no neighbour had a label: wrong, and no class of its own
    each = np.stack([areas(one, other, 6) for one, other in zip(said, truth, strict=True)])
    counted = truth != 255
    expected = jaccard_score(truth[counted], said[counted], average="macro", labels=[0, 1, 2, 3])
    assert mean_iou(each.sum(axis=0)) == pytest.approx(100 * expected)
    low, high = mean_iou_interval(each, seed=0, resamplings=200)
    assert low < 100 * expected < high


def by_hand(root, reference, k):
    """The mIoU of the protocol, cosine, in a few plain lines."""
    encoder = load_encoder(reference, image_size=64)
    readout = Readout(encoder.backbone)

    def patches(split):
        rows, labels = [], []
        for path in sorted((root / "images" / split).iterdir()):
            image = Image.open(path).resize((64, 64), Image.Resampling.BICUBIC)
            pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255
            mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (encoder.mean, encoder.std))
            with torch.no_grad():
                level = readout((pixels - mean) / std, [readout.depth])[0]
                rows.append(readout.patches(level, norm=True)[0].half().double().numpy())
            stored = Image.open(root / "annotations" / split / f"{path.stem}.png").resize((64, 64), 0)
            labels.append(np.array(stored).astype(int) - 1)
        return np.stack(rows), np.stack(labels)

    (bank, bank_labels), (queries, truth) = patches("training"), patches("validation")
    side = round(bank.shape[1] ** 0.5)
    size = 64 // side
    mean, std = bank.reshape(-1, bank.shape[-1]).mean(axis=0), bank.reshape(-1, bank.shape[-1]).std(axis=0)
    scaled = [(each - mean) / std for each in (bank, queries)]
    unit = [each / np.linalg.norm(each, axis=2, keepdims=True) for each in scaled]
    said = np.full(truth.shape, -1)
    for image, row, column in np.ndindex(len(queries), side, side):
        scores = (unit[0] @ unit[1][image, row * side + column]).reshape(-1)
        near = np.argsort(-scores, kind="stable")[:k]
        for y, x in np.ndindex(size, size):
            votes = [bank_labels[n // side**2, n % side**2 // side * size + y, n % side * size + x] for n in near]
            votes = Counter(sorted(label for label in votes if label >= 0))
            said[image, row * size + y, column * size + x] = votes.most_common(1)[0][0] if votes else -1
    counted = truth >= 0
    names = sorted(set(truth[counted]) | set(said[counted]) - {-1})
    return 100 * jaccard_score(truth[counted], said[counted], average="macro", labels=names)


def test_nearest_patches_of_three_families_are_one_table_and_equal_those_by_hand(root, tmp_path, monkeypatch):
    text = evaluate_all(ask(root, tmp_path, "--k", "3", "--similarity", "cosine"))
    rows = list(csv.DictReader((tmp_path / "dense-knn.csv").open()))
    assert [row["model"] for row in rows] == ["test_resnet", "test_convnext", "test_vit"]
    for row in rows:
        assert set(ROW_FIELDS) <= row.keys()
        assert (row["protocol"], row["k"], row["resolution"], row["num_val"]) == ("dense-knn", "3", "64", "4")
        assert float(row["mIoU_low"]) <= float(row["mIoU"]) <= float(row["mIoU_high"])
    assert [row["token"] for row in rows] == ["cells of the map", "cells of the map", "patches"]
    assert float(rows[2]["mIoU"]) == pytest.approx(by_hand(root, ENCODERS[2], 3), abs=0.2)
    monkeypatch.setattr(features, "_extract", None)  # would fail if anything were computed again
    assert evaluate_all(ask(root, tmp_path, "--k", "3", "--similarity", "cosine")) == text
    evaluate_all(ask(root, tmp_path, "--k", "1", "3", encoders=ENCODERS[2:]))  # another run, the same features
    folder = next(path for path in tmp_path.glob("dense-*test_vit*") if (path / "grid.json").exists())
    cells = json.loads((folder / "grid.json").read_text())["cells"]
    summary = json.loads((folder / "finished.json").read_text())
    assert {(cell["similarity"], cell["k"]) for cell in cells} == {(s, k) for s in ("cosine", "l2") for k in (1, 3)}
    assert summary["metrics"]["mIoU_held_out"] == max(cell["mIoU"] for cell in cells)
    assert not collect([tmp_path])[1]


def test_part_of_the_training_images_is_a_bank_and_too_few_to_choose_on_are_refused(root, tmp_path):
    evaluate_all(ask(root, tmp_path, "--k", "1", "--similarity", "l2", "--train-images", "3", encoders=ENCODERS[:1]))
    row = next(csv.DictReader((tmp_path / "dense-knn.csv").open()))
    assert (row["num_train"], row["selection_set"]) == ("3", "none")
    with pytest.raises(ConfigError, match="leaves none for the bank; give one --k and one --similarity"):
        evaluate_all(ask(root, tmp_path, "--train-images", "1", encoders=ENCODERS[:1]))
    for option in (("--layers", "1", "2"), ("--token", "mean"), ("--head", "linear", "--train-images", "2")):
        with pytest.raises(ConfigError, match=r"allowed: one|leave it out|allowed with a linear head: 0"):
            evaluate_all(ask(root, tmp_path, *option, encoders=ENCODERS[:1]))
    with pytest.raises(ConfigError, match=r"data\.root is not given"):
        evaluate_all(parse(["dense", *ENCODERS, "--runs-dir", str(tmp_path)]))


def test_an_image_without_a_label_map_is_named(tmp_path):
    own = make_ade(tmp_path / "own", num_train=2, num_val=1)
    next((own / "annotations" / "training").iterdir()).unlink()
    with pytest.raises(DataError, match=r"ADE_training_0000000\d.jpg: has no label map in"):
        evaluate_all(ask(own, tmp_path / "runs"))


@pytest.mark.mmseg
def test_a_linear_head_trains_in_the_one_loop_on_the_encoder_as_it_is(root, tmp_path):
    model, head = "test_vit", "linear"
    source = load_encoder(f"random:{model}@3", image_size=64)
    save_backbone(
        tmp_path / "mine.safetensors", source.backbone, {"method": "test", "mean": [0.5] * 3, "std": [0.25] * 3}
    )
    small = (
        "--linear.crop-size",
        "64",
        "--linear.iterations",
        "3",
        "--linear.warmup-iterations",
        "1",
        "--linear.batch-size",
        "2",
    )
    asked = ask(root, tmp_path / "runs", "--head", head, *small, encoders=(str(tmp_path / "mine.safetensors"),))
    text = evaluate_all(asked)
    assert evaluate_all(asked) == text
    row = next(csv.DictReader((tmp_path / "runs" / f"dense-{head}.csv").open()))
    assert (row["protocol"], row["resolution"], row["learning_rate"]) == (f"dense-{head}", "64", str(1e-3 * 2 / 16))
    assert (row["final_norm"], row["token"]) == ("true", "last map")
    assert float(row["mIoU_low"]) <= float(row["mIoU"]) <= float(row["mIoU_high"])
    (folder,) = (tmp_path / "runs").glob("dense-mine*")
    assert json.loads((folder / "config.json").read_text())["package"] == "evaluation"
    assert json.loads((folder / "initialisation.json").read_text())["description"]["method"] == "test"
    ended = checkpoint.load(checkpoint.newest(folder)).model
    begun = source.backbone.state_dict()
    assert all(torch.equal(ended[f"backbone.encoder.{name}"], value) for name, value in begun.items())
    assert ended["decode_head.norm.running_mean"].abs().sum() > 0
    assert not collect([tmp_path / "runs"])[1]
