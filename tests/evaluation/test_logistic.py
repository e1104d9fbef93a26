"""Logistic regression against scikit-learn's, the choice of C, and few-shot draws."""

import json

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from engine.data.index import index_images
from engine.errors import DataError
from evaluation import softmax
from evaluation.config import LogisticConfig
from evaluation.fewshot import prepared
from evaluation.logistic import strengths
from evaluation.run import evaluate_all
from evaluation.softmax import FitOptions, fit
from evaluation.split import few_of_each, hold_out
from tests.evaluation.test_command import ENCODERS, ask, write_images


@pytest.mark.parametrize(("c", "intercept"), [(0.01, True), (1.0, True), (30.0, False)])
def test_it_is_scikit_learns(c, intercept, monkeypatch, device):
    monkeypatch.setattr(softmax, "_ROWS_AT_ONCE", 37)
    source = np.random.default_rng(0)
    labels = source.integers(0, 4, 150)
    features = np.float32(source.standard_normal((150, 12)) + 0.8 * np.eye(4, 12)[labels])
    theirs = LogisticRegression(C=c, fit_intercept=intercept, max_iter=1000, tol=1e-12).fit(
        features.astype(float), labels
    )
    ours = fit(features, labels, 4, l2=1 / (c * 150), device=device, options=FitOptions(intercept=intercept))
    np.testing.assert_allclose(ours.weight_cd.cpu(), theirs.coef_, atol=1e-6)
    np.testing.assert_allclose(
        ours.bias_c - ours.bias_c.mean(), theirs.intercept_ - theirs.intercept_.mean(), atol=1e-6
    )
    assert (ours.scores(features).argmax(1) == theirs.predict(features)).all()
    again = fit(
        features, labels, 4, l2=1 / (c * 150), device=device, options=FitOptions(intercept=intercept, start=ours)
    )
    np.testing.assert_allclose(again.weight_cd.cpu(), ours.weight_cd.cpu(), atol=1e-6)
    assert again.iterations < ours.iterations


def test_the_published_grid():
    grid = strengths(LogisticConfig())
    np.testing.assert_allclose(grid, 10.0 ** np.linspace(-6, 5, 45))


def test_what_is_held_out_is_a_tenth_of_every_class_and_a_function_of_the_seed():
    labels = np.repeat(np.arange(5), [40, 30, 20, 3, 1])
    kept, held = hold_out(labels, 0.1, 0)
    assert np.bincount(labels[held], minlength=5).tolist() == [4, 3, 2, 1, 0]
    assert sorted([*kept, *held]) == list(range(94))
    assert hold_out(labels, 0.1, 0)[1].tolist() == held.tolist() != hold_out(labels, 0.1, 1)[1].tolist()
    with pytest.raises(DataError, match="two images"):
        hold_out(np.arange(3), 0.1, 0)


def test_few_images_of_each_class_are_a_part_of_more_of_the_same_draw(tmp_path):
    index = index_images(write_images(tmp_path) / "train", labelled=True)
    one, two, other = (few_of_each(index, num, 0, draw) for num, draw in ((1, 0), (3, 0), (3, 1)))
    assert set(one) < set(two) != set(other)
    assert np.bincount(index.labels[two]).tolist() == [3, 3, 3]
    with pytest.raises(DataError, match="fewer than 7 images: class0"):
        few_of_each(index, 7, 0, 0)


def test_a_feature_is_prepared_by_itself():
    rows = prepared(np.array([[1.0, 3.0], [2.0, 2.0]]))
    np.testing.assert_allclose(rows, [[-(0.5**0.5), 0.5**0.5], [0, 0]])


def test_both_protocols_run_on_coloured_classes(tmp_path):
    images = write_images(tmp_path / "images")
    more = ["--c-steps", "3", "--max-iterations", "50"]
    evaluate_all(ask("logistic", ENCODERS[:1], images, tmp_path / "runs", *more))
    evaluate_all(ask("fewshot", ENCODERS[1:2], images, tmp_path / "runs", "--shots", "1", "3"))
    summaries = {
        recipe: json.loads((next((tmp_path / "runs").glob(f"{recipe}-*/finished.json"))).read_text())
        for recipe in ("logistic", "fewshot")
    }
    assert summaries["logistic"]["metrics"]["top1"] == 100  # a class is a colour
    assert "of 18 training images" in summaries["logistic"]["row"]["selection_set"]
    assert summaries["fewshot"]["metrics"].keys() == {"top1_1shot", "top1_3shot", "top1_1shot_std", "top1_3shot_std"}
    draws = json.loads(next((tmp_path / "runs").glob("fewshot-*/draws.json")).read_text())
    assert len(draws) == 6
    assert len(draws["3 of each, draw 2"]) == 9
