"""One image file to one array: read, refuse what is not whole, decode to RGB. Knows no index and no policy.

JPEG goes through libjpeg-turbo directly; whatever that refuses, and every other format, through Pillow. Both give the
same pixels.
"""

import contextlib
import io
import struct
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import simplejpeg
from PIL import Image, UnidentifiedImageError

from engine.data.bands import decode_bands
from engine.data.files import UnreadableImageError, read_bytes
from engine.data.options import DEFAULT_OPTIONS, MAX_PIXELS, ImageOptions
from engine.data.pixels import ImageArray, UnsupportedPixelsError, orientation_of, oriented, stored, to_rgb
from engine.errors import DataError

__all__ = ["MAX_PIXELS", "ImageArray", "UnreadableImageError", "decode_image", "read_bytes", "read_image"]

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "JPEG2000", "AVIF")
"""What is opened, in Pillow's names; others include some that start programs."""

_one_at_a_time = threading.Lock()  # Pillow's limit and Python's warnings are settings of the whole process
_SIGNATURES = {
    b"\xff\xd8": "JPEG",
    b"\x89PNG": "PNG",
    b"RIFF": "WebP",
    b"GIF8": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"%PDF": "PDF",
    b"PK\x03\x04": "zip",
    b"\x1f\x8b": "gzip",
}


def read_image(path: str | Path, options: ImageOptions = DEFAULT_OPTIONS) -> ImageArray:
    """The image as RGB, uint8, shape (height, width, 3); or with the channels of `options.bands`, see bands.py.

    8-bit images have the values of Pillow's `convert("RGB")`, deeper ones their upper 8 bits (engine/data/pixels.py).
    Transparent images are laid over white. The EXIF orientation is treated as `options.exif` says.

    Raises:
        UnreadableImageError: empty, truncated, no image or no regular file, above `options.max_pixels`, or of values
            without a scale.
        DataError: the file is missing, storage failed four times in a row, or it is turned and `options.exif` "stop".
    """
    data = read_bytes(path)
    try:
        if options.bands != 3:
            return decode_bands(data, options.bands, options.max_pixels)
        return decode_image(data, options)
    except MemoryError as error:
        raise DataError(
            f"{path}: its pixels do not fit into the memory that is left; a smaller --data.max-pixels "
            f"(now {options.max_pixels}) makes it unreadable instead"
        ) from error
    except UnreadableImageError as error:
        raise UnreadableImageError(f"{path}: {error}") from error.__cause__
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def decode_image(data: bytes, options: ImageOptions = DEFAULT_OPTIONS) -> ImageArray:
    """As `read_image`, from the bytes of a file.

    Raises:
        UnreadableImageError: with the reason, without a path.
        DataError: `options.exif` is "stop" and the image has to be turned.
    """
    if not data:
        raise UnreadableImageError("empty file (0 bytes)")
    if data[:2] == b"\xff\xd8":
        with contextlib.suppress(ValueError):  # Pillow has the last word: it also reads what is merely unusual
            height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data)
            refuse_huge(width, height, options.max_pixels)
            if colorspace != "CMYK":  # rounds otherwise than Pillow
                array: ImageArray = simplejpeg.decode_jpeg(data, "RGB")
                return array if options.exif == "ignore" else _turned(array, data, options)
    if data.startswith(b"\x89PNG") and len(data) > 24:
        width, height = struct.unpack(">II", data[16:24])
        refuse_huge(width, height, options.max_pixels)  # before Pillow looks at anything
    return _decode_with_pillow(data, options)


def refuse_huge(width: int, height: int, max_pixels: int) -> None:
    """Refuse a picture by its header.

    Raises:
        UnreadableImageError: it has more than `max_pixels` pixels.
    """
    if width * height > max_pixels:
        raise UnreadableImageError(
            f"{width}x{height} pixels, more than the {max_pixels:,} accepted (--data.max-pixels {width * height})"
        )


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Without Pillow's warnings about what it forgives; one thread at a time."""
    with _one_at_a_time, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def opened(file: io.BytesIO | io.BufferedReader, max_pixels: int) -> Iterator[Image.Image]:
    """A file as a Pillow image of which only the header has been read.

    Raises:
        UnreadableImageError: there are more than `max_pixels` pixels.
        Exception: whatever Pillow raises at something that is not an image.
    """
    with quietly():
        limit = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None  # ours holds in its place, and may be larger
        try:
            image = Image.open(file, formats=FORMATS)
            refuse_huge(*image.size, max_pixels)
            yield image
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _decode_with_pillow(data: bytes, options: ImageOptions) -> ImageArray:
    try:
        with opened(io.BytesIO(data), options.max_pixels) as image:
            turned_by_pillow = orientation_of(image) if image.format == "TIFF" else 1  # these, and no others
            array = stored(to_rgb(image), turned_by_pillow)
            # Asked only now, because Pillow reads all of a PNG to answer, and to_rgb must see it before.
            orientation = turned_by_pillow if image.format == "TIFF" else orientation_of(image)
        return _as_asked(array, orientation, options)
    except (DataError, MemoryError):
        raise
    except UnsupportedPixelsError as error:
        raise UnreadableImageError(str(error)) from error
    except UnidentifiedImageError as error:
        raise UnreadableImageError(f"not a readable image ({looks_like(data)})") from error
    except Exception as error:  # Pillow's format readers raise nearly anything on damaged bytes
        raise UnreadableImageError(
            f"{looks_like(data)} that cannot be decoded: {error or type(error).__name__}"
        ) from error


def _turned(array: ImageArray, data: bytes, options: ImageOptions) -> ImageArray:
    """A JPEG's pixels as `options.exif` asks for them."""
    try:
        with opened(io.BytesIO(data), options.max_pixels) as image:
            orientation = orientation_of(image)
    except Exception:  # it has been decoded; only what stands beside the pixels is odd
        orientation = 1
    return _as_asked(array, orientation, options)


def _as_asked(array: ImageArray, orientation: int, options: ImageOptions) -> ImageArray:
    if options.exif == "ignore" or orientation == 1:
        return array
    if options.exif == "stop":
        raise DataError(
            f"has the EXIF orientation {orientation}: its pixels are stored otherwise than it is meant to be seen. "
            "Choose --data.exif apply (turn it upright) or --data.exif ignore (take it as it is stored)"
        )
    return oriented(array, orientation)


def looks_like(data: bytes) -> str:
    """What the first bytes of a file say that it is, for people."""
    start = data[:512].lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "an HTML page"
    names = [name for signature, name in _SIGNATURES.items() if data.startswith(signature)]
    if data[4:12] in (b"ftypavif", b"ftypheic", b"ftypheix", b"ftypmif1"):
        names = ["AVIF" if data[8:12] == b"avif" else "HEIF"]
    return names[0] if names else f"{len(data)} bytes beginning with {data[:8]!r}"
