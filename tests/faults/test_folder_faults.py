"""Folders as people have them: other suffixes, pipes and links among the images, replaced files, lists to leave out."""

import errno
import io
import os
import shutil
import socket
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from classification.train import train
from engine.config import problems_of
from engine.data import files
from engine.data.content import check_same, identify, look_into, remarks
from engine.data.images import ImageOptions, index_images, read_sample
from engine.data.order import SampleKey
from engine.errors import DataError, StopRequested
from tests.classification.folders import make_folder as make_classes
from tests.classification.folders import tiny_config

FORMATS = {"jpg": "JPEG", "jfif": "JPEG", "JPE": "JPEG", "tif": "TIFF", "TIFF": "TIFF", "png": "PNG"}
ALL = (*FORMATS, "webp", "bmp", "gif", "ppm", "pgm", "jp2", "avif")


def picture(seed, kind="BMP", side=16):
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)).save(file, kind)
    return file.getvalue()


def fill(folder, num_images=6, side=16):
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(num_images):
        (folder / f"{i}.bmp").write_bytes(picture(i, side=side))
    return folder


class TestSuffixes:
    def test_every_format_that_is_read_is_taken(self, tmp_path):
        for i, suffix in enumerate(ALL):
            kind = FORMATS.get(suffix, {"jp2": "JPEG2000", "pgm": "PPM"}.get(suffix, suffix.upper()))
            (tmp_path / f"{i}.{suffix}").write_bytes(picture(i, kind))
        index = index_images(tmp_path, labelled=False)
        assert len(index) == len(ALL)
        assert index.left_out == {}
        for i in range(len(index)):
            assert read_sample(index, SampleKey(0, i), policy="stop", seed=0)[0].shape == (16, 16, 3)

    def test_what_looks_like_an_image_and_is_not_taken_is_counted_and_named(self, tmp_path):
        fill(tmp_path)
        for name in ("phone.HEIC", "phone2.heic", "scan.dcm"):
            (tmp_path / name).write_bytes(b"anything")
        (tmp_path / "saved.bak").write_bytes(picture(1, "PNG"))
        (tmp_path / "no suffix").write_bytes(picture(1, "JPEG"))
        (tmp_path / ".hidden.jpg").write_bytes(picture(1, "JPEG"))
        (tmp_path / "empty.png").mkdir()
        for name in ("notes.txt", ".DS_Store", "._0.jpg", "labels.json"):
            (tmp_path / name).write_bytes(b"text")
        index = index_images(tmp_path, labelled=False)
        named = {path for paths in index.left_out.values() for path in paths}
        assert named == {"phone.HEIC", "phone2.heic", "scan.dcm", "saved.bak", "no suffix", ".hidden.jpg", "empty.png"}
        (remark,) = remarks(index, look_into(index))
        assert "7 files look like images and are left out: " in remark
        assert "2 (.heic, which is not read): phone.HEIC, phone2.heic" in remark

    def test_folders_with_only_such_files_say_so(self, tmp_path):
        fill(tmp_path / "a")
        (tmp_path / "b").mkdir()
        (tmp_path / "b/x.heic").write_bytes(b"anything")
        with pytest.raises(DataError, match=r"folders without images .*: b\. 1 file looks like .* b/x\.heic"):
            index_images(tmp_path, labelled=True)
        with pytest.raises(DataError, match=r"b: no images found.* 1 file looks like an image and is left out"):
            index_images(tmp_path / "b", labelled=False)


def add_odd_entries(folder):
    os.mkfifo(folder / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(folder / "socket.jpg"))
    (folder / "zero.jpg").symlink_to("/dev/zero")
    (folder / "self.jpg").symlink_to("self.jpg")
    (folder / "gone.jpg").symlink_to("nowhere.jpg")
    (folder / "self").symlink_to("self")
    (folder / "folder.jpg").mkdir()


REASONS = {
    "gone.jpg": "a link to nothing",
    "pipe.jpg": "a named pipe",
    "self.jpg": "a link that leads to itself",
    "socket.jpg": "a socket",
    "zero.jpg": "a device",
}


