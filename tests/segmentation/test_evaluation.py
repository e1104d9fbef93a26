"""The numbers are IoUMetric's, agree with an independent computation, and do not depend on batches or ranks."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from mmseg.evaluation import IoUMetric

from segmentation.data import make_pairs
from segmentation.evaluation import CountingMetric, Scores, evaluate
from segmentation.mmseg_adapter import build_segmentor, multi_scale_pipeline
from tests.forked import run_module
from tests.segmentation.evaluate_on_ranks import evaluate_random_segmentor
from tests.segmentation.folders import tiny_config

pytestmark = pytest.mark.mmseg
NAMES = [f"class {i}" for i in range(150)]


def random_maps(num_images=6, num_classes=150):
    source = np.random.default_rng(0)
    for _ in range(num_images):
        truth = source.integers(0, num_classes - 20, (40, 50))  # the last classes never appear
        wrong = source.integers(0, num_classes - 10, truth.shape)
        predicted = np.where(source.random(truth.shape) < 0.6, truth, wrong)
        truth[source.random(truth.shape) < 0.1] = 255
        yield predicted, truth


def samples(maps):
    return [
        {"pred_sem_seg": {"data": torch.tensor(predicted)[None]}, "gt_sem_seg": {"data": torch.tensor(truth)[None]}}
        for predicted, truth in maps
    ]


def independent(maps):
    """By sets of pixels, class by class: (IoU, accuracy) of each class and the share of right pixels."""
    maps = list(maps)
    predicted = np.concatenate([p.ravel() for p, _ in maps])
    truth = np.concatenate([t.ravel() for _, t in maps])
    predicted, truth = predicted[truth != 255], truth[truth != 255]
    iou, accuracy = [], []
    for label in range(150):
        both = np.sum((predicted == label) & (truth == label))
        either = np.sum((predicted == label) | (truth == label))
        labelled = np.sum(truth == label)
        iou.append(both / either if either else np.nan)
        accuracy.append(both / labelled if labelled else np.nan)
    return np.array(iou), np.array(accuracy), np.mean(predicted == truth)


def scores_of(maps):
    metric = CountingMetric()
    metric.dataset_meta = {"classes": NAMES}
    metric.process({}, samples(maps))
    return Scores.of_counts(metric.counts())


def test_the_metric_agrees_with_an_independent_computation_on_random_maps():
    iou, accuracy, right = independent(random_maps())
    scores = scores_of(random_maps())
    np.testing.assert_allclose(scores.iou, 100 * iou, rtol=1e-12)
    np.testing.assert_allclose(scores.accuracy, 100 * accuracy, rtol=1e-12)
    assert np.isnan(scores.iou[145])
    means = scores.means()
    assert means["mIoU"] == pytest.approx(100 * np.nanmean(iou), rel=1e-12)
    assert means["mAcc"] == pytest.approx(100 * np.nanmean(accuracy), rel=1e-12)
    assert means["aAcc"] == pytest.approx(100 * right, rel=1e-12)


def test_the_metric_gives_what_mmsegmentation_reports():
    theirs = IoUMetric(iou_metrics=["mIoU"])
    theirs.dataset_meta = {"classes": NAMES}
    theirs.process({}, samples(random_maps()))
    reported = theirs.evaluate(size=6)
    means = scores_of(random_maps()).means()
    assert reported == {name: pytest.approx(value, abs=0.0051) for name, value in means.items()}


def test_pixels_are_counted_exactly_beyond_what_float32_can_count():
    counts = torch.zeros(4, 150, dtype=torch.float64)
    metric = CountingMetric()
    metric.dataset_meta = {"classes": NAMES}
    one = torch.tensor([2.0**24, 2.0**24, 2.0**24, 2.0**24], dtype=torch.float64)
    pixel = CountingMetric.intersect_and_union(torch.zeros(1, 1), torch.zeros(1, 1), 150, 255)
    assert all(count.dtype == torch.float64 for count in pixel)
    big = tuple(torch.nn.functional.pad(one[i : i + 1], (0, 149)) for i in range(4))
    metric.results = [big, pixel, pixel, pixel]
    counts[:, 0] = 2**24 + 3
    assert torch.equal(metric.counts(), counts)


def test_predicting_the_most_frequent_class_everywhere_has_the_stated_value():
    truth = np.repeat([0, 1, 2, 255], [60, 30, 10, 20]).reshape(10, 12)
    constant = scores_of([(np.zeros_like(truth), truth)])
    assert constant.means()["mIoU"] == pytest.approx(20.0)  # 60 % of three classes
    assert constant.constant == pytest.approx(20.0)


def test_batches_of_any_size_give_the_same_scores(root):
    one, two = (evaluate_random_segmentor(root, batch_size=size) for size in (1, 2))
    assert one.means() == pytest.approx(two.means(), abs=0.05)
    assert len([row for row in one.per_class(NAMES).values() if row["IoU"] is not None]) >= 3


def test_windows_cover_the_image_and_small_images_are_padded_to_them(root):
    config = tiny_config(root)
    slide = replace(config.evaluation, mode="slide")
    windows = evaluate_random_segmentor(root, evaluation=slide)
    assert 0 <= windows.means()["aAcc"] <= 100


def test_multi_scale_evaluation_averages_softmax_over_scales_and_flips(root):
    config = tiny_config(root)
    config = replace(config, evaluation=replace(config.evaluation, scales=(0.75, 1.5)))
    segmentor = build_segmentor(config).eval()
    pairs = replace(make_pairs(config, "validation", multi_scale_pipeline(config)), multi_scale=True)
    seen = []
    handle = segmentor.backbone.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].shape))
    with torch.no_grad():
        scores = evaluate(
            segmentor, pairs, batch_size=1, num_workers=0, device=torch.device("cpu"), check_stop=lambda: None
        )
    handle.remove()
    assert len(seen) == 5 * 2 * 2
    expected = scores_of([_average_by_hand(segmentor, pairs, index) for index in range(5)])
    assert scores.means() == pytest.approx(expected.means(), rel=1e-6)


def _average_by_hand(segmentor, pairs, index):
    from engine.data.order import SampleKey

    packed = pairs[SampleKey(0, index)]
    total = 0
    for image, sample in zip(packed["inputs"], packed["data_samples"], strict=True):
        data = segmentor.data_preprocessor({"inputs": [image], "data_samples": [sample]})
        with torch.no_grad():
            scores = segmentor(data["inputs"], mode="tensor")
            scores = torch.nn.functional.interpolate(scores, size=image.shape[1:], mode="bilinear")
            scores = scores.flip(3) if sample.flip else scores
            scores = torch.nn.functional.interpolate(scores, size=sample.ori_shape, mode="bilinear")
        total = total + scores.softmax(dim=1)
    return total[0].argmax(dim=0).numpy(), packed["data_samples"][0].gt_sem_seg.data[0].numpy()


def test_two_ranks_give_the_numbers_of_one_process_to_the_last_digit(root, tmp_path):
    done = run_module("tests.segmentation.evaluate_on_ranks", root, tmp_path, ranks=2)
    assert done.returncode == 0, done.stderr
    scores = evaluate_random_segmentor(root)
    expected = json.loads(json.dumps([scores.means(), scores.per_class(range(150))]))
    assert [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)] == [expected, expected]
