"""The size and EXIF orientation of an image from the first bytes of its file, without decoding it.

Boxes and label maps that were drawn on the upright photo do not fit the pixels as they are stored: tasks with places in
their annotations ask here before they train. The pixels themselves are turned by `engine.data.pixels.oriented`.
"""

import io
import struct
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from engine.data.decode import looks_like, opened, quietly
from engine.data.files import UnreadableImageError, open_file, read_all
from engine.data.pixels import ORIENTATION_TAG, orientation_of
from engine.errors import DataError

_HEAD_BYTES = 1 << 16  # the EXIF block of a JPEG is at most this long, and stands first
_PNG_MARKS = (b"eXIf", b"Raw profile type", b"XML:com.adobe.xmp")  # what may hold an orientation
_NUM_THREADS = 8  # a network file system answers many requests at once
_FRAME_BYTES = 5  # precision, height and width
_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


@dataclass(frozen=True)
class ImageHeader:
    """What a file says about its picture.

    Args:
        width: of the stored pixels.
        height: of the stored pixels.
        orientation: EXIF's, 1 to 8; 1 is upright.
    """

    width: int
    height: int
    orientation: int = 1

    @property
    def upright_size(self) -> tuple[int, int]:
        """(width, height) once the picture is turned as its orientation says."""
        return (self.height, self.width) if self.orientation >= 5 else (self.width, self.height)


def read_header(path: str | Path) -> ImageHeader:
    """The header of one image.

    Raises:
        UnreadableImageError: it is not an image, or no regular file.
        DataError: the file is missing or cannot be read.
    """
    try:
        with open_file(path) as descriptor, open(descriptor, "rb", buffering=0, closefd=False) as file:
            head = file.read(_HEAD_BYTES) or b""
            found = jpeg_header(head)
            return found or pillow_header(head if len(head) < _HEAD_BYTES else head + read_all(descriptor))
    except DataError as error:
        text = str(error)
        raise type(error)(text if text.startswith(str(path)) else f"{path}: {text}") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error


def read_headers(paths: Iterable[str]) -> Iterator[ImageHeader | DataError]:
    """`read_header` of many files, in their order, several at a time; what is wrong with a file stands in its place."""
    with ThreadPoolExecutor(_NUM_THREADS) as pool:
        yield from pool.map(_header_or_error, paths, chunksize=64)


def _header_or_error(path: str) -> ImageHeader | DataError:
    try:
        return read_header(path)
    except DataError as error:
        return error


def jpeg_header(head: bytes) -> ImageHeader | None:
    """Size and orientation of a JPEG from its first bytes; None if it is none, or they stand further down."""
    if head[:2] != b"\xff\xd8":
        return None
    place, orientation = 2, 1
    while place + 9 <= len(head) and head[place] == 0xFF:
        marker = head[place + 1]
        if marker in (0xFF, 0x01) or 0xD0 <= marker <= 0xD7:  # filling, and markers without content
            place += 1 if marker == 0xFF else 2
            continue
        (length,) = struct.unpack_from(">H", head, place + 2)
        body = head[place + 4 : place + 2 + length]
        if marker in _FRAME_MARKERS:
            if len(body) < _FRAME_BYTES:
                return None
            height, width = struct.unpack_from(">HH", body, 1)
            return ImageHeader(width, height, orientation)
        if marker == 0xE1 and body.startswith(b"Exif\0\0"):
            orientation = _exif_orientation(body)
        elif marker == 0xE1 and b"tiff:Orientation" in body:
            return None  # an orientation in XMP: Pillow knows how the two go together
        place += 2 + length
    return None


def _exif_orientation(block: bytes) -> int:
    try:
        with quietly():
            exif = Image.Exif()
            exif.load(block)
            value = exif.get(ORIENTATION_TAG, 1)
    except Exception:  # the picture is there whatever its tags are
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def pillow_header(data: bytes) -> ImageHeader:
    """Size and orientation of an image of any format from its bytes.

    Raises:
        UnreadableImageError: it is not an image.
    """
    if not data:
        raise UnreadableImageError("empty file (0 bytes)")
    try:
        with opened(io.BytesIO(data), max_pixels=2**62) as image:
            # Pillow decodes a whole PNG to look for a tag that may stand behind the pixels.
            tagged = image.format != "PNG" or any(mark in data for mark in _PNG_MARKS)
            orientation = orientation_of(image) if tagged else 1
            width, height = image.size
            turned = image.format == "TIFF" and orientation >= 5  # Pillow gives the size of a TIFF as turned
    except UnidentifiedImageError as error:
        raise UnreadableImageError(f"not a readable image ({looks_like(data)})") from error
    except MemoryError:
        raise
    except Exception as error:
        raise UnreadableImageError(
            f"{looks_like(data)} without a readable header: {error or type(error).__name__}"
        ) from error
    return ImageHeader(height, width, orientation) if turned else ImageHeader(width, height, orientation)