class TestNoFiles:
    def test_are_refused_at_the_start_each_with_what_it_is(self, tmp_path):
        add_odd_entries(fill(tmp_path))
        with pytest.raises(DataError) as caught:
            index_images(tmp_path, labelled=False)
        assert "5 of 11 files cannot be images" in str(caught.value)
        for name, reason in REASONS.items():
            assert f"{name} ({reason})" in str(caught.value)

    def test_are_skipped_on_request_or_left_out_by_a_list(self, tmp_path):
        add_odd_entries(fill(tmp_path / "images", 40))
        options = ImageOptions(unreadable="skip", max_unreadable=5)
        index = index_images(tmp_path / "images", labelled=False, options=options)
        look_into(index)
        odd = [i for i in range(len(index)) if index.sizes[i] == 0]
        assert [index.paths[i] for i in odd] == [*REASONS]
        for i in odd:
            array, _ = read_sample(index, SampleKey(0, i), policy="skip", seed=0, run_dir=tmp_path)
            assert array.shape == (16, 16, 3)
        (tmp_path / "bad.txt").write_text("".join(f"{name}\n" for name in REASONS))
        assert (
            len(index_images(tmp_path / "images", labelled=False, options=ImageOptions(exclude=f"{tmp_path}/bad.txt")))
            == 40
        )

    def test_a_very_deep_folder_is_no_crash(self, tmp_path):
        here = Path.cwd()
        try:
            os.chdir(tmp_path)
            for _ in range(90):
                Path("d" * 60).mkdir()
                os.chdir("d" * 60)
        finally:
            os.chdir(here)
        with pytest.raises(DataError, match=r"cannot be listed \(File name too long\)"):
            index_images(tmp_path, labelled=False)
        shutil.rmtree(tmp_path)


class TestIdentity:
    def identity(self, folder):
        index = index_images(folder, labelled=False)
        content = look_into(index)
        return index, content, identify(index, content)

    def test_a_copy_elsewhere_with_other_times_is_the_same(self, tmp_path):
        _, _, known = self.identity(fill(tmp_path / "here"))
        shutil.copytree(tmp_path / "here", tmp_path / "there")
        for path in (tmp_path / "there").iterdir():
            os.utime(path, (1, 1))
        index, content, _ = self.identity(tmp_path / "there")
        check_same(index, content, known)

    @pytest.mark.parametrize("side", [16, 200])  # read whole, and in parts
    def test_an_image_replaced_by_another_of_the_same_size_is_noticed(self, tmp_path, side):
        _, _, known = self.identity(fill(tmp_path, side=side))
        path = tmp_path / "3.bmp"
        times = path.stat().st_mtime_ns
        path.write_bytes(picture(99, side=side))
        os.utime(path, ns=(times, times))
        index, content, _ = self.identity(tmp_path)
        with pytest.raises(DataError, match=r"the content of at least one of 6 files .*: an image was replaced"):
            check_same(index, content, known)

    def test_a_storage_error_is_not_taken_for_a_replaced_image(self, tmp_path, monkeypatch):
        self.identity(fill(tmp_path))
        really_open, failures = os.open, [errno.EIO] * 2

        def flaky_open(path, *args, **kwargs):
            if failures and str(path).endswith("3.bmp"):
                raise OSError(failures.pop(), "storage hiccup")
            return really_open(path, *args, **kwargs)

        monkeypatch.setattr(files.os, "open", flaky_open)
        monkeypatch.setattr(files.time, "sleep", lambda _: None)
        _, _, first = self.identity(tmp_path)
        assert (failures, self.identity(tmp_path)[2]) == ([], first)
        failures += [errno.EIO] * 4
        with pytest.raises(DataError, match=r"3\.bmp: cannot be read after 4 tries \(storage hiccup\)"):
            self.identity(tmp_path)

    def test_a_run_folder_of_before_knows_names_and_sizes_only(self, tmp_path):
        index, content, known = self.identity(fill(tmp_path))
        check_same(index, content, {name: known[name] for name in ("num_images", "digest")})

    def test_turned_photos_are_counted_at_the_start(self, tmp_path):
        exif = Image.Exif()
        exif[0x0112] = 6
        fill(tmp_path)
        Image.new("RGB", (8, 9)).save(tmp_path / "phone.jpg", exif=exif)
        for choice, words in (("ignore", "are read as stored"), ("apply", "are turned upright")):
            index = index_images(tmp_path, labelled=False, options=ImageOptions(exif=choice))
            (remark,) = remarks(index, look_into(index))
            assert f"1 of 7 images looked into have an EXIF orientation and {words}" in remark
            assert remark.endswith("phone.jpg")


