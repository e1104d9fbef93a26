"""Index, decoding and substitution: what a user's folder of images becomes."""

import io
import pickle
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.data import decode
from engine.data.content import check_unchanged
from engine.data.images import (
    check_same_classes,
    index_images,
    read_image,
    read_sample,
    require_batch,
)
from engine.data.index import PathList
from engine.data.order import SampleKey
from engine.errors import DataError


def random_pixels(height=37, width=53, channels=3, seed=0):
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def save(path, pixels=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(random_pixels() if pixels is None else pixels).save(path, **options)
    return path


def pillow(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


@pytest.fixture
def labelled_folder(tmp_path):
    for name in ("b/2.png", "b/1.JPEG", "a/x.jpg", "a-b/deep/er/y.webp"):
        save(tmp_path / name)
    (tmp_path / "a" / "notes.txt").write_text("no image")
    (tmp_path / "a" / "._x.jpg").write_text("what another system leaves beside x.jpg")
    return tmp_path


def test_index_lists_every_image_sorted_with_its_size(labelled_folder):
    index = index_images(labelled_folder, labelled=False)
    assert list(index.paths) == ["a-b/deep/er/y.webp", "a/x.jpg", "b/1.JPEG", "b/2.png"]
    assert index.sizes.tolist() == [Path(index.path(i)).stat().st_size for i in range(4)]
    assert index.labels is None
    assert index.classes == ()


def test_labels_follow_the_sorted_class_names(labelled_folder):
    index = index_images(labelled_folder, labelled=True)
    assert index.classes == ("a", "a-b", "b")
    assert index.labels.tolist() == [1, 0, 2, 2]


def test_labels_follow_the_order_of_the_classes_asked_for(labelled_folder):
    index = index_images(labelled_folder, labelled=True, classes=("b", "a", "a-b"))
    assert index.labels.tolist() == [2, 1, 0, 0]


def test_classes_asked_for_must_be_those_of_the_folder(labelled_folder):
    with pytest.raises(DataError, match=r"differ in 2 classes: b \(only in .*\), c \(only in the classes asked for\)"):
        index_images(labelled_folder, labelled=True, classes=("a", "a-b", "c"))


def test_labelled_images_outside_class_folders_are_refused(labelled_folder):
    save(labelled_folder / "loose.jpg")
    with pytest.raises(DataError, match="1 images are in no class folder"):
        index_images(labelled_folder, labelled=True)


def test_class_folder_without_images_is_named(labelled_folder):
    (labelled_folder / "void").mkdir()
    with pytest.raises(DataError, match=r"class folders without images.*void"):
        index_images(labelled_folder, labelled=True)


def test_links_are_followed_and_a_link_back_is_refused(tmp_path):
    save(tmp_path / "store/1.jpg")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/linked").symlink_to(tmp_path / "store")
    assert list(index_images(tmp_path / "data", labelled=False).paths) == ["linked/1.jpg"]
    (tmp_path / "store/again").symlink_to(tmp_path / "store")
    with pytest.raises(DataError, match="leads back to a folder above"):
        index_images(tmp_path / "data", labelled=False)


def test_digest_depends_on_names_and_sizes_but_not_on_the_place(labelled_folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("elsewhere") / "copy"
    shutil.copytree(labelled_folder, other)
    digest = index_images(labelled_folder, labelled=True).digest
    assert index_images(other, labelled=True).digest == digest
    (other / "b/2.png").rename(other / "b/3.png")
    assert index_images(other, labelled=True).digest != digest
    (other / "b/3.png").rename(other / "b/2.png")
    (other / "b/2.png").write_bytes(b"longer or shorter")
    assert index_images(other, labelled=True).digest != digest


def test_path_list_is_a_sequence_and_survives_pickling():
    names = ["b", "ü", "a/c.jpg", "\udcff.jpg"]  # the last is a name that is not UTF-8
    paths = pickle.loads(pickle.dumps(PathList(names)))
    assert list(paths) == sorted(names)
    assert paths[-1] == sorted(names)[-1]
    assert paths[1:3] == sorted(names)[1:3]
    with pytest.raises(IndexError):
        paths[4]


def test_names_of_a_large_data_set_take_40_bytes_each():
    paths = PathList(f"n{i % 1000:08d}/n{i % 1000:08d}_{i}.JPEG" for i in range(100_000))
    assert sys.getsizeof(paths.block) + paths.ends.nbytes < 40 * len(paths)


def test_require_batch_names_both_numbers(labelled_folder):
    index = index_images(labelled_folder, labelled=False)
    require_batch(index, 4)
    with pytest.raises(DataError, match="has 4 images, fewer than one batch of 5: use --batch-size 4 or less"):
        require_batch(index, 5)


def test_same_classes_in_another_order_are_refused(labelled_folder):
    train = index_images(labelled_folder, labelled=True)
    check_same_classes(train, index_images(labelled_folder, labelled=True))
    with pytest.raises(DataError, match="number their classes differently: a, b"):
        check_same_classes(train, index_images(labelled_folder, labelled=True, classes=("b", "a-b", "a")))


def test_unchanged_data_set_passes(labelled_folder):
    index = index_images(labelled_folder, labelled=True)
    check_unchanged(index, 4, index.digest)


@pytest.mark.parametrize("seed", range(12))
def test_jpeg_of_any_size_and_subsampling_has_pillows_pixels(tmp_path, seed):
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 70, 2)
    pixels = random_pixels(height, width, seed=seed)
    path = save(tmp_path / "x.jpg", pixels, quality=80, subsampling=seed % 3, progressive=bool(seed % 2))
    np.testing.assert_array_equal(read_image(path), pillow(path))


def test_read_image_gives_writable_contiguous_rgb(tmp_path):
    for name in ("x.jpg", "x.png"):
        array = read_image(save(tmp_path / name))
        assert array.shape == (37, 53, 3)
        assert array.dtype == np.uint8
        assert array.flags.writeable
        assert array.flags.c_contiguous


def test_transparency_is_laid_over_white(tmp_path):
    rgba = np.array([[[10, 20, 30, 0], [10, 20, 30, 255], [0, 0, 0, 128]]], dtype=np.uint8)
    assert read_image(save(tmp_path / "x.png", rgba)).tolist() == [[[255] * 3, [10, 20, 30], [127] * 3]]


def test_palette_with_a_transparent_entry_is_laid_over_white(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([200, 0, 0, 0, 0, 200])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "x.png", transparency=1)
    assert read_image(tmp_path / "x.png").tolist() == [[[200, 0, 0], [255, 255, 255]]]


def test_exif_orientation_is_ignored(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # "rotate by 90 degrees to show"
    path = save(tmp_path / "x.jpg", exif=exif)
    assert read_image(path).shape == (37, 53, 3)
    np.testing.assert_array_equal(read_image(path), pillow(path))


def test_reason_says_what_the_bytes_look_like(tmp_path):
    cases = {
        b"": "empty file",
        b"\n<!DOCTYPE html><html>404</html>": "an HTML page",
        b"%PDF-1.7 ...": "PDF",
        b"hello world": "11 bytes beginning with b'hello wo'",
        b"\xff\xd8 no jpeg": "JPEG",
    }
    for data, reason in cases.items():
        (tmp_path / "x.jpg").write_bytes(data)
        with pytest.raises(decode.UnreadableImageError, match=reason) as caught:
            read_image(tmp_path / "x.jpg")
        assert str(caught.value).startswith(f"{tmp_path}/x.jpg: ")


def test_formats_that_may_start_programs_are_not_decoded():
    postscript = io.BytesIO()
    Image.fromarray(random_pixels()).save(postscript, "EPS")
    with pytest.raises(decode.UnreadableImageError, match="not a readable image"):
        decode.decode_image(postscript.getvalue())


def test_read_sample_returns_the_image_of_its_key(labelled_folder):
    index = index_images(labelled_folder, labelled=True)
    array, position = read_sample(index, SampleKey(3, 2), policy="stop", seed=0)
    assert position == 2
    np.testing.assert_array_equal(array, pillow(labelled_folder / "b/1.JPEG"))
