"""Faulty data is found before training (F24); samples are functions of (seed, epoch, index)."""

import random
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from engine.data.images import count_unreadable
from engine.data.loader import LoaderOptions, make_batches
from engine.data.order import SampleKey, SamplePlan
from engine.errors import DataError
from segmentation.check import check_pairs
from segmentation.check import main as check_main
from segmentation.config import DataConfig
from segmentation.data import collate_training, make_pairs, same_size_batches
from segmentation.labels import ade20k
from segmentation.layout import SPLITS, find_pairs
from segmentation.mmseg_adapter import evaluation_pipeline, training_pipeline
from segmentation.train import train
from tests.segmentation.folders import LABELS, make_ade, tiny_config, write_pair

pytestmark = pytest.mark.mmseg


@pytest.fixture
def own(root, tmp_path):
    return shutil.copytree(root, tmp_path / "data")


def image(root, number, split="training"):
    return root / "images" / split / f"ADE_{split}_{number:08d}.jpg"


def label_map(root, number, split="training"):
    return root / "annotations" / split / f"ADE_{split}_{number:08d}.png"


def test_the_check_command_lists_the_faults_and_leaves_with_3(own, capsys):
    label_map(own, 3, "validation").unlink()
    with pytest.raises(SystemExit) as left:
        check_main([str(own)])
    assert left.value.code == 3
    shown = capsys.readouterr()
    assert f"{image(own, 3, 'validation')}: has no label map" in shown.out
    assert "training: 16 pairs, 0 faulty files" in shown.out
    assert "1 faulty file\n" in shown.err


def test_unreadable_training_pairs_are_left_out_on_request_and_counted(tmp_path):
    root = make_ade(tmp_path / "data", num_train=1000, num_val=2, divisor=4)
    image(root, 7).write_bytes(b"")
    config = tiny_config(root, iterations=2, schedule=replace(tiny_config(root).schedule, warmup_iterations=1))
    config = replace(config, data=replace(config.data, unreadable="skip"))
    train(config, tmp_path / "run")
    assert count_unreadable(tmp_path / "run") == 1
    import json

    assert json.loads((tmp_path / "run" / "finished.json").read_text())["num_train"] == 999
    label_map(root, 8).write_bytes(b"")
    with pytest.raises(DataError, match="2 faulty files"):  # 0.2 % of the training set
        train(config, tmp_path / "other")


def test_ade20k_is_found_in_its_folder_and_in_the_one_above(tmp_path, root):
    for place in (root, root.parent):
        pairs = find_pairs(DataConfig(root=str(place)))
        assert [pairs[split].images.root for split in SPLITS] == [root / "images" / split for split in SPLITS]
    with pytest.raises(DataError, match=r"found no folder of images and label maps: expected images, .*--data.images"):
        find_pairs(DataConfig(root=str(tmp_path)))


def test_a_label_map_deleted_after_the_check_stops_the_run_with_its_path(own):
    config = tiny_config(own)
    pairs = make_pairs(config, "training", training_pipeline(config))
    label_map(own, 2).unlink()
    with pytest.raises(DataError, match=str(label_map(own, 2))):
        pairs[SampleKey(0, 2)]
    image(own, 3).write_bytes(image(own, 3).read_bytes()[:500])
    with pytest.raises(DataError, match=str(image(own, 3))):
        pairs[SampleKey(0, 3)]


def training_set(root, seed=0):
    config = tiny_config(root, seed=seed)
    return make_pairs(config, "training", training_pipeline(config))


def test_a_sample_depends_on_its_key_and_the_seed_alone(root):
    pairs = training_set(root)
    np.random.seed(1)
    random.seed(1)
    first = collate_training([pairs[SampleKey(3, 5)]])
    drawn = np.random.random(), random.random()
    np.random.seed(1)
    random.seed(1)
    assert drawn == (np.random.random(), random.random()), "reading a sample moved the global generators"
    again = collate_training([pairs[SampleKey(3, 5)]])
    assert torch.equal(first["image"][0], again["image"][0])
    assert torch.equal(first["label"][0], again["label"][0])
    for other in (pairs[SampleKey(4, 5)], training_set(root, seed=1)[SampleKey(3, 5)]):
        assert not torch.equal(first["image"][0], collate_training([other])["image"][0])


def test_workers_read_what_the_training_process_would_read(root):
    pairs, plan = training_set(root), SamplePlan(16, 4, seed=0)
    batches = [
        list(make_batches(pairs, plan.batch, range(5), LoaderOptions(num_workers=n, collate=collate_training)))
        for n in (0, 2)
    ]
    for (one,), (other,) in zip(*batches, strict=True):
        for name in ("image", "label"):
            assert all(torch.equal(a, b) for a, b in zip(one[name], other[name], strict=True))


def test_labels_lose_the_zero_and_the_image_keeps_its_colours(root):
    config = tiny_config(root, image_size=72)
    pairs = make_pairs(config, "validation", evaluation_pipeline(config))
    packed = pairs[SampleKey(0, 0)]
    stored = np.array(Image.open(label_map(root, 0, "validation"))).astype(int)
    labels = packed["data_samples"].gt_sem_seg.data[0].numpy()
    assert (labels[stored == 0] == 255).all()
    assert (labels[stored > 0] == stored[stored > 0] - 1).all()
    # 56 x 72 is brought to 72 on its short side: 72 x 93, and MMSegmentation's channels are BGR
    assert packed["inputs"].shape == (3, 93, 72)
    rgb = np.array(Image.open(image(root, 0, "validation")).convert("RGB"))
    assert np.abs(packed["inputs"].flip(0).float().mean(dim=(1, 2)).numpy() - rgb.mean(axis=(0, 1))).max() < 2


def test_pairs_are_checked_once_on_every_rank_together_and_found_complete(root):
    options = DataConfig(root=str(root))
    pairs = find_pairs(options)
    for split, count in zip(SPLITS, (16, 5), strict=True):
        found = check_pairs(pairs[split], ade20k(), options)
        assert (found.num_pairs, found.faults, set(found.pixels)) == (count, [], {0, *LABELS.values()})


def test_batches_of_one_size_hold_every_image_once(root):
    config = tiny_config(root)
    pairs = make_pairs(config, "validation", evaluation_pipeline(config))
    assert same_size_batches(pairs, 1) == [[0], [1], [2], [3], [4]]
    assert same_size_batches(pairs, 2) == [[0, 2], [4], [1, 3]]


def test_a_data_set_that_changed_since_the_start_is_refused(own, tmp_path, monkeypatch):
    from tests.segmentation.test_train import stop_in_evaluation

    stop_in_evaluation(monkeypatch, 1)
    from engine.errors import StopRequested

    with pytest.raises(StopRequested):
        train(tiny_config(own), tmp_path / "run")
    write_pair(own, "training", 99)
    with pytest.raises(DataError, match="17 files, the run started with 16"):
        train(tiny_config(own), tmp_path / "run", resume=True)