class TestLimits:
    @pytest.mark.parametrize(("limit", "accepted"), [(0.2, True), (0.1, False), (1, True), (0.0, False), (3, True)])
    def test_max_unreadable_is_a_share_or_a_count(self, tmp_path, limit, accepted):
        (fill(tmp_path, 6) / "3.bmp").write_bytes(b"no image")
        index = index_images(tmp_path, labelled=False, options=ImageOptions(max_unreadable=limit))
        if accepted:
            read_sample(index, SampleKey(0, 3), policy="skip", seed=0)
        else:
            with pytest.raises(DataError, match=f"1 of 6 files .* more than --data.max-unreadable {limit:g} "):
                read_sample(index, SampleKey(0, 3), policy="skip", seed=0)

    def test_bad_values_are_refused_with_their_range(self):
        assert problems_of(ImageOptions(max_unreadable=1.5))
        assert problems_of(ImageOptions(max_unreadable=-0.1))
        assert problems_of(ImageOptions(max_unreadable=float("nan")))
        assert problems_of(ImageOptions(max_pixels=0))
        assert not problems_of(ImageOptions(max_unreadable=0.5))

    def test_larger_pictures_are_accepted_on_request(self, tmp_path):
        fill(tmp_path, 1, side=100)
        for limit in (9_999, 10_000):
            index = index_images(tmp_path, labelled=False, options=ImageOptions(max_pixels=limit))
            if limit == 10_000:
                assert read_sample(index, SampleKey(0, 0), policy="stop", seed=0)[0].shape == (100, 100, 3)
            else:
                with pytest.raises(DataError, match=r"100x100 pixels, more than .* \(--data.max-pixels 10000\)"):
                    read_sample(index, SampleKey(0, 0), policy="stop", seed=0)


class TestExclude:
    @pytest.mark.parametrize("form", ["{0}/{1}", "images/a/{1}", "a/{1}", "./{1}", "{1}"])
    def test_paths_may_start_anywhere_above(self, tmp_path, form):
        folder = fill(tmp_path / "images/a")
        (tmp_path / "list").write_text(f"# bad ones\n\n{form.format(folder, '2.bmp')}\nother/9.bmp\n")
        index = index_images(folder, labelled=False, options=ImageOptions(exclude=str(tmp_path / "list")))
        assert index.paths[:] == ["0.bmp", "1.bmp", "3.bmp", "4.bmp", "5.bmp"]

    @pytest.mark.parametrize("name", ["nowhere.txt", "pipe", "/dev/zero", ".", "zero\0byte"])
    def test_a_list_that_cannot_be_read_is_named(self, tmp_path, name):
        fill(tmp_path)
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(DataError, match="the list of images cannot be read"):
            index_images(tmp_path, labelled=False, options=ImageOptions(exclude=str(tmp_path / name)))

    def test_a_list_that_names_all_is_named_as_the_cause(self, tmp_path):
        (fill(tmp_path, 1) / "list.txt").write_text("0.bmp\n")
        with pytest.raises(DataError, match=r"no images found \(1 are left out by .*list\.txt\)"):
            index_images(tmp_path, labelled=False, options=ImageOptions(exclude=str(tmp_path / "list.txt")))


def test_a_run_goes_on_with_the_lists_moved_and_another_limit_but_not_with_a_replaced_image(tmp_path):
    root = make_classes(tmp_path / "data", num_train=4, num_val=2)
    (tmp_path / "bad.txt").write_text("train/red/000.jpg\n")
    data = replace(tiny_config(root).data, exclude=str(tmp_path / "bad.txt"))
    config = replace(tiny_config(root, epochs=2), data=data)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(StopRequested):
        patch.setattr("classification.train.summary", lambda *_: (_ for _ in ()).throw(StopRequested("enough")))
        train(config, tmp_path / "run")
    moved = replace(data, exclude=str((tmp_path / "bad.txt").rename(tmp_path / "list.txt")), max_unreadable=3)
    path, aside = root / "train/blue/001.jpg", root / "train/blue/001.jpg.before"
    path.rename(aside)
    other = (root / "train/green/002.jpg").read_bytes()
    size = aside.stat().st_size
    path.write_bytes(other[:size].ljust(size, b"\0"))
    with pytest.raises(DataError, match="an image was replaced"):
        train(replace(config, data=moved), tmp_path / "run", resume=True)
    aside.rename(path)
    assert train(replace(config, data=moved), tmp_path / "run", resume=True)
