"""The pictures of the studies as image folders: train/<class>/ and val/<class>/, the same files on every machine."""

import hashlib
import io
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from PIL import Image

from benchmarks.prepare.writer import Picture, only_writer, write_pictures
from benchmarks.scenes.demo_data import write_demo_data
from engine.errors import ConfigError, DataError

DIGITS_SIZE, CLIPART_SIZE = 32, 64
CLIPART = Path("/usr/share/openclipart/png")
CLIPART_CLASSES = (
    *("animals", "computer", "food", "geography", "office", "people", "plants", "recreation", "shapes"),
    *("signs_and_symbols", "special", "tools", "transportation"),
)
"""Folders of Debian's openclipart-png 0.18 with 90 pictures or more, without `unsorted`."""
MOST_PIXELS = 50_000_000
"""Clip art of more pixels is left out (one of 231 million)."""
VALIDATION = 6
"""One picture of this many is for validation."""


def write_digits(directory: Path) -> None:
    """scikit-learn's 1,797 handwritten digits of 8 x 8 pixels (Alpaydin and Kaynak, UCI) as PNG files of 32 x 32.

    Raises:
        ConfigError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ConfigError("the digits come with scikit-learn: pip install scikit-learn") from error
    digits = load_digits()

    def pictures() -> Iterator[Picture]:
        for i, (values, label) in enumerate(zip(digits.images, digits.target, strict=True)):
            split = "val" if i % VALIDATION == 0 else "train"
            yield Picture(path=f"{split}/{label}/{i:04d}.png", content=partial(_digit, values))

    _write(directory, list(pictures()))


def _digit(values: object) -> bytes:
    import numpy as np

    grey = Image.fromarray((np.asarray(values) * 255 / 16).round().astype("uint8"))  # values are 0 to 16
    return _encoded(grey.resize((DIGITS_SIZE, DIGITS_SIZE), Image.Resampling.BICUBIC), "PNG")


def write_scenes(directory: Path) -> None:
    """The demo's generated scenes (`benchmarks demo-data`), of whose three data sets `directory` is the image folder.

    Raises:
        ConfigError: it has another name than imagenet, or the folder above holds something else.
    """
    if directory.name != "imagenet":
        raise ConfigError(f"data {directory}: the scenes' image folder is called imagenet: --data {directory}/imagenet")
    write_demo_data(directory.parent)


def write_clipart(directory: Path, source: Path = CLIPART) -> None:
    """The pictures of Debian's package openclipart-png (public domain), on white squares of 64 x 64 pixels.

    Each file once: of equal files the first by name; which is for validation, its content decides.

    Raises:
        DataError: they are not there, or not all.
    """
    missing = [name for name in CLIPART_CLASSES if not (source / name).is_dir()]
    if missing:
        raise DataError(
            f"{source}: no folder {', '.join(missing)}. The pictures come with Debian's and Ubuntu's package "
            "openclipart-png: apt-get install openclipart-png (or unpack it elsewhere, and say --source DIR)"
        )
    seen: set[str] = set()
    pictures = []
    for name in CLIPART_CLASSES:
        for file in sorted((source / name).rglob("*.png")):
            digest = hashlib.sha256(file.read_bytes()).hexdigest()
            if digest not in seen and _pixels(file) <= MOST_PIXELS:
                seen.add(digest)
                split = "val" if int(digest, 16) % VALIDATION == 0 else "train"
                pictures.append(Picture(path=f"{split}/{name}/{digest[:12]}.jpg", content=partial(_square, file)))
    _write(directory, pictures)


def _pixels(file: Path) -> int:
    with warnings.catch_warnings(action="ignore"):  # of its size
        try:
            with Image.open(file) as opened:
                return opened.width * opened.height
        except Image.DecompressionBombError:
            return MOST_PIXELS + 1
        except OSError as error:
            raise DataError(f"{file}: not a readable picture ({error})") from error


def _square(file: Path) -> bytes:
    try:
        with Image.open(file) as opened:
            image = opened.convert("RGBA")
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: not a readable picture ({error})") from error
    image.thumbnail((CLIPART_SIZE, CLIPART_SIZE), Image.Resampling.LANCZOS)
    square = Image.new("RGBA", (CLIPART_SIZE, CLIPART_SIZE), "white")
    square.alpha_composite(image, ((CLIPART_SIZE - image.width) // 2, (CLIPART_SIZE - image.height) // 2))
    return _encoded(square.convert("RGB"), "JPEG", quality=85)


def _encoded(image: Image.Image, kind: str, **options: int) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def _write(directory: Path, pictures: list[Picture]) -> None:
    with only_writer(directory):
        write_pictures(directory, pictures, total=len(pictures), copy=True)
