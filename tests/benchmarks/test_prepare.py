"""`benchmarks prepare`: small archives in the shipped formats become image folders, or are refused with the reason."""

import gzip
import pickle
import re

import numpy as np
import pytest
from PIL import Image

from benchmarks.prepare import cifar, imagenet
from engine.errors import DataError
from tests.benchmarks import shipped


def files_of(folder):
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*.*")) if path.is_file()}


def pixels(path):
    return np.asarray(Image.open(path))


class TestCifar:
    COUNTS = {"train": 20, "val": 4}  # noqa: RUF012

    def archive(self, path):
        files, images = shipped.cifar(b"labels", b"label_names", shipped.CIFAR10_BATCHES)
        return shipped.write_tar(path / "cifar-10-python.tar.gz", files), images

    def test_10_keeps_every_pixel_in_the_order_of_the_batches(self, tmp_path, prepare):
        source, images = self.archive(tmp_path)
        code, said = prepare("cifar10", source, counts=self.COUNTS, classes=3)
        assert code == 0, said
        assert "CIFAR-10, 20 in train/, 4 in val/, as published" in said
        found = files_of(tmp_path / "out")
        assert len([path for path in found if path.endswith(".png")]) == 24
        np.testing.assert_array_equal(pixels(found["train/apple/00005.png"]), images["data_batch_2"][1])
        np.testing.assert_array_equal(pixels(found["val/automobile/00002.png"]), images["test_batch"][2])

    def test_100_has_its_fine_labels_and_may_be_unpacked(self, tmp_path, prepare):
        files, images = shipped.cifar(b"fine_labels", b"fine_label_names", ("train", "test"))
        source = shipped.write_folder(tmp_path / "unpacked", files)
        code, said = prepare("cifar100", source, counts={"train": 4, "val": 4}, classes=3)
        assert code == 0, said
        np.testing.assert_array_equal(pixels(tmp_path / "out/val/apple/00001.png"), images["test"][1])

    @pytest.mark.parametrize("payload", ["call", "object array", "large array", "noise"])
    def test_a_pickle_runs_nothing(self, tmp_path, payload):
        class Evil:
            def __reduce__(self):
                return (open, (str(tmp_path / "ran"), "w"))

        array = pickle.dumps(np.zeros(3, np.uint8), protocol=2)
        data = {
            "call": pickle.dumps({b"data": Evil()}, protocol=2),
            "object array": pickle.dumps(np.array([Evil()], dtype=object), protocol=2),
            "large array": array.replace(b"K\x03\x85", b"\x8a\x05\0\0\0\0\x7f\x85"),
            "noise": b"\x80\x02}q\x00(U",
        }[payload]
        with pytest.raises(DataError, match="batch: refused"):
            cifar.safe_load(data, "batch")
        assert not (tmp_path / "ran").exists()

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({b"data": np.zeros((4, 3071), np.uint8)}, r"pixels are uint8 of shape \(4, 3071\), expected"),
            ({b"data": np.zeros((4, 3072), np.float32)}, "pixels are float32"),
            ({b"labels": [0, 1, 9, 0]}, "label 9 is not one of 0 to 2"),
            ({b"labels": None}, "no list 'labels' in it, so it is not CIFAR's"),
        ],
    )
    def test_what_is_not_cifar_is_refused(self, tmp_path, prepare, change, message):
        files, _ = shipped.cifar(b"labels", b"label_names", shipped.CIFAR10_BATCHES)
        batch = cifar.safe_load(files["cifar-10-batches-py/data_batch_3"], "")
        files["cifar-10-batches-py/data_batch_3"] = shipped.python2_pickle(batch | change)
        source = shipped.write_tar(tmp_path / "cifar-10-python.tar.gz", files)
        code, said = prepare("cifar10", source, counts=self.COUNTS, classes=3)
        assert code == 3
        assert re.search(f"data_batch_3: .*{message}", said)

    def test_a_missing_batch_is_named(self, tmp_path, prepare):
        files, _ = shipped.cifar(b"labels", b"label_names", shipped.CIFAR10_BATCHES[:-1])
        source = shipped.write_tar(tmp_path / "cifar-10-python.tar.gz", files)
        code, said = prepare("cifar10", source, counts=self.COUNTS)
        assert (code, f"{source}: there is no test_batch" in said) == (3, True)


