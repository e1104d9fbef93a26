"""Few labels: a share of every class, or a list as people have them."""

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from backbones.weights import download
from classification import labels
from classification.config import EmaConfig
from classification.data import open_data
from classification.labels import labelled_part, listed_subset, stratified_subset
from classification.train import train
from engine.config import check
from engine.data.images import index_images
from engine.data.order import SampleKey
from engine.errors import ConfigError, DataError
from tests.classification.folders import make_folder, tiny_config


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = make_folder(tmp_path_factory.mktemp("data"))
    for path in list((root / "train").glob("*/*.jpg")):
        path.rename(path.with_name(f"{path.parent.name}_{path.name}" if path.parent.name != "red" else path.name))
    return root


@pytest.fixture
def index(root):
    return index_images(root / "train", labelled=True)


def test_a_subset_has_the_same_share_of_every_class_and_grows_with_the_fraction(index):
    names = {f: set(stratified_subset(index, f, seed=0).paths) for f in (0.01, 0.25, 0.5, 1.0)}
    assert [len(names[f]) for f in (0.01, 0.25, 0.5, 1.0)] == [3, 6, 12, 24]
    assert names[0.01] < names[0.25] < names[0.5] < names[1.0]
    half = stratified_subset(index, 0.5, seed=0)
    assert np.bincount(half.labels).tolist() == [4, 4, 4]
    assert all(path.startswith(f"{half.classes[label]}/") for path, label in zip(half.paths, half.labels, strict=True))
    assert set(stratified_subset(index, 0.5, seed=1).paths) != names[0.5]


class TestList:
    @pytest.mark.parametrize(
        "line", ["blue/blue_003.jpg", "train/blue/blue_003.jpg", "blue_003.jpg", "./blue/blue_003.jpg", "{root}"]
    )
    def test_a_line_is_a_path_or_a_name(self, root, index, tmp_path, line):
        path = tmp_path / "list.txt"
        path.write_text(f"{line.format(root=root / 'train/blue/blue_003.jpg')}\nred/000.jpg\nred/000.jpg\n")
        part = listed_subset(index, path)
        assert part.paths[:] == ["blue/blue_003.jpg", "red/000.jpg"]
        assert part.labels.tolist() == [0, 2]
        assert part.classes == index.classes

    @pytest.mark.parametrize(
        ("lines", "message"),
        [
            (
                "gone.jpg\nblue_000.jpg\nalso/gone.jpg\n",
                "2 of 3 lines name no image under .*: gone.jpg, also/gone",
            ),
            ("000.jpg\n", None),
            ("\n# nothing\n", "the list of labelled images is empty"),
        ],
    )
    def test_what_cannot_be_meant_is_refused_by_line(self, index, tmp_path, lines, message):
        path = tmp_path / "list.txt"
        path.write_text(lines)
        if message is None:  # the name is there once
            assert listed_subset(index, path).paths[:] == ["red/000.jpg"]
            return
        with pytest.raises(DataError, match=message):
            listed_subset(index, path)

    def test_a_name_in_two_folders_is_ambiguous(self, tmp_path):
        twice = index_images(make_folder(tmp_path, num_train=1, num_val=1) / "train", labelled=True)
        (tmp_path / "list.txt").write_text("000.jpg\n")
        with pytest.raises(DataError, match="1 of 1 lines name several images under"):
            listed_subset(twice, tmp_path / "list.txt")

    def test_a_published_list_is_recognised_and_missing_classes_are_named(self, index, tmp_path, caplog, monkeypatch):
        path = tmp_path / "list.txt"
        path.write_text("blue_000.jpg\n")
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        monkeypatch.setitem(labels.PUBLISHED_LISTS, "mine", labels.PublishedList("somebody's list", "", digest))
        caplog.set_level("INFO")
        listed_subset(index, path)
        assert "list.txt: somebody's list" in caplog.text
        assert "no image of 2 of 3 classes: green, red" in caplog.text


def test_a_run_stores_its_list_states_its_steps_and_can_be_repeated_from_it(root, tmp_path, caplog):
    caplog.set_level("INFO")
    config = tiny_config(root, epochs=2)
    few = replace(config, data=replace(config.data, train_fraction=0.5, full_epochs=False))
    train(few, tmp_path / "few")
    listed = (tmp_path / "few/labels.txt").read_text().splitlines()
    assert len(listed) == 12
    assert f"train: 12 of 24 images, listed in {tmp_path}/few/labels.txt" in caplog.text
    assert "4 steps in 2 epochs, all images make 8 (--epochs 4 for as many)" in caplog.text
    again = replace(config, data=replace(config.data, label_list=str(tmp_path / "few/labels.txt")))
    part = labelled_part(index_images(root / "train", labelled=True), again)
    assert part.paths[:] == sorted(listed)
    pinned = json.loads((tmp_path / "few/data.json").read_text())["train"]
    assert (pinned["num_images"], pinned["digest"]) == (12, part.digest)


def test_a_list_and_a_fraction_together_are_refused(root):
    config = tiny_config(root)
    both = replace(config, data=replace(config.data, train_fraction=0.5, label_list="x"))
    with pytest.raises(ConfigError, match="label_list is given beside train_fraction"):
        check(both)


def test_epochs_of_few_images_take_as_many_steps_as_all_with_other_draws_for_each_copy(root, tmp_path, caplog):
    config = tiny_config(root, epochs=2, batch_size=8, ema=EmaConfig())
    config = replace(config, data=replace(config.data, train_fraction=0.01))
    part, _ = open_data(config)
    assert (len(part), part.num_samples) == (3, 24)
    first, copy = (part[SampleKey(0, index)] for index in (1, 4))
    assert first["label"] == copy["label"]
    assert not torch.equal(first["image"], copy["image"])
    caplog.set_level("INFO")
    train(config, tmp_path / "few")
    assert "6 steps in 2 epochs, as many as all images make: each comes 8 times an epoch" in caplog.text
    train(replace(config, data=replace(config.data, train_fraction=1.0)), tmp_path / "all")
    told = [json.loads((tmp_path / name / "environment.json").read_text()) for name in ("few", "all")]
    assert [environment["effective"]["steps"] for environment in told] == [6, 6]
    assert json.loads((tmp_path / "few" / "finished.json").read_text())["num_train"] == 3


def test_a_published_list_goes_by_its_name_and_is_held_to_its_hash(root, tmp_path, monkeypatch):
    content = b"blue_000.jpg\ngreen_001.jpg\n"
    published = labels.PublishedList("a list", "https://lists/few.txt", hashlib.sha256(content).hexdigest())
    monkeypatch.setitem(labels.PUBLISHED_LISTS, "few-1", published)
    monkeypatch.setenv("MIM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MIM_RELEASED_URL", "http://127.0.0.1:9")  # where nobody is
    monkeypatch.setattr(download, "_PAUSE_S", 0.0)
    path = tmp_path / "cache" / published.file
    with pytest.raises(DataError, match=rf"few-1: http://127.*Put https://lists/few.txt at {path}"):
        labels.find_list("few-1")
    path.write_bytes(content)
    assert labels.find_list("few-1") == path
    path.write_bytes(content[:-4])
    with pytest.raises(DataError, match=r"is not a list: its sha256 is .*Remove it"):
        labels.find_list("few-1")
    assert labels.find_list(str(tmp_path / "mine.txt")) == tmp_path / "mine.txt"
