"""Pictures in plain binary files: STL-10, and the idx files of MNIST and Fashion-MNIST."""

import gzip
import struct
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.prepare.archives import archive_errors, as_text, members, read_files
from benchmarks.prepare.cifar import png
from benchmarks.prepare.writer import Picture
from engine.errors import DataError

DIGITS = tuple(str(digit) for digit in range(10))
FASHION = (
    *("T-shirt_top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle_boot"),
)

_STL_SIDE = 96
_STL_BYTES = 3 * _STL_SIDE * _STL_SIDE
_STL_SPLITS = {"train_X.bin": "train", "test_X.bin": "val", "unlabeled_X.bin": "unlabelled"}
_IDX_BYTE = 0x08  # the type of the values


def stl10(sources: Sequence[Path]) -> Iterator[Picture]:
    """Pictures of stl10_binary.tar.gz: train, val and unlabelled, numbered as in its files."""
    small = read_files(sources, ["train_y.bin", "test_y.bin", "class_names.txt"])
    names = as_text(small["class_names.txt"], f"{sources[0]}: class_names.txt").split()
    done = set()
    for source in sources:
        for member in members(source):
            file_name = member.name.rpartition("/")[2]
            if file_name not in _STL_SPLITS:
                continue
            done.add(file_name)
            split = _STL_SPLITS[file_name]
            labels = None if split == "unlabelled" else small[file_name.replace("_X", "_y")]
            number = -1
            with member.open() as file:
                for number, pixels in enumerate(_stl_images(file, f"{source}: {file_name}")):
                    place = f"{number // 1000:03d}" if labels is None else _stl_class(labels, number, names, source)
                    yield Picture(f"{split}/{place}/{number:06d}.png", partial(png, pixels))
            if labels is not None and number + 1 != len(labels):
                raise DataError(f"{source}: {file_name} has {number + 1:,} images, its labels are {len(labels):,}")
    if missing := sorted(_STL_SPLITS.keys() - done):
        raise DataError(f"{', '.join(map(str, sources))}: there is no {' and no '.join(missing)}")


def _stl_images(file: object, where: str) -> Iterator[npt.NDArray[np.uint8]]:
    """Each colour of an image is stored column by column."""
    while block := file.read(_STL_BYTES):  # type: ignore[attr-defined]
        if len(block) != _STL_BYTES:
            raise DataError(f"{where}: ends inside an image, {len(block):,} of {_STL_BYTES:,} bytes")
        yield np.frombuffer(block, dtype=np.uint8).reshape(3, _STL_SIDE, _STL_SIDE).transpose(2, 1, 0)


def _stl_class(labels: bytes, number: int, names: list[str], source: Path) -> str:
    label = labels[number] if number < len(labels) else 0
    if not 1 <= label <= len(names):
        raise DataError(f"{source}: the label of image {number} is {label}, expected 1 to {len(names)}")
    return names[label - 1]


def mnist(sources: Sequence[Path]) -> Iterator[Picture]:
    """Pictures of MNIST's four idx files."""
    return _idx_pictures(sources, DIGITS)


def fashion_mnist(sources: Sequence[Path]) -> Iterator[Picture]:
    """Pictures of Fashion-MNIST's four idx files."""
    return _idx_pictures(sources, FASHION)


def _idx_pictures(sources: Sequence[Path], names: Sequence[str]) -> Iterator[Picture]:
    for split, stem in (("train", "train"), ("val", "t10k")):
        images = _read_idx(sources, f"{stem}-images-idx3-ubyte", 3)
        labels = _read_idx(sources, f"{stem}-labels-idx1-ubyte", 1)
        if len(images) != len(labels):
            raise DataError(f"{sources[0]}: {stem} has {len(images):,} images and {len(labels):,} labels")
        if len(labels) and labels.max() >= len(names):
            raise DataError(f"{sources[0]}: {stem} has the label {labels.max()}, expected 0 to {len(names) - 1}")
        for number, (pixels, label) in enumerate(zip(images, labels, strict=True)):
            yield Picture(f"{split}/{names[label]}/{number:05d}.png", partial(png, pixels))


def _read_idx(sources: Sequence[Path], name: str, num_dimensions: int) -> npt.NDArray[np.uint8]:
    """An idx file, packed or not, by either of the two spellings of its name."""
    spellings = [name, name.replace("-idx", ".idx")]
    wanted = [spelling + ending for spelling in spellings for ending in ("", ".gz")]
    found = {key: data for key, data in read_files(sources, wanted, optional=True).items() if data}
    if not found:
        raise DataError(f"{', '.join(map(str, sources))}: there is no {name}.gz")
    file_name, data = next(iter(found.items()))
    where = f"{sources[0]}: {file_name}"
    if data[:2] == b"\x1f\x8b":
        with archive_errors(sources[0]):
            data = gzip.decompress(data)
    head = struct.calcsize(f">{1 + num_dimensions}I")
    magic = bytes((0, 0, _IDX_BYTE, num_dimensions))
    if data[:4] != magic or len(data) < head:
        raise DataError(f"{where}: begins with {data[:4].hex()}, an idx file of this kind with {magic.hex()}")
    shape = struct.unpack(f">{num_dimensions}I", data[4:head])
    if int(np.prod(shape, dtype=object)) != len(data) - head:
        raise DataError(f"{where}: {len(data) - head:,} bytes of values, its head says {shape}")
    return np.frombuffer(data, dtype=np.uint8, offset=head).reshape(shape)
