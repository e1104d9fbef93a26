"""Samples are a function of (seed, key); folders that cannot be used are refused."""

import random
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from classification.data import open_data
from engine.data.order import SampleKey, SamplePlan
from engine.errors import DataError
from tests.classification.folders import make_folder, tiny_config


@pytest.fixture
def root(tmp_path):
    return make_folder(tmp_path / "data")


def test_a_sample_depends_on_seed_and_key_and_on_nothing_else(root):
    train, _ = open_data(tiny_config(root))
    key = SampleKey(2, 5, 1)
    once = train[key]["image"]
    random.seed(9)
    np.random.seed(9)
    torch.manual_seed(9)
    train[SampleKey(0, 1)]
    assert torch.equal(train[key]["image"], once)
    others = [SampleKey(3, 5, 1), SampleKey(2, 6, 1), SampleKey(2, 5, 0)]
    assert not any(torch.equal(train[other]["image"], once) for other in others)
    reseeded, _ = open_data(tiny_config(root, seed=1))
    assert not torch.equal(reseeded[key]["image"], once)


def test_reading_a_sample_leaves_the_global_generators_alone(root):
    train, _ = open_data(tiny_config(root))

    def draws():
        return random.random(), np.random.rand(), torch.rand(1).item()

    def seed():
        random.seed(1)
        np.random.seed(1)
        torch.manual_seed(1)

    seed()
    expected = draws()
    seed()
    train[SampleKey(0, 0)]
    assert draws() == expected


def test_images_are_uint8_and_labels_number_the_sorted_class_folders(root):
    train, val = open_data(tiny_config(root))
    assert len(train) == 24 and len(val) == 12
    sample = train[SampleKey(0, 20)]
    assert sample["image"].dtype == torch.uint8 and sample["image"].shape == (3, 32, 32)
    assert [int(val[SampleKey(0, i)]["label"]) for i in range(12)] == [0] * 4 + [1] * 4 + [2] * 4


def test_train_and_val_with_different_classes_are_refused_by_name(root):
    shutil.rmtree(root / "val" / "green")
    with pytest.raises(DataError, match="green"):
        open_data(tiny_config(root))


def test_an_unreadable_validation_image_is_never_replaced(root):
    (root / "val" / "red" / "000.jpg").write_bytes(b"<html>not found</html>")
    config = tiny_config(root)
    _, val = open_data(replace(config, data=replace(config.data, unreadable="skip")))
    with pytest.raises(DataError, match=r"red/000\.jpg"):
        val[SampleKey(0, 8)]


def test_repeated_augmentation_shows_fewer_images_several_times_each_time_anew(root):
    train, _ = open_data(tiny_config(root))
    plan = SamplePlan(len(train), 12, seed=0, repeats=3)
    keys = [key for step in range(plan.steps_per_epoch) for key in plan.batch(step)]
    assert len(keys) == 24 and len({key.index for key in keys}) == 8
    first = [key for key in keys if key.index == keys[0].index]
    assert [key.repeat for key in first] == [0, 1, 2]
    images = [train[key]["image"] for key in first]
    assert not torch.equal(images[0], images[1]) and not torch.equal(images[1], images[2])
