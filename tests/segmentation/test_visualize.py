"""Pictures show the image, the truth and the prediction in ADE20K's colours."""

from pathlib import Path

import numpy as np
import pytest
from mmseg.datasets.ade import ADE20KDataset
from PIL import Image

from engine.errors import CheckpointError, ConfigError
from segmentation.labels import ade20k
from segmentation.panels import colour, panel, predict_labels
from segmentation.train import train
from segmentation.use import load_run
from segmentation.visualize import main
from tests.segmentation.folders import LABELS, tiny_config

pytestmark = pytest.mark.mmseg
PALETTE = ADE20KDataset.METAINFO["palette"]


@pytest.fixture(scope="module")
def run_dir(root, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    train(tiny_config(root, iterations=3, evaluate_every=3), folder)
    return folder


def pixels(path):
    return {tuple(colour) for colour in np.array(Image.open(path).convert("RGB")).reshape(-1, 3)}


def test_the_command_draws_the_given_images_and_those_of_the_run(run_dir, root, tmp_path, capsys):
    image = root / "images" / "validation" / "ADE_validation_00000001.jpg"
    main([str(run_dir), str(image), "--out", str(tmp_path)])
    assert capsys.readouterr().out.strip() == str(tmp_path / "ADE_validation_00000001.png")
    stored = set(np.unique(np.array(Image.open(str(image).replace("images", "annotations").replace("jpg", "png")))))
    drawn = pixels(tmp_path / "ADE_validation_00000001.png")
    assert {tuple(PALETTE[label - 1]) for label in stored - {0}} <= drawn, "the truth is not in ADE20K's colours"
    main([str(run_dir)])
    assert Path(capsys.readouterr().out.strip()).parent == run_dir / "panels"


def test_an_image_of_ones_own_is_drawn_without_truth(run_dir, root, tmp_path, capsys):
    own = tmp_path / "holiday.jpg"
    Image.open(root / "images" / "training" / "ADE_training_00000000.jpg").save(own)
    main([str(run_dir), str(own), "--out", str(tmp_path / "out")])
    assert (tmp_path / "out" / "holiday.png").is_file()


def test_a_prediction_has_the_size_of_the_image_and_classes_of_the_data_set(run_dir, root):
    segmentor, config = load_run(run_dir)
    labels = predict_labels(segmentor, config, root / "images" / "validation" / "ADE_validation_00000000.jpg")
    assert labels.shape == (72, 56)
    assert labels.max() < 150


def test_colours_are_those_of_the_data_set_and_black_for_unlabelled_pixels():
    labels = np.array([[LABELS["red"] - 1, 149, 255]], dtype=np.uint8)
    assert colour(labels, ade20k()).tolist() == [[PALETTE[0], PALETTE[149], [0, 0, 0]]]


def test_the_legend_names_the_classes_with_their_shares_and_the_title_says_how_much_is_right():
    truth = np.array([[0, 0, 2, 255]], dtype=np.uint8)
    predicted = np.array([[0, 1, 1, 1]], dtype=np.uint8)
    figure = panel(np.zeros((1, 4, 3), dtype=np.uint8), predicted, truth, ade20k(), "image.jpg")
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "building  0 / 75 %",
        "wall  50 / 25 %",
        "sky  25 / 0 %",
        "unlabelled  25 %",
    ]
    assert [axes.get_title() for axes in figure.axes] == ["image.jpg", "truth", "prediction (33.3 % right)"]


def test_a_folder_without_a_segmentation_run_is_refused(tmp_path, run_dir):
    with pytest.raises(ConfigError, match="holds no run"):
        load_run(tmp_path)
    (tmp_path / "config.json").write_text((run_dir / "config.json").read_text())
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        load_run(tmp_path)
    (tmp_path / "config.json").write_text('{"package": "pretrain", "recipe": "demo", "config": {}}')
    with pytest.raises(ConfigError, match="holds a pretrain run"):
        load_run(tmp_path)