class TestBinary:
    def test_stl10_with_its_unlabelled_images(self, tmp_path, prepare):
        files, images = shipped.stl10()
        source = shipped.write_tar(tmp_path / "stl10_binary.tar.gz", files)
        code, said = prepare("stl10", source, counts={"train": 4, "val": 2, "unlabelled": 5})
        assert code == 0, said
        assert f"--data.root {tmp_path}/out/unlabelled" in said
        np.testing.assert_array_equal(pixels(tmp_path / "out/train/bird/000003.png"), images["train"][3])
        np.testing.assert_array_equal(pixels(tmp_path / "out/unlabelled/000/000004.png"), images["unlabeled"][4])

    def test_stl10_that_ends_early_or_has_other_labels(self, tmp_path, prepare):
        files, _ = shipped.stl10()
        for name, cut, message in (
            ("test_X", -1, "ends inside an image"),
            ("train_y", -1, "the label of image 3 is 0"),
        ):
            damaged = files | {f"stl10_binary/{name}.bin": files[f"stl10_binary/{name}.bin"][:cut]}
            source = shipped.write_tar(tmp_path / "stl10_binary.tar.gz", damaged)
            code, said = prepare("stl10", source, counts={"train": 4, "val": 2, "unlabelled": 5})
            assert code == 3
            assert message in said

    @pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
    @pytest.mark.parametrize("form", ["gz", "unpacked, other spelling"])
    def test_idx(self, tmp_path, prepare, name, form):
        images = shipped.RNG.integers(0, 256, (4, 28, 28), dtype=np.uint8)
        files = shipped.idx(images, [0, 9, 9, 0], "train") | shipped.idx(images[:2], [9, 0], "t10k")
        if form != "gz":
            files = {file.replace("-idx", ".idx")[:-3]: gzip.decompress(data) for file, data in files.items()}
        source = shipped.write_folder(tmp_path / "in", files)
        code, said = prepare(name, source, counts={"train": 4, "val": 2})
        assert code == 0, said
        last = {"mnist": "9", "fashion-mnist": "Ankle_boot"}[name]
        np.testing.assert_array_equal(pixels(tmp_path / f"out/train/{last}/00002.png"), images[2])

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (b"\0\0\x08\x01" + bytes(20), "begins with 00000801, an idx file of this kind with 00000803"),
            (
                b"\0\0\x08\x03" + bytes.fromhex("000000020000001c0000001c") + bytes(9),
                "9 bytes of values, its head",
            ),
            (b"\x1f\x8b\x08\0 no gzip", "the archive ends early or is damaged"),
        ],
    )
    def test_idx_that_is_none(self, tmp_path, prepare, data, message):
        source = shipped.write_folder(tmp_path / "in", {"train-images-idx3-ubyte": data})
        code, said = prepare("mnist", source, counts={"train": 4, "val": 2})
        assert code == 3
        assert message in said


class TestPhotos:
    def test_imagenette(self, tmp_path, prepare):
        labels = [f"{split}/{label}" for split in ("train", "val") for label in ("n01440764", "n03888257")]
        names = [f"{label}/{label[-9:]}_{i}.JPEG" for label in labels for i in (1, 2)]
        files = {f"imagenette2-160/{name}": shipped.jpeg() for name in names}
        files["imagenette2-160/noisy_imagenette.csv"] = b"path"
        source = shipped.write_tar(tmp_path / "imagenette2-160.tgz", files)
        code, said = prepare("imagenette-160", source, counts={"train": 4, "val": 4})
        assert code == 0, said
        assert {path for path in files_of(tmp_path / "out") if path.endswith(".JPEG")} == set(names)

    def test_tiny_imagenet_with_its_flat_val(self, tmp_path, prepare):
        source = shipped.write_zip(tmp_path / "tiny-imagenet-200.zip", shipped.tiny_imagenet())
        code, said = prepare("tiny-imagenet", source, counts={"train": 6, "val": 2})
        assert code == 0, said
        assert (tmp_path / "out/val/n01629819/val_0.JPEG").read_bytes() == shipped.jpeg(10)
        assert (tmp_path / "out/train/n01443537/n01443537_2.JPEG").is_file()

    def test_food101_by_its_lists(self, tmp_path, prepare):
        source = shipped.write_tar(tmp_path / "food-101.tar.gz", shipped.food101())
        code, said = prepare("food101", source, counts={"train": 4, "val": 2})
        assert code == 0, said
        assert (tmp_path / "out/val/apple_pie/300.jpg").is_file()

    def test_pets_from_two_archives(self, tmp_path, prepare):
        images, annotations = shipped.pets()
        for name, files in (("images.tar.gz", images), ("annotations.tar.gz", annotations)):
            shipped.write_tar(tmp_path / "in" / name, files)
        code, said = prepare("pets", tmp_path / "in", counts={"train": 2, "val": 2})
        assert code == 0, said
        assert (tmp_path / "out/val/Great_Pyrenees/Great_Pyrenees_2.jpg").read_bytes() == shipped.jpeg(3)


