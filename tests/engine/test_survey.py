"""What follows from a data set of one's own, and which of its images are held out."""

import numpy as np
import pytest
from PIL import Image

from engine.data.index import index_images
from engine.data.split import held_out, image_root, split_folder
from engine.data.survey import Asked, Survey, choose_batch_size, choose_image_size, survey
from engine.errors import ConfigError, DataError


def test_the_same_images_are_held_out_of_every_class_whatever_else_is_there():
    paths = [f"{name}/{i}.png" for name, number in (("a", 50), ("b", 10), ("c", 2), ("d", 1)) for i in range(number)]
    chosen = {paths[i] for i in held_out(paths, 0.2)}
    assert {name: sum(path.startswith(name) for path in chosen) for name in "abcd"} == {"a": 10, "b": 2, "c": 1, "d": 0}
    assert chosen == {path for i in held_out(paths[::-1], 0.2) for path in [paths[::-1][i]]}
    fewer = [path for path in paths if not path.startswith("b")]
    assert {fewer[i] for i in held_out(fewer, 0.2)} == {path for path in chosen if not path.startswith("b")}
    assert held_out(paths, 0.0) == []


@pytest.mark.parametrize(
    ("folders", "train", "val"),
    [(("train", "val"), "train", "val"), (("Training", "test"), "Training", "test"), (("a", "b"), None, None)],
)
def test_splits_are_found_by_the_usual_names(tmp_path, folders, train, val):
    for name in folders:
        (tmp_path / name).mkdir()
    assert split_folder(tmp_path, "train") == (train and tmp_path / train)
    assert split_folder(tmp_path, "val") == (val and tmp_path / val)
    assert image_root(tmp_path) == (tmp_path / train if train else tmp_path)


def test_a_survey_reads_headers_and_leaves_bad_files_to_the_run(tmp_path):
    for i, side in enumerate((40, 100, 100)):
        Image.fromarray(np.zeros((side, 200, 3), np.uint8)).save(tmp_path / f"{i}.png")
    (tmp_path / "3.png").write_bytes(b"not a picture")
    seen = survey(index_images(tmp_path, labelled=False))
    assert (seen.num_images, seen.short_side, seen.num_read, seen.has_classes) == (4, 100, 3, False)
    for path in tmp_path.glob("[0-2].png"):
        path.unlink()
    with pytest.raises(DataError, match="none of the images"):
        survey(index_images(tmp_path, labelled=False))


@pytest.mark.parametrize(("side", "size"), [(28, 64), (64, 64), (150, 128), (500, 224)])
def test_the_image_size_is_the_images_own(side, size):
    assert choose_image_size(Survey(10, side, 10, {}), Asked())[0] == size


@pytest.mark.parametrize(("images", "batch"), [(20, 20), (200, 32), (2000, 64), (1_000_000, 256)])
def test_the_batch_leaves_an_epoch_its_steps(images, batch):
    assert choose_batch_size(images, 16, least=32, most=256, asked=Asked())[0] == batch


def test_what_is_asked_is_not_chosen():
    asked = Asked.of(steps="", batch_size="48", image_size="80")
    assert choose_image_size(Survey(10, 500, 10, {}), asked) == (80, "as asked")
    assert choose_batch_size(9999, 16, least=32, most=256, asked=asked) == (48, "as asked")
    for wrong in ("0", "-3", "many", "1.5"):
        with pytest.raises(ConfigError, match="--batch-size"):
            Asked.of(batch_size=wrong)
