"""Small data sets in exactly the formats in which the real ones are shipped."""

import csv
import gzip
import io
import json
import pickle
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import scipy.io
from PIL import Image

CIFAR10_BATCHES = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
RNG = np.random.default_rng(0)


def jpeg(seed=0, side=24):
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


def write_tar(path, files, mode="w:gz"):
    """A tar with folders as members, as tar makes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:
        for folder in sorted({str(Path(name).parent) for name in files} - {"."}):
            info = tarfile.TarInfo(folder)
            info.type = tarfile.DIRTYPE
            archive.addfile(info)
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def write_zip(path, files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def write_folder(path, files):
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


class _Python2Pickler(pickle._Pickler):
    """What Python 2 wrote: its text is bytes."""

    dispatch = dict(pickle._Pickler.dispatch)  # noqa: RUF012

    def save_bytes(self, value):
        short = len(value) < 256
        self.write((b"U" + bytes([len(value)]) if short else b"T" + struct.pack("<i", len(value))) + value)
        self.memoize(value)

    dispatch[bytes] = save_bytes


def python2_pickle(value):
    file = io.BytesIO()
    _Python2Pickler(file, 2).dump(value)
    return file.getvalue().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


def cifar(labels_key, names_key, batches, *, num_classes=3, per_batch=4):
    """{file name: bytes} of a CIFAR tar, and the pixels of each batch."""
    folder = "cifar-10-batches-py" if labels_key == b"labels" else "cifar-100-python"
    names = [b"airplane", b"apple", b"automobile"][:num_classes]
    meta = {b"num_cases_per_batch": per_batch, names_key: names, b"num_vis": 3072}
    files = {f"{folder}/{'batches.meta' if labels_key == b'labels' else 'meta'}": python2_pickle(meta)}
    pixels = {}
    for batch in batches:
        data = RNG.integers(0, 256, (per_batch, 3072), dtype=np.uint8)
        pixels[batch] = data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        content = {
            b"batch_label": b"training batch 1 of 5",
            labels_key: [i % num_classes for i in range(per_batch)],
            b"data": data,
            b"filenames": [b"same_name.png"] * per_batch,
        }
        files[f"{folder}/{batch}"] = python2_pickle(content)
    files[f"{folder}/readme.html"] = b"<html>"
    return files, pixels


def stl10(num_train=4, num_val=2, num_unlabelled=5):
    """{file name: bytes} of stl10_binary, and the pixels of its three parts."""
    counts = {"train": num_train, "test": num_val, "unlabeled": num_unlabelled}
    pixels = {part: RNG.integers(0, 256, (count, 96, 96, 3), dtype=np.uint8) for part, count in counts.items()}
    files = {f"stl10_binary/{part}_X.bin": images.transpose(0, 3, 2, 1).tobytes() for part, images in pixels.items()}
    for part in ("train", "test"):
        files[f"stl10_binary/{part}_y.bin"] = bytes(1 + i % 2 for i in range(counts[part]))
    files["stl10_binary/class_names.txt"] = b"airplane\nbird\n"
    return files, pixels


def idx(images, labels, stem):
    """The two files of a part of MNIST."""
    head = struct.pack(">4I", 2051, *images.shape)
    return {
        f"{stem}-images-idx3-ubyte.gz": gzip.compress(head + images.tobytes()),
        f"{stem}-labels-idx1-ubyte.gz": gzip.compress(struct.pack(">2I", 2049, len(labels)) + bytes(labels)),
    }


def tiny_imagenet():
    top = "tiny-imagenet-200"
    files = {f"{top}/wnids.txt": b"n01443537\nn01629819\n"}
    for label in ("n01443537", "n01629819"):
        files[f"{top}/train/{label}/{label}_boxes.txt"] = b""
        files |= {f"{top}/train/{label}/images/{label}_{i}.JPEG": jpeg(i) for i in range(3)}
    files |= {f"{top}/val/images/val_{i}.JPEG": jpeg(10 + i) for i in range(2)}
    files[f"{top}/val/val_annotations.txt"] = b"val_0.JPEG\tn01629819\t0\t32\t4\t6\nval_1.JPEG\tn01443537\t1\t2\t3\t4\n"
    files[f"{top}/test/images/test_0.JPEG"] = jpeg(20)
    return files


def food101():
    names = {"apple_pie": ["100", "200", "300"], "waffles": ["1", "2", "3"]}
    files = {f"food-101/images/{label}/{name}.jpg": jpeg() for label, found in names.items() for name in found}
    for split, part in (("train", slice(0, 2)), ("test", slice(2, 3))):
        listed = {label: [f"{label}/{name}" for name in found[part]] for label, found in names.items()}
        files[f"food-101/meta/{split}.json"] = json.dumps(listed).encode()
    files["food-101/meta/classes.txt"] = b"apple_pie\nwaffles\n"
    return files


def pets():
    """(images.tar.gz, annotations.tar.gz) as files by name."""
    names = ["Abyssinian_1", "Abyssinian_2", "Great_Pyrenees_1", "Great_Pyrenees_2"]
    images = {f"images/{name}.jpg": jpeg(i) for i, name in enumerate([*names, "Abyssinian_34"])}
    images["images/Abyssinian_101.mat"] = b"MATLAB"
    lists = {"annotations/trainval.txt": names[::2], "annotations/test.txt": names[1::2]}
    annotations = {path: "".join(f"{name} 1 1 1\n" for name in found).encode() for path, found in lists.items()}
    annotations["annotations/list.txt"] = b"#Image CLASS-ID SPECIES BREED ID\n"
    return images, annotations


IMAGENET_CLASSES = ("n01440764", "n02869837", "n01749939")  # the last two are among the hundred
IMAGENET_VAL = ("n02869837", "n01440764", "n01749939", "n02869837")


def imagenet_train():
    return {f"{label}/{label}_{i}.JPEG": jpeg(i) for label in IMAGENET_CLASSES for i in (7, 10)}


def imagenet_val():
    return {f"ILSVRC2012_val_{i:08d}.JPEG": jpeg(100 + i) for i in range(1, 5)}


def kaggle_solution():
    file = io.StringIO()
    rows = csv.writer(file, lineterminator="\n")
    rows.writerow(["ImageId", "PredictionString"])
    for i, label in reversed(list(enumerate(IMAGENET_VAL, 1))):
        rows.writerow([f"ILSVRC2012_val_{i:08d}", f"{label} 85 1 499 272 {label} 1 2 3 4 "])
    return file.getvalue().encode()


def devkit():
    """The two files of the development kit that matter; a table also has the inner nodes of the tree."""
    kind = [("ILSVRC2012_ID", object), ("WNID", object), ("words", object), ("num_children", object)]
    rows = [(i, label, "words", 0) for i, label in enumerate(IMAGENET_CLASSES, 1)] + [(1001, "n00001740", "entity", 3)]
    table = io.BytesIO()
    scipy.io.savemat(table, {"synsets": np.array(rows, dtype=kind).reshape(-1, 1)})
    numbers = "".join(f"{IMAGENET_CLASSES.index(label) + 1}\n" for label in IMAGENET_VAL)
    top = "ILSVRC2012_devkit_t12/data"
    return {f"{top}/meta.mat": table.getvalue(), f"{top}/ILSVRC2012_validation_ground_truth.txt": numbers.encode()}
