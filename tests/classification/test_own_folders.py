"""A folder of one's own: class folders without train/ and val/, and a recipe that fits it."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import pretrain.recipes
from classification import use as this
from classification.config import DataConfig
from classification.data import find_images
from classification.recipes import RECIPES, own
from classification.train import train
from engine import use
from engine.cli import parse
from engine.config import check
from engine.errors import DataError
from pretrain.data import training_images
from tests.classification.folders import make_folder, tiny_config


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three class folders of 100, 90 and 80 images of 48 x 40 pixels, nothing else."""
    root = tmp_path_factory.mktemp("own")
    for label, name in enumerate(("blue", "green", "red")):
        (root / name).mkdir()
        for i in range(100 - 10 * label):
            pixels = np.full((40, 48, 3), 40 + i, np.uint8)
            pixels[:, :, 2 - label] += 80
            Image.fromarray(pixels).save(root / name / f"{i:03d}.jpg")
    return root


def test_pre_training_never_sees_what_fine_tuning_validates_on(folder):
    tuned = own("test_resnet", str(folder))
    train_set, val_set = find_images(tuned.data)
    pretrained = pretrain.recipes.own("test_resnet", data_root=str(folder))
    assert list(training_images(pretrained.data).paths) == list(train_set.paths)
    assert (len(train_set), len(val_set)) == (216, 54)
    assert not set(train_set.paths) & set(val_set.paths)
    assert tuned.image_size == pretrained.image_size == tuned.augment.test_size


def test_images_that_are_excluded_do_not_count_and_bad_ones_are_left_to_the_run(folder, tmp_path):
    root = tmp_path / "mine"
    shutil.copytree(folder, root)
    (root / "red/empty.jpg").write_bytes(b"")
    (tmp_path / "list.txt").write_text("".join(f"blue/{i:03}.jpg\n" for i in range(10)) + "red/empty.jpg\n")
    for package, recipes in (("pretrain", pretrain.recipes.RECIPES), ("classification", RECIPES)):
        words = ["own", "--model", "test_resnet", "--data.root", str(root), "--run-dir", str(tmp_path / "run")]
        whole = parse(package, recipes, words).config
        part = parse(package, recipes, [*words, "--data.exclude", str(tmp_path / "list.txt")]).config
        assert part.data.exclude == str(tmp_path / "list.txt")
        assert part.epochs >= whole.epochs, "the length is that of the images that are left"
    _, images = find_images(part.data)
    assert len(images) == 52


def test_length_batch_and_size_follow_from_the_folder_and_the_reasons_are_said(folder, caplog):
    caplog.set_level("INFO")
    pretrained = pretrain.recipes.own("test_resnet", "simmim", str(folder))
    assert (pretrained.method, pretrained.batch_size, pretrained.epochs) == ("simmim", 32, 500)
    assert "3,000 steps, 500 epochs: masked image modelling learns little in fewer" in caplog.text
    assert "216 images are few to pre-train on" in caplog.text
    tuned = own("test_resnet", str(folder), batch_size="8", steps="54")
    assert (tuned.batch_size, tuned.epochs) == (8, 2)
    assert "the smallest, red, with 64 images" in caplog.text
    assert own("test_resnet", str(folder), freeze="encoder").freeze == "encoder"
    for config in (pretrained, replace(tuned, init="none")):
        check(config)


def test_the_command_line_gives_the_recipe_its_folder(folder, tmp_path):
    arguments = ["own", "--model=test_resnet", f"--data.root={folder}", "--batch_size", "8", "--run-dir", str(tmp_path)]
    command = parse("pretrain", pretrain.recipes.RECIPES, arguments)
    assert (command.config.data.root, command.config.batch_size) == (str(folder), 8)


def test_too_little_is_refused_with_what_to_do_instead(tmp_path):
    root = make_folder(tmp_path, num_train=10, num_val=2)
    with pytest.raises(DataError, match=r"30 images: too few to pre-train .* released weights"):
        pretrain.recipes.own("test_resnet", data_root=str(root))
    with pytest.raises(DataError, match="two class folders or more"):
        own("test_resnet", str(make_folder(tmp_path / "one", classes=("red",))))
    with pytest.raises(DataError, match=r"no folder for validation \(val, valid, validation, test\).*--data.val-share"):
        find_images(DataConfig(root=str(root / "train")))


def test_a_run_is_evaluated_on_its_own_share_and_on_all_of_another_folder(folder, tmp_path):
    config = tiny_config(folder, epochs=2)
    config = replace(config, batch_size=54, data=replace(config.data, val_share=0.2, evaluation_batch_size=54))
    metrics = train(config, tmp_path / "run")
    again = this.evaluate(use.evaluate_command("classification", [str(tmp_path / "run")], type(config)))
    assert again["top1"] == metrics["top1_last"]
    other = make_folder(tmp_path / "other", num_train=1, num_val=1) / "train"
    arguments = [str(tmp_path / "run"), "--data.root", str(other)]
    assert 0 <= this.evaluate(use.evaluate_command("classification", arguments, type(config)))["top1"] <= 100
