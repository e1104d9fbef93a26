"""A picture as Pillow opens it, to RGB with 8 bits: every colour mode and bit depth, or a reason why not.

Values keep the file's own scale: 16-bit pictures give their high byte (in grey as Pillow does it in colour), 12-bit
ones their upper 8 bits. Where nothing says which value is white (32-bit integers, floating point) it is refused.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

ImageArray = npt.NDArray[np.uint8]

ORIENTATION_TAG = 0x0112

_WHITE_IS_ZERO = 0  # of the TIFF tag PhotometricInterpretation
_SIGNED = 2  # of the TIFF tag SampleFormat
_TIFF_BITS, _TIFF_PHOTOMETRIC, _TIFF_SAMPLE_FORMAT = 258, 262, 339
_SCALELESS = {"F": "floating-point", "I": "signed or 32-bit integer"}


class UnsupportedPixelsError(ValueError):
    """The values of a picture have no scale that says which of them is white."""


def to_rgb(image: Image.Image) -> ImageArray:
    """The picture as RGB, uint8, shape (height, width, 3). Transparent parts are laid over white; colour profiles are
    ignored; of several frames the first is taken.

    Raises:
        UnsupportedPixelsError: no scale is known for its values.
        Exception: whatever Pillow raises at damaged bytes.
    """
    _scale_transparency(image)
    if image.mode.startswith("I"):
        return _from_deep_grey(image)
    if _SIGNED in (getattr(image, "tag_v2", {}).get(_TIFF_SAMPLE_FORMAT) or ()):
        raise UnsupportedPixelsError(_scaleless("I"))
    if image.mode in _SCALELESS:
        raise UnsupportedPixelsError(_scaleless(image.mode))
    return np.array(_over_white(image))


def orientation_of(image: Image.Image) -> int:
    """The EXIF orientation of an opened picture, 1 to 8; 1, upright, where it has none or the tag makes no sense."""
    try:
        value: Any = image.getexif().get(ORIENTATION_TAG, 1)
    except Exception:  # the tag is an aside: whatever is wrong with it, the picture is there
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def oriented(array: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """Pixels as stored -> upright, as EXIF's orientation (1 to 8) says. Array of shape (height, width, ...); from 5 on
    height and width change places. The result lies in memory without gaps."""
    if orientation >= 5:
        array = array.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    return np.ascontiguousarray(array)


def stored(array: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """The inverse of `oriented`: upright pixels -> as the file stores them."""
    return oriented(array, {6: 8, 8: 6}.get(orientation, orientation))


def _from_deep_grey(image: Image.Image) -> ImageArray:
    """Grey with more than 8 bits."""
    tags = getattr(image, "tag_v2", {})
    if image.mode == "I" and image.format != "PPM":  # Pillow brings those of the PPM family to 16 bits
        raise UnsupportedPixelsError(_scaleless("I"))
    bits = 12 if tags.get(_TIFF_BITS) == (12,) else 16
    values = np.asarray(image)
    grey = np.clip(values >> (bits - 8), 0, 255).astype(np.uint8)
    if tags.get(_TIFF_PHOTOMETRIC) == _WHITE_IS_ZERO:  # Pillow turns these round up to 8 bits only
        grey = 255 - grey
    if isinstance(transparent := image.info.get("transparency"), int):
        grey[values == transparent] = 255
    return np.repeat(grey[..., None], 3, axis=2)


def _scale_transparency(image: Image.Image) -> None:
    """Bring a PNG's transparent colour, which Pillow gives as the file stores it, to the 8 bits of its pixels."""
    colour = image.info.get("transparency")
    tiles = getattr(image, "tile", ()) if image.format == "PNG" else ()
    raw_mode = tiles[0].args if tiles else None
    if raw_mode in ("L;2", "L;4") and isinstance(colour, int):
        image.info["transparency"] = colour * (85 if raw_mode == "L;2" else 17)
    elif raw_mode == "RGB;16B" and isinstance(colour, tuple):
        image.info["transparency"] = tuple(value >> 8 for value in colour)


def _scaleless(mode: str) -> str:
    return (
        f"{_SCALELESS[mode]} grey values, of which nothing says which one is white: "
        "convert the picture to 8 or 16 bits, scaled as it should be seen"
    )


def _over_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image.convert("LA").convert("RGBA") if image.mode == "La" else image.convert("RGBA")
    white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, layer).convert("RGB")
