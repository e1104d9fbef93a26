"""Segmentation without its framework (F08), with faulty images and label maps (F14, F24) and with odd labels (F24)."""

import importlib.util
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from engine.errors import DataError
from tests.helpers import ROOT, run_python
from tests.segmentation.folders import make_ade, tiny_config

if importlib.util.find_spec("mmseg") is None:
    pytest.skip("needs the segmentation extra", allow_module_level=True)
pytestmark = pytest.mark.mmseg


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_ade(tmp_path_factory.mktemp("data") / "ADEChallengeData2016")


@pytest.fixture
def own(root, tmp_path):
    return shutil.copytree(root, tmp_path / "data")


def image(root, number, split="training"):
    return root / "images" / split / f"ADE_{split}_{number:08d}.jpg"


def label_map(root, number, split="training"):
    return root / "annotations" / split / f"ADE_{split}_{number:08d}.png"


def refusal(root, tmp_path, **changes):
    from segmentation.train import train

    with pytest.raises(DataError) as caught:
        train(tiny_config(root, **changes), tmp_path / "run")
    assert caught.value.exit_code == 3
    return str(caught.value)


def test_f08_without_mmsegmentation_the_command_says_how_to_install_it_and_leaves_with_2(tmp_path):
    code = (
        "import runpy, sys; sys.modules['mmseg'] = None; sys.argv = ['segmentation', 'demo', '--run-dir', 'nowhere'];"
        "runpy.run_module('segmentation', run_name='__main__')"
    )
    done = run_python("-c", code)
    assert done.returncode == 2
    assert done.stderr.startswith("error: segmentation needs MMSegmentation, but mmseg is not installed: pip install")
    assert "[segmentation]" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (ROOT / "nowhere").exists()


def test_f24_every_kind_of_fault_is_named_with_its_path_before_training(own, tmp_path):
    label_map(own, 0).unlink()
    image(own, 1).unlink()
    Image.new("L", (10, 10)).save(label_map(own, 2))
    labels = np.array(Image.open(label_map(own, 3)))
    labels[5, 5] = 151
    Image.fromarray(labels).save(label_map(own, 3))
    image(own, 4).write_bytes(image(own, 4).read_bytes()[:-300])
    label_map(own, 5).write_bytes(b"")
    Image.new("RGB", Image.open(image(own, 6)).size).save(label_map(own, 6))
    text = refusal(own, tmp_path)
    for path, reason in (
        (image(own, 0), "has no label map in"),
        (label_map(own, 1), "has no image in"),
        (label_map(own, 2), "10x10 pixels, but its image has 56x72"),
        (label_map(own, 3), "holds the label 151; label 0 is ignored, the 150 classes are labels 1 to 150"),
        (image(own, 4), "JPEG that cannot be decoded"),
        (label_map(own, 5), "not a readable image (0 bytes)"),
        (label_map(own, 6), "a label map has one channel, this one is RGB"),
    ):
        assert any(line.strip().startswith(str(path)) and reason in line for line in text.splitlines()), (path, text)
    assert "7 faulty files" in text
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_f14_a_validation_fault_stops_the_run_even_where_training_ones_may_be_left_out(own, tmp_path):
    image(own, 1, "validation").write_bytes(b"<html>")
    config = tiny_config(own)
    text = refusal(own, tmp_path, data=replace(config.data, unreadable="skip"))
    assert str(image(own, 1, "validation")) in text


def test_f24_a_label_map_of_unlabelled_pixels_only_is_no_fault_but_a_split_of_them_is(own, tmp_path):
    from segmentation.train import train

    def erase(number, split):
        path = label_map(own, number, split)
        Image.fromarray(np.zeros_like(np.array(Image.open(path)))).save(path)

    for number in range(15):
        erase(number, "training")
    config = tiny_config(own, iterations=1, schedule=replace(tiny_config(own).schedule, warmup_iterations=0))
    train(config, tmp_path / "run")
    assert '"loss": ' in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0]
    for number in range(5):
        erase(number, "validation")
    assert "no pixel of the 5 validation label maps is labelled: they hold only label 0" in refusal(own, tmp_path / "b")
    erase(15, "training")
    assert "no pixel of the 16 training label maps is labelled" in refusal(own, tmp_path / "c")
