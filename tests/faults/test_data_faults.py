"""Damaged and missing images (F09-F11, F14, F17-F19). Pictures of odd kinds stand in test_picture_faults.py."""

import errno
import io
import json
import multiprocessing
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from engine import verify
from engine.data import files, images
from engine.data.content import check_unchanged
from engine.data.images import (
    check_same_classes,
    count_unreadable,
    index_images,
    read_image,
    read_sample,
    require_batch,
    unreadable_paths,
)
from engine.data.loader import LoaderOptions, make_batches
from engine.data.order import SampleKey, SamplePlan
from engine.errors import DataError
from pretrain import recipes
from pretrain.data import PretrainDataset
from pretrain.train import compute_losses, train
from pretrain.visualize import NUM_IMAGES
from tests.helpers import assert_same_bytes


def jpeg_bytes(seed=0, size=(40, 48), **options):
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=90, **options)
    return file.getvalue()


def make_folder(root, num_images=12):
    root.mkdir(parents=True, exist_ok=True)
    for i in range(num_images):
        (root / f"{i:04d}.jpg").write_bytes(jpeg_bytes(i))
    return root


def make_large_folder(root, num_images, bad=()):
    """Many names of a few files; those numbered in `bad` are half a JPEG."""
    store = make_folder(root.with_name(f"{root.name}-store"), 8)
    (store / "half.jpg").write_bytes(jpeg_bytes()[:400])
    root.mkdir()
    for i in range(num_images):
        source = "half.jpg" if i in bad else f"{i % 8:04d}.jpg"
        os.link(store / source, root / f"{i:05d}.jpg")
    return root


class TestF09MissingData:
    def test_missing_folder_is_named_with_the_accepted_suffixes(self, tmp_path):
        with pytest.raises(DataError, match=r"nowhere: no such folder; .*\.jpg \.jpeg .*\.png \.webp") as caught:
            index_images(tmp_path / "nowhere", labelled=False)
        assert caught.value.exit_code == 3

    def test_empty_folder_is_named_with_the_accepted_suffixes(self, tmp_path):
        (tmp_path / "deep").mkdir()
        (tmp_path / "deep/readme.txt").write_text("no images yet")
        for labelled in (False, True):
            with pytest.raises(DataError, match=r"no images found; .*\.jpg \.jpeg .*\.png \.webp"):
                index_images(tmp_path, labelled=labelled)

    def test_file_in_place_of_the_folder_is_named(self, tmp_path):
        (tmp_path / "x.jpg").write_bytes(jpeg_bytes())
        with pytest.raises(DataError, match=r"x\.jpg: not a folder"):
            index_images(tmp_path / "x.jpg", labelled=False)

    def test_a_path_with_a_zero_byte_is_no_crash(self, tmp_path):
        with pytest.raises(DataError, match=r"cannot be listed \(embedded null byte\)"):
            index_images(f"{tmp_path}/a\0b", labelled=False)

    def test_flat_folder_without_classes_is_valid_for_pretraining(self, tmp_path):
        index = index_images(make_folder(tmp_path, 3), labelled=False)
        assert PretrainDataset(index=index)[SampleKey(0, 1)]["image"].shape == (3, 224, 224)


def test_f10_fewer_images_than_a_batch_states_the_largest_that_works(tmp_path):
    index = index_images(make_folder(tmp_path, 5), labelled=False)
    with pytest.raises(DataError, match=r"has 5 images, fewer than one batch of 8: use --batch-size 5 or less"):
        require_batch(index, 8)


def test_f11_different_classes_list_the_first_five(tmp_path):
    for i in range(9):
        make_folder(tmp_path / "train" / f"class{i}", 1)
    for i in range(2):
        make_folder(tmp_path / "val" / f"class{i}", 1)
    train, val = (index_images(tmp_path / name, labelled=True) for name in ("train", "val"))
    with pytest.raises(
        DataError, match=r"differ in 7 classes: class2 \(only in .*train\).*class6.* and 2 more"
    ) as caught:
        check_same_classes(train, val)
    assert "class7" not in str(caught.value)


def tiny_config(root, **changes):
    """A pre-training run of 2 epochs of 3 steps on 48 images."""
    demo = recipes.demo("resnet10t")
    data = replace(demo.data, root=str(root), num_workers=0, unreadable=changes.pop("unreadable", "stop"))
    options = {"epochs": 2, "batch_size": 16, "image_size": 32, "log_every": 1, "checkpoint_every": 100}
    schedule = replace(demo.schedule, warmup_epochs=0)
    return replace(demo, data=data, mask=replace(demo.mask, cell_size=16), schedule=schedule, **(options | changes))


