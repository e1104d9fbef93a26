"""The monitor: what it measures beside the loss, and that training is the same to the bit without it."""

import json
import re
from dataclasses import replace

import pytest

from engine.config import check
from engine.errors import ConfigError, DataError
from engine.run.checkpoint import newest
from pretrain.config import MonitorConfig
from pretrain.recipes import demo
from pretrain.train import train
from results.figures.curves import pretraining_curves
from results.runs.collect import read_runs
from tests.evaluation.test_command import write_images


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("images"), counts=(("train", 8), ("val", 3)))


def settings(images, method="a2mim", model="test_resnet", **monitor):
    base = demo(model, method)
    return replace(
        base,
        epochs=2,
        image_size=64,
        batch_size=8,
        visualize_every_epochs=0,
        log_every=1,
        data=replace(base.data, root=str(images / "train"), num_workers=0),
        monitor=MonitorConfig(**monitor),
        schedule=replace(base.schedule, warmup_epochs=1),
    )


def lines(folder, split):
    rows = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [row for row in rows if row["split"] == split]


def test_training_is_the_same_to_the_bit_with_and_without_it(images, tmp_path, monkeypatch):
    monkeypatch.setenv("MIM_TRACKERS", "")
    train(settings(images), tmp_path / "plain", recipe="demo", keep_all=True)
    train(
        settings(images, every_epochs=1, data=str(images), batch_size=5),
        tmp_path / "watched",
        recipe="demo",
        keep_all=True,
    )
    saved = [newest(tmp_path / name) for name in ("plain", "watched")]
    assert saved[0].name == saved[1].name == "00000006"
    for name in ("model.safetensors", "optimizer.pt"):
        assert (saved[0] / name).read_bytes() == (saved[1] / name).read_bytes()
    assert lines(tmp_path / "plain", "train") == lines(tmp_path / "watched", "train")
    assert not lines(tmp_path / "plain", "val")
    measured = lines(tmp_path / "watched", "val")
    assert [row["epoch"] for row in measured] == [0, 1, 2]
    for row in measured:
        terms = [value for name, value in row.items() if re.fullmatch("held_out_(?!loss).*", name)]
        assert row["held_out_loss"] == pytest.approx(sum(terms))
        assert 1 <= row["rank_me"] <= 24
        assert 0 <= row["knn_top1"] <= 100
    assert measured[0]["held_out_loss"] != measured[2]["held_out_loss"]
    (reason,) = (str(each) for each in read_runs([tmp_path]).rejected)
    assert reason == f"{tmp_path / 'watched'}: the same run as {tmp_path / 'plain'}, counted once"
    found = read_runs([tmp_path / "watched"])
    names = [drawing.name for drawing in pretraining_curves(found.rows, found.curves)]
    assert names == ["curves-pretraining", "curves-pretraining-knn", "curves-pretraining-rank"]


def test_images_without_labels_have_no_accuracy_and_at_most_as_many_are_read(images, tmp_path, monkeypatch):
    monkeypatch.setenv("MIM_TRACKERS", "")
    flat = settings(images, "simmim", every_epochs=2, data=str(images / "val" / "class0"), max_images=2)
    train(flat, tmp_path / "run", recipe="demo")
    assert [row["epoch"] for row in lines(tmp_path / "run", "val")] == [0, 2]
    for row in lines(tmp_path / "run", "val"):
        assert row.keys() == {"step", "epoch", "split", "held_out_loss", "rank_me"}
        assert row["rank_me"] == pytest.approx(1)  # two images differ in one direction
    assert {path.name for path in (tmp_path / "run" / "panels").iterdir()} == {"epoch_0000.png", "epoch_0002.png"}


@pytest.mark.parametrize(
    ("monitor", "text"),
    [
        ({"every_epochs": 1}, "monitor.data is not given"),
        ({"data": "x"}, "every_epochs is 0 beside monitor.data"),
        ({"every_epochs": -1}, "every_epochs is -1"),
        ({"every_epochs": 1, "data": "x", "max_images": 0}, "max_images is 0"),
    ],
)
def test_half_a_monitor_is_refused(images, monitor, text):
    with pytest.raises(ConfigError, match=text):
        check(settings(images, **monitor))


def test_a_folder_without_images_stops_before_the_first_step(images, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no images found"):
        train(settings(images, every_epochs=1, data=str(tmp_path / "empty")), tmp_path / "run", recipe="demo")
    assert not (tmp_path / "run" / "checkpoints").exists()