class TestImageNet:
    COUNTS = {"train": 6, "val": 4}  # noqa: RUF012

    def official(self, folder):
        by_class = {}
        for name, data in shipped.imagenet_train().items():
            by_class.setdefault(name.split("/")[0], {})[name.split("/")[1]] = data
        tars = {}
        for label, files in by_class.items():
            tars[f"{label}.tar"] = shipped.write_tar(folder / "x.tar", files, "w").read_bytes()
        (folder / "x.tar").unlink()
        shipped.write_tar(folder / "ILSVRC2012_img_train.tar", tars, "w")
        shipped.write_tar(folder / "ILSVRC2012_img_val.tar", shipped.imagenet_val(), "w")
        shipped.write_tar(folder / "ILSVRC2012_devkit_t12.tar.gz", shipped.devkit())

    def kaggle(self):
        top = "ILSVRC/Data/CLS-LOC"
        files = {f"{top}/train/{name}": data for name, data in shipped.imagenet_train().items()}
        files |= {f"{top}/val/{name}": data for name, data in shipped.imagenet_val().items()}
        return files | {
            f"{top}/test/ILSVRC2012_test_00000001.JPEG": b"",
            "LOC_val_solution.csv": shipped.kaggle_solution(),
        }

    @pytest.mark.parametrize("form", ["official", "kaggle zip", "kaggle folder", "devkit beside folders"])
    def test_every_form_gives_the_same_folders(self, tmp_path, prepare, form):
        source = tmp_path / "in"
        source.mkdir()
        if form == "official":
            self.official(source)
        elif form == "kaggle zip":
            source = shipped.write_zip(source / "imagenet-object-localization-challenge.zip", self.kaggle())
        elif form == "kaggle folder":
            shipped.write_folder(source, self.kaggle())
        else:
            files = {f"train/{name}": data for name, data in shipped.imagenet_train().items()}
            shipped.write_folder(source, files | {f"val/{name}": data for name, data in shipped.imagenet_val().items()})
            shipped.write_tar(source / "ILSVRC2012_devkit_t12.tar.gz", shipped.devkit())
        code, said = prepare("imagenet", source, counts=self.COUNTS, classes=3)
        assert code == 0, said
        found = {path: file.read_bytes() for path, file in files_of(tmp_path / "out").items() if path.endswith(".JPEG")}
        expected = {f"train/{name}": data for name, data in shipped.imagenet_train().items()}
        for label, (name, data) in zip(shipped.IMAGENET_VAL, shipped.imagenet_val().items(), strict=True):
            expected[f"val/{label}/{name}"] = data
        assert found == expected

    def test_a_hundred_classes_from_a_prepared_one_are_links_not_copies(self, tmp_path, prepare):
        prepare("imagenet", shipped.write_folder(tmp_path / "in", self.kaggle()), counts=self.COUNTS, classes=3)
        where = tmp_path / "hundred"
        code, said = prepare("imagenet100", tmp_path / "out", counts={"train": 4, "val": 3}, directory=where)
        assert code == 0, said
        assert {path.name for path in (where / "val").iterdir()} == {"n02869837", "n01749939"}
        name = "train/n02869837/n02869837_7.JPEG"
        assert (where / name).samefile(tmp_path / "in/ILSVRC/Data/CLS-LOC" / name)

    def test_the_list_of_a_hundred_is_the_published_one(self, monkeypatch):
        assert len(set(imagenet.imagenet100_classes())) == 100
        monkeypatch.setattr(imagenet, "IMAGENET100_SHA256", "0" * 64)
        with pytest.raises(DataError, match="not the published list any more"):
            imagenet.imagenet100_classes()

    def test_flat_validation_images_without_a_solution_say_what_to_put_there(self, tmp_path, prepare):
        source = shipped.write_folder(tmp_path / "in", {f"val/{n}": d for n, d in shipped.imagenet_val().items()})
        code, said = prepare("imagenet", source, counts=self.COUNTS)
        assert code == 3
        assert "nothing says which class each has. Put Kaggle's LOC_val_solution.csv or the development kit" in said