def first_used_in_step(config, index, step):
    """The path of an image that no earlier step and no panel reads."""
    plan = SamplePlan(len(index), config.batch_size, config.seed)
    panel = set(np.linspace(0, len(index) - 1, NUM_IMAGES).round().astype(int).tolist())
    return next(index.path(key.index) for key in plan.batch(step) if key.index not in panel)


class TestTrainingStopsWithItsStateSaved:
    """F14 and F17 in a whole run, on the first epoch's last step."""

    @pytest.fixture
    def folder(self, tmp_path):
        return make_folder(tmp_path / "images", 48)

    def test_f14_bad_image_ends_the_run_with_the_steps_before_it_saved(self, folder, tmp_path):
        config = tiny_config(folder)
        path = Path(first_used_in_step(config, index_images(folder, labelled=False), 2))
        path.write_bytes(path.read_bytes()[:300])
        with pytest.raises(DataError, match=path.name) as caught:
            train(config, tmp_path / "run")
        assert caught.value.exit_code == 3
        assert (tmp_path / "run/checkpoints/LATEST").read_text().strip() == "00000002"
        error = json.loads((tmp_path / "run/error.json").read_text())
        assert error["exit_code"] == 3
        assert error["message"].startswith(f"{path}: ")

    def test_f17_run_goes_on_to_the_same_bytes_after_the_file_returns(self, folder, tmp_path, monkeypatch):
        config = tiny_config(folder)
        train(config, tmp_path / "undisturbed")
        path = Path(first_used_in_step(config, index_images(folder, labelled=False), 2))
        content, calls = path.read_bytes(), []

        def delete_in_second_step(model, batch):
            calls.append(1)
            if len(calls) == 2:
                path.unlink()
            return compute_losses(model, batch)

        with monkeypatch.context() as patch:
            patch.setattr("pretrain.train.compute_losses", delete_in_second_step)
            with pytest.raises(DataError, match=f"{path.name}: no such file, though it was listed at the start"):
                train(config, tmp_path / "run")
        assert (tmp_path / "run/checkpoints/LATEST").read_text().strip() == "00000002"
        with pytest.raises(DataError, match="the data set has 47 files, the run started with 48"):
            train(config, tmp_path / "run", resume=True)
        path.write_bytes(content)
        train(config, tmp_path / "run", resume=True)
        assert_same_bytes(tmp_path / "run", tmp_path / "undisturbed")

    def test_f14_skipped_images_are_counted_in_the_result(self, tmp_path):
        root = make_large_folder(tmp_path / "images", 1000, bad={77})
        config = tiny_config(root, unreadable="skip", epochs=1, batch_size=250, checkpoint_every=3)
        train(config, tmp_path / "run")
        finished = json.loads((tmp_path / "run/finished.json").read_text())
        assert finished["unreadable"] == 1
        assert (tmp_path / "run/unreadable.txt").read_text() == f"{root}/00077.jpg\n"


