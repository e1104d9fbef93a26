"""The data sets that `prepare` knows: their archives with published hashes, how many images there are, where from."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.prepare import binary, cifar, imagenet, photos
from benchmarks.prepare.writer import Picture


@dataclass(frozen=True)
class DataSet:
    """One data set.

    Args:
        title: its name for people.
        page: where it is described, and can be had.
        files: names of its archives -> published md5, None where none is.
        counts: images of each split.
        num_classes: class folders in train and val.
        pictures: from archives and folders to what is written.
        urls: name of an archive -> where it can be downloaded without an account.
        also_folder: whether files beside the archives belong to it, so that a folder is looked through as well.
    """

    title: str
    page: str
    files: Mapping[str, str | None]
    counts: Mapping[str, int]
    num_classes: int
    pictures: Callable[[Sequence[Path]], Iterator[Picture]]
    urls: Mapping[str, str] = field(default_factory=dict)
    also_folder: bool = False


def _at(folder: str, *names: str) -> dict[str, str]:
    return {name: f"{folder}/{name}" for name in names}


def _fastai(name: str, title: str, md5: str, counts: Mapping[str, int]) -> DataSet:
    return DataSet(
        title,
        "https://github.com/fastai/imagenette",
        {f"{name}.tgz": md5},
        counts,
        10,
        photos.imagenette,
        _at("https://s3.amazonaws.com/fast-ai-imageclas", f"{name}.tgz"),
    )


_IDX = tuple(f"{part}-{kind}-ubyte.gz" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1"))
_NETTE = {"train": 9469, "val": 3925}
_WOOF = {"train": 9025, "val": 3929}
_ILSVRC = {
    "ILSVRC2012_devkit_t12.tar.gz": "fa75699e90414af021442c21a62c3abf",
    "ILSVRC2012_img_val.tar": "29b22e2961454d5413ddabcf34fc5622",
    "ILSVRC2012_img_train.tar": "1d675b47d978889d74fa0da5fadfb00e",
    "imagenet-object-localization-challenge.zip": None,
}
_ILSVRC_PAGE = "https://image-net.org/download.php, or https://www.kaggle.com/c/imagenet-object-localization-challenge"

DATA_SETS = {
    "cifar10": DataSet(
        "CIFAR-10",
        "https://www.cs.toronto.edu/~kriz/cifar.html",
        {"cifar-10-python.tar.gz": "c58f30108f718f92721af3b95e74349a"},
        {"train": 50_000, "val": 10_000},
        10,
        cifar.cifar10,
        _at("https://www.cs.toronto.edu/~kriz", "cifar-10-python.tar.gz"),
    ),
    "cifar100": DataSet(
        "CIFAR-100",
        "https://www.cs.toronto.edu/~kriz/cifar.html",
        {"cifar-100-python.tar.gz": "eb9058c3a382ffc7106e4002c42a8d85"},
        {"train": 50_000, "val": 10_000},
        100,
        cifar.cifar100,
        _at("https://www.cs.toronto.edu/~kriz", "cifar-100-python.tar.gz"),
    ),
    "stl10": DataSet(
        "STL-10 with its unlabelled images",
        "https://cs.stanford.edu/~acoates/stl10/",
        {"stl10_binary.tar.gz": "91f7769df0f17e558f3565bffb0c7dfb"},
        {"train": 5000, "val": 8000, "unlabelled": 100_000},
        10,
        binary.stl10,
        _at("http://ai.stanford.edu/~acoates/stl10", "stl10_binary.tar.gz"),
    ),
    "imagenette": _fastai("imagenette2", "Imagenette", "fe2fc210e6bb7c5664d602c3cd71e612", _NETTE),
    "imagenette-320": _fastai("imagenette2-320", "Imagenette, 320 px", "3df6f0d01a2c9592104656642f5e78a3", _NETTE),
    "imagenette-160": _fastai("imagenette2-160", "Imagenette, 160 px", "e793b78cc4c9e9a4ccc0c1155377a412", _NETTE),
    "imagewoof": _fastai("imagewoof2", "Imagewoof", "5eaf5bbf4bf16a77c616dc6e8dd5f8e9", _WOOF),
    "imagewoof-320": _fastai("imagewoof2-320", "Imagewoof, 320 px", "af65be7963816efa949fa3c3b4947740", _WOOF),
    "imagewoof-160": _fastai("imagewoof2-160", "Imagewoof, 160 px", "fcd23cc7dfce8837c95a8f9d63a128b7", _WOOF),
    "tiny-imagenet": DataSet(
        "Tiny-ImageNet",
        "http://cs231n.stanford.edu/tiny-imagenet-200.zip",
        {"tiny-imagenet-200.zip": "90528d7ca1a48142e341f4ef8d21d0de"},
        {"train": 100_000, "val": 10_000},
        200,
        photos.tiny_imagenet,
        _at("http://cs231n.stanford.edu", "tiny-imagenet-200.zip"),
    ),
    "imagenet": DataSet(
        "ImageNet-1K (ILSVRC 2012)",
        _ILSVRC_PAGE,
        _ILSVRC,
        {"train": 1_281_167, "val": 50_000},
        1000,
        imagenet.imagenet,
        also_folder=True,
    ),
    "imagenet100": DataSet(
        "ImageNet-100, the classes of Contrastive Multiview Coding",
        f"{_ILSVRC_PAGE}; a prepared ImageNet will do",
        _ILSVRC,
        {"train": 126_689, "val": 5000},
        100,
        imagenet.imagenet100,
        also_folder=True,
    ),
    "food101": DataSet(
        "Food-101",
        "https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/",
        {"food-101.tar.gz": "85eeb15f3717b99a5da872d97d918f87"},
        {"train": 75_750, "val": 25_250},
        101,
        photos.food101,
        _at("http://data.vision.ee.ethz.ch/cvl", "food-101.tar.gz"),
    ),
    "pets": DataSet(
        "Oxford-IIIT pets",
        "https://www.robots.ox.ac.uk/~vgg/data/pets/",
        {
            "annotations.tar.gz": "95a8c909bbe2e81eed6a22bccdf3f68f",
            "images.tar.gz": "5c4f3ee8e5d25df40f4fd59a7f44e54c",
        },
        {"train": 3680, "val": 3669},
        37,
        photos.pets,
        _at("https://www.robots.ox.ac.uk/~vgg/data/pets/data", "annotations.tar.gz", "images.tar.gz"),
    ),
    "mnist": DataSet(
        "MNIST",
        "http://yann.lecun.com/exdb/mnist/",
        dict(
            zip(
                _IDX,
                (
                    "f68b3c2dcbeaaa9fbdd348bbdeb94873",
                    "d53e105ee54ea40749a09fcbcd1e9432",
                    "9fb629c4189551a2d022fa330f9573f3",
                    "ec29112dd5afa0611ce80d1b7f02629c",
                ),
                strict=True,
            )
        ),
        {"train": 60_000, "val": 10_000},
        10,
        binary.mnist,
        _at("https://ossci-datasets.s3.amazonaws.com/mnist", *_IDX),
    ),
    "fashion-mnist": DataSet(
        "Fashion-MNIST",
        "https://github.com/zalandoresearch/fashion-mnist",
        dict(
            zip(
                _IDX,
                (
                    "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
                    "25c81989df183df01b3e8a0aad5dffbe",
                    "bef4ecab320f06d8554ea6380940ec79",
                    "bb300cfdad3c16e7a12a480ee83cd310",
                ),
                strict=True,
            )
        ),
        {"train": 60_000, "val": 10_000},
        10,
        binary.fashion_mnist,
        _at("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com", *_IDX),
    ),
}
"""What `prepare NAME` takes."""
