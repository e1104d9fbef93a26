"""k-NN: the published predictions, scikit-learn's, exact ties, and any cut of bank and queries."""

import json

import numpy as np
import pytest
import torch

from evaluation import neighbours
from evaluation.config import KnnConfig
from evaluation.knn import grid
from evaluation.measures import hits, ranking, votes
from evaluation.neighbours import nearest
from tests.helpers import ROOT

GOLDEN = json.loads((ROOT / "tests/data/golden2/protocols/knn.json").read_text())["cases"]
CPU = torch.device("cpu")


def golden_features(case):
    source = np.random.RandomState(case["seed"])
    centres = source.standard_normal((case["classes"], case["dim"]))
    labels = [source.randint(0, case["classes"], case[name]) for name in ("bank", "queries")]
    rows = [
        np.float32(centres[found] * case["spread"] + source.standard_normal((len(found), case["dim"])))
        for found in labels
    ]
    return rows, labels


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: str(case["seed"]))
def test_every_prediction_and_both_counts_of_top5_are_the_published_ones(case, device):
    (bank, queries), (bank_labels, labels) = golden_features(case)
    assert labels.tolist() == case["query_labels"]
    similarities, places = nearest(bank, queries, 200, device)
    for cell in case["cells"]:
        scores = votes(similarities, bank_labels[places], k=cell["k"], temperature=cell["T"], num_classes=10)
        order, right = ranking(scores), hits(scores, labels, cell["k"])
        assert order[:, 0].tolist() == cell["predictions"]
        np.testing.assert_allclose(scores.max(1)[:10], cell["winning_score_first10"], rtol=1e-5)
        ranks = np.where(np.take_along_axis(scores, order, 1) > 0, order, -1)[:10, :5]
        assert ranks.tolist() == cell["classes_of_rank_1_to_5_first10"]
        accuracy = {name: 100 * value.mean() for name, value in right.items()}
        assert accuracy["top1"] == pytest.approx(cell["top1"])
        assert accuracy["top5_dino"] == pytest.approx(cell["top5"])
        assert accuracy["top5"] == pytest.approx(cell["top5_counting_only_classes_with_a_vote"])


def test_neighbours_and_votes_are_scikit_learns(device):
    from sklearn.neighbors import KNeighborsClassifier

    source = np.random.default_rng(0)
    bank, queries = source.standard_normal((400, 24)), source.standard_normal((60, 24))
    labels = source.integers(0, 5, 400)
    similarities, places = nearest(bank, queries, 20, device)
    theirs = KNeighborsClassifier(20, metric="cosine", weights=lambda distance: np.exp((1 - distance) / 0.07))
    theirs.fit(bank.astype(np.float32), labels)
    distances, indices = theirs.kneighbors(queries.astype(np.float32))
    np.testing.assert_array_equal(places, indices)
    np.testing.assert_allclose(1 - similarities, distances, atol=1e-6)
    scores = votes(similarities, labels[places], k=20, temperature=0.07, num_classes=5)
    assert ranking(scores)[:, 0].tolist() == theirs.predict(queries.astype(np.float32)).tolist()


@pytest.mark.parametrize("num", [1, 7, 30])
def test_equal_rows_are_equally_near_and_the_earlier_one_comes_first(num, monkeypatch):
    source = np.random.default_rng(1)
    rows = source.standard_normal((6, 33)).astype(np.float32)
    bank = np.concatenate([rows[[0, 1, 2]].repeat(90, 0), rows, source.standard_normal((200, 33))])
    queries = np.concatenate([rows[:3] * 5, source.standard_normal((4, 33))])
    units = [each / np.linalg.norm(each, axis=1, keepdims=True) for each in (np.float64(bank), np.float64(queries))]
    expected = np.argsort(-np.round(units[1] @ units[0].T, 9), axis=1, kind="stable")[:, :num]
    for at_once in (1 << 26, 33 * 50, 33 * 7):
        monkeypatch.setattr(neighbours, "_FLOATS_AT_ONCE", at_once)
        np.testing.assert_array_equal(nearest(bank, queries, num, CPU)[1], expected)


def test_nearly_equal_features_of_an_untrained_network_are_ranked_exactly(monkeypatch):
    source = np.random.default_rng(2)
    bank = np.float32(1 + 1e-4 * source.standard_normal((500, 64)))
    queries = np.float32(1 + 1e-4 * source.standard_normal((9, 64)))
    monkeypatch.setattr(neighbours, "_whole", None)  # for equal rows only
    units = [rows.astype(np.float64) for rows in (neighbours.normalised(each, CPU).numpy() for each in (bank, queries))]
    expected = np.argsort(-np.round(units[1] @ units[0].T, 14), axis=1, kind="stable")[:, :20]
    similarities, places = nearest(bank, queries, 20, CPU)
    monkeypatch.setattr(neighbours, "_FLOATS_AT_ONCE", 64 * 60)
    again, same = nearest(bank, queries, 20, CPU)
    np.testing.assert_array_equal(places, expected)
    np.testing.assert_array_equal(places, same)
    np.testing.assert_array_equal(similarities, again)


def test_the_grid_of_a_small_bank_has_no_more_neighbours_than_rows_and_its_headline_first():
    source = np.random.default_rng(3)
    bank, queries = source.standard_normal((12, 8)), source.standard_normal((5, 8))
    labels = np.arange(12) % 3
    cells = grid(bank, queries, labels, np.arange(5) % 3, config=KnnConfig(k=(20, 5, 200)), device=CPU)
    assert [(cell["k"], cell["temperature"]) for cell in cells[:2]] == [(20, 0.07), (20, 0.1)]
    assert len(cells) == 9
    assert cells[0]["top1"] == cells[6]["top1"]  # 20 and 200 are all twelve rows
    one = grid(bank, bank, labels, labels, config=KnnConfig(k=(1,)), device=CPU)[0]
    assert (one["top1"], one["top5"], one["top5_dino"]) == (100, 100, 100)


def test_equal_votes_go_to_the_lower_class():
    scores = votes(np.ones((1, 2)), np.array([[4, 1]]), k=2, temperature=0.07, num_classes=6)
    assert ranking(scores)[0, :2].tolist() == [1, 4]
    right = hits(scores, np.array([0]), 2)
    assert not right["top5"][0]
