"""One image file to one array: read, refuse what is not whole, decode to RGB. Knows no index and no policy.

JPEG goes through libjpeg-turbo directly; whatever that refuses, and every other format, through Pillow. Both give the
same pixels. EXIF orientation is ignored, as in torchvision.
"""

import contextlib
import errno
import io
import logging
import struct
import time
import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image, UnidentifiedImageError

from engine.errors import DataError

ImageArray = npt.NDArray[np.uint8]

MAX_PIXELS = 89_478_485
"""Largest width x height accepted (where Pillow starts to warn): decoding stays below 1 GB of memory."""

RETRY_WAITS_S = (0.1, 0.3, 1.0)
"""Pauses before reading again after a storage error that tends to pass."""

_PASSING_ERRORS = frozenset({errno.EIO, errno.ESTALE, errno.EAGAIN, errno.ETIMEDOUT, errno.EREMOTEIO})
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")  # Pillow's others include some that start programs
_SIGNATURES = {b"\x89PNG": "PNG", b"RIFF": "WebP", b"GIF8": "GIF", b"%PDF": "PDF", b"PK\x03\x04": "zip"}

log = logging.getLogger(__name__)
_num_read_again = 0


class UnreadableImageError(DataError):
    """The file is there, but its bytes are not a whole image. The only error that `unreadable: skip` may skip."""


def read_image(path: str | Path) -> ImageArray:
    """The image as RGB, uint8, shape (height, width, 3), with the values of Pillow's `convert("RGB")`.

    Transparent images are laid over white. Grey with 16 bits saturates at 255, as Pillow does.

    Raises:
        UnreadableImageError: empty, truncated, not an image, or above MAX_PIXELS.
        DataError: the file is missing, or storage failed four times in a row.
    """
    data = read_bytes(path)
    try:
        return decode_image(data)
    except UnreadableImageError as error:
        raise UnreadableImageError(f"{path}: {error}") from error.__cause__


def read_bytes(path: str | Path) -> bytes:
    """The whole file; storage errors that tend to pass (EIO, ESTALE, time-outs) are met with three more tries.

    Raises:
        DataError: the file is missing or cannot be read.
    """
    global _num_read_again
    for wait_s in (*RETRY_WAITS_S, None):
        try:
            with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - a Path object costs 20 us per image
                return file.read()
        except FileNotFoundError as error:
            raise DataError(
                f"{path}: the file was indexed but is no longer there; put it back, or start anew"
            ) from error
        except OSError as error:
            if error.errno not in _PASSING_ERRORS or wait_s is None:
                tries = f" after {len(RETRY_WAITS_S) + 1} tries" if error.errno in _PASSING_ERRORS else ""
                raise DataError(f"{path}: cannot be read{tries} ({error.strerror or error})") from error
            _num_read_again += 1
            log.warning("%s: %s; reading again (%d such so far)", path, error.strerror, _num_read_again)
            time.sleep(wait_s)
    raise AssertionError("the last try returns or raises")


def decode_image(data: bytes) -> ImageArray:
    """As `read_image`, from the bytes of a file.

    Raises:
        UnreadableImageError: with the reason, without a path.
    """
    if not data:
        raise UnreadableImageError("empty file (0 bytes)")
    if data[:2] == b"\xff\xd8":
        with contextlib.suppress(ValueError):  # Pillow has the last word: it also reads what is merely unusual
            height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data)
            _refuse_huge(width, height)
            if colorspace != "CMYK":  # rounds otherwise than Pillow
                array: ImageArray = simplejpeg.decode_jpeg(data, "RGB")
                return array
    if data.startswith(b"\x89PNG") and len(data) > 24:
        _refuse_huge(*struct.unpack(">II", data[16:24]))  # Pillow's own refusal would not name the two numbers
    return _decode_with_pillow(data)


def _refuse_huge(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise UnreadableImageError(f"{width}x{height} pixels, more than the {MAX_PIXELS:,} accepted")


def _decode_with_pillow(data: bytes) -> ImageArray:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # refused below, by a limit of our own
            image = Image.open(io.BytesIO(data), formats=_FORMATS)
        _refuse_huge(*image.size)
        return np.array(_over_white(image))
    except (UnreadableImageError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise UnreadableImageError(f"not a readable image ({_looks_like(data)})") from error
    except Exception as error:  # Pillow's format readers raise nearly anything on damaged bytes
        raise UnreadableImageError(f"damaged {_looks_like(data)}: {error or type(error).__name__}") from error


def _over_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, layer).convert("RGB")


def _looks_like(data: bytes) -> str:
    if data[:2] == b"\xff\xd8":
        return "JPEG"
    start = data[:512].lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "an HTML page"
    names = [name for signature, name in _SIGNATURES.items() if data.startswith(signature)]
    return names[0] if names else f"{len(data)} bytes beginning with {data[:8]!r}"