BAD_FILES = {
    "empty.jpg": b"",
    "half.jpg": jpeg_bytes()[: len(jpeg_bytes()) // 2],
    "last10.jpg": jpeg_bytes()[:-10],
    "page.jpg": b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
}


class TestF14BadFiles:
    def test_verify_lists_every_bad_file_with_its_reason_and_exits_3(self, tmp_path, capsys):
        make_folder(tmp_path / "images", 3)
        for name, data in BAD_FILES.items():
            (tmp_path / "images" / name).write_bytes(data)
        with pytest.raises(SystemExit) as left:
            verify.main([str(tmp_path / "images"), "--num-workers", "2"])
        assert left.value.code == 3
        done = capsys.readouterr()
        lines = dict(line.split(": ", 1) for line in done.out.splitlines())
        assert lines.keys() == BAD_FILES.keys()
        assert "0 bytes" in lines["empty.jpg"]
        assert "truncated" in lines["half.jpg"]
        assert "truncated" in lines["last10.jpg"]
        assert "HTML" in lines["page.jpg"]
        assert done.err.startswith("error: ")
        assert "4 bad images" in done.err

    def test_zero_bytes_are_found_by_the_index(self, tmp_path):
        make_folder(tmp_path, 3)
        (tmp_path / "x.jpg").write_bytes(b"")
        with pytest.raises(DataError, match=r"1 of 4 files cannot be images: x\.jpg \(0 bytes\)"):
            index_images(tmp_path, labelled=False)

    def test_link_to_nowhere_is_found_by_the_index(self, tmp_path):
        make_folder(tmp_path, 3)
        (tmp_path / "x.jpg").symlink_to(tmp_path / "gone.jpg")
        with pytest.raises(DataError, match=r"1 of 4 files cannot be images: x\.jpg \(a link to nothing\)"):
            index_images(tmp_path, labelled=False)

    @pytest.mark.parametrize("name", ["half.jpg", "last10.jpg", "page.jpg"])
    @pytest.mark.parametrize("num_workers", [0, 1])
    def test_training_stops_at_the_first_touch_naming_the_file(self, tmp_path, name, num_workers):
        make_folder(tmp_path, 3)
        (tmp_path / name).write_bytes(BAD_FILES[name])
        images = PretrainDataset(index=index_images(tmp_path, labelled=False), image_size=32)
        batches = make_batches(images, SamplePlan(4, 4, seed=0).batch, range(2), LoaderOptions(num_workers=num_workers))
        with pytest.raises(DataError) as caught:
            next(batches)
        assert str(caught.value).startswith(f"{tmp_path}/{name}: ")
        assert "--data.unreadable skip" in str(caught.value)
        assert "\n" not in str(caught.value)


class TestF14Skip:
    def read_all(self, index, run_dir, epochs=(0,)):
        keys = [SampleKey(epoch, i) for epoch in epochs for i in range(len(index))]
        return [read_sample(index, key, policy="skip", seed=5, run_dir=run_dir)[1] for key in keys]

    def test_substitute_depends_on_seed_epoch_and_index_alone(self, tmp_path):
        index = index_images(make_large_folder(tmp_path / "images", 1000, bad={77}), labelled=False)

        def substitute(**change):
            key = SampleKey(change.get("epoch", 0), 77, change.get("repeat", 0))
            return read_sample(index, key, policy="skip", seed=change.get("seed", 5))[1]

        first = substitute()
        assert first != 77
        assert substitute() == substitute(repeat=1) == first
        assert len({first, substitute(epoch=1), substitute(epoch=2), substitute(seed=6)}) > 1

    def test_batches_are_the_same_before_and_after_a_resume_and_for_any_number_of_workers(self, tmp_path):
        index = index_images(make_large_folder(tmp_path / "images", 1000, bad={3}), labelled=False, unreadable="skip")
        images = PretrainDataset(index=index, image_size=32, unreadable="skip", run_dir=tmp_path)
        plan = SamplePlan(1000, 100, seed=1)
        first = next(step for step in range(10) if 3 in {key.index for key in plan.batch(step)})
        whole, resumed = (
            list(make_batches(images, plan.batch, range(start, first + 1), LoaderOptions(num_workers=workers)))
            for start, workers in ((first, 0), (first, 2))
        )
        assert torch.equal(whole[-1][0]["image"], resumed[-1][0]["image"])
        assert torch.equal(whole[-1][0]["mask"], resumed[-1][0]["mask"])

    def test_each_bad_file_is_listed_and_counted_once(self, tmp_path):
        index = index_images(make_large_folder(tmp_path / "images", 2000, bad={3, 1999}), labelled=False)
        positions = self.read_all(index, tmp_path, epochs=(0, 1))
        assert 3 not in positions
        assert 1999 not in positions
        assert (tmp_path / "unreadable.txt").read_text().splitlines() == [index.path(3), index.path(1999)]
        assert count_unreadable(tmp_path) == 2

    def test_lines_of_many_processes_do_not_mix_and_count_once(self, tmp_path):
        index = index_images(make_large_folder(tmp_path / "images", 3000, bad={0, 1, 2}), labelled=False)
        context = multiprocessing.get_context("fork")
        processes = [context.Process(target=self.read_all, args=(index, tmp_path)) for _ in range(4)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(60)
            assert process.exitcode == 0
        assert unreadable_paths(tmp_path) == {index.path(i) for i in range(3)}
        assert count_unreadable(tmp_path) == 3

    def test_more_than_a_thousandth_stops_the_run_and_stops_it_again_after_a_resume(self, tmp_path, monkeypatch):
        index = index_images(make_large_folder(tmp_path / "images", 1999, bad={10, 20}), labelled=False)
        for _ in range(2):
            with pytest.raises(
                DataError, match=r"2 of 1,999 files are unreadable.*0\.001 accepts.*unreadable\.txt"
            ) as caught:
                self.read_all(index, tmp_path)
            assert caught.value.exit_code == 3
        monkeypatch.setattr(images, "_skipped", {})  # what another process knows
        with pytest.raises(DataError, match="2 of 1,999 files are unreadable"):
            read_sample(index, SampleKey(0, 10), policy="skip", seed=5, run_dir=tmp_path)

    def test_empty_files_are_skipped_like_other_bad_ones(self, tmp_path):
        root = make_large_folder(tmp_path / "images", 1000)
        (root / "00500.jpg").unlink()
        (root / "00500.jpg").write_bytes(b"")
        index = index_images(root, labelled=False, unreadable="skip")
        assert len(index) == 1000
        assert read_sample(index, SampleKey(0, 500), policy="skip", seed=0, run_dir=tmp_path)[1] != 500
        assert unreadable_paths(tmp_path) == {f"{root}/00500.jpg"}

    def test_missing_file_stops_the_run_even_then(self, tmp_path):
        index = index_images(make_large_folder(tmp_path / "images", 1000), labelled=False)
        (tmp_path / "images/00003.jpg").unlink()
        with pytest.raises(DataError, match=r"00003\.jpg: no such file, though it was listed at the start"):
            read_sample(index, SampleKey(0, 3), policy="skip", seed=0, run_dir=tmp_path)
        assert count_unreadable(tmp_path) == 0


def test_f17_file_deleted_after_indexing_is_named(tmp_path):
    index = index_images(make_folder(tmp_path, 3), labelled=False)
    content = (tmp_path / "0001.jpg").read_bytes()
    (tmp_path / "0001.jpg").unlink()
    with pytest.raises(DataError, match=r"0001\.jpg: no such file, though it was listed at the start") as caught:
        read_sample(index, SampleKey(0, 1), policy="stop", seed=0)
    assert caught.value.exit_code == 3
    (tmp_path / "0001.jpg").write_bytes(content)
    assert read_sample(index, SampleKey(0, 1), policy="stop", seed=0)[1] == 1


class TestF18TransientErrors:
    @pytest.fixture
    def flaky(self, monkeypatch):
        """Let the next reads of a file fail as a network file system does; returns (failures to come, waits seen)."""
        failures, waits = [], []

        really_open = os.open

        def flaky_open(path, *args, **kwargs):
            if failures and str(path).endswith(".jpg"):
                raise OSError(failures.pop(0), "storage hiccup")
            return really_open(path, *args, **kwargs)

        monkeypatch.setattr(files.os, "open", flaky_open)
        monkeypatch.setattr(files.time, "sleep", waits.append)
        return failures, waits

    @pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE])
    def test_two_failures_then_fine(self, tmp_path, flaky, caplog, number):
        failures, waits = flaky
        failures += [number] * 2
        make_folder(tmp_path, 1)
        assert read_image(tmp_path / "0000.jpg").shape == (40, 48, 3)
        assert len(waits) == 2
        assert all(0.1 <= wait <= 1 for wait in waits)
        assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
        assert "0000.jpg: storage hiccup; reading again" in caplog.text

    def test_fourth_failure_is_a_data_error_with_the_path(self, tmp_path, flaky):
        failures, waits = flaky
        make_folder(tmp_path, 1)
        failures += [errno.ESTALE] * 3
        read_image(tmp_path / "0000.jpg")
        failures += [errno.ESTALE] * 4
        with pytest.raises(DataError, match=r"0000\.jpg: cannot be read after 4 tries") as caught:
            read_image(tmp_path / "0000.jpg")
        assert caught.value.exit_code == 3
        assert not failures
        assert max(waits) <= 1

    def test_lasting_errors_are_not_tried_again(self, tmp_path, flaky):
        failures, waits = flaky
        make_folder(tmp_path, 1)
        failures += [errno.EACCES]
        with pytest.raises(DataError, match=r"0000\.jpg: cannot be read \(storage hiccup\)"):
            read_image(tmp_path / "0000.jpg")
        assert waits == []

    def test_storage_failure_is_not_skipped_as_a_bad_image(self, tmp_path, flaky):
        failures, _ = flaky
        index = index_images(make_folder(tmp_path, 1), labelled=False)
        failures += [errno.EIO] * 4
        with pytest.raises(DataError, match="after 4 tries"):
            read_sample(index, SampleKey(0, 0), policy="skip", seed=0, run_dir=tmp_path)
        assert count_unreadable(tmp_path) == 0


def test_f19_added_file_is_refused_at_resume(tmp_path):
    start = index_images(make_folder(tmp_path, 10), labelled=False)
    (tmp_path / "new.jpg").write_bytes(jpeg_bytes())
    now = index_images(tmp_path, labelled=False)
    with pytest.raises(DataError, match=r"the data set has 11 files, the run started with 10 \(hash [0-9a-f]{12}"):
        check_unchanged(now, len(start), start.digest)
