"""Pictures of other channels than grey or RGB, such as satellites' and microscopes': TIFF files and numpy arrays.

Values keep the file's own scale, as in pixels.py: 8 bits as they are, of 16 bits the upper 8. Where nothing says which
value is the largest (floating point, 32 bits), the picture is refused.
"""

import io

import numpy as np
import numpy.typing as npt

from engine.data.files import UnreadableImageError
from engine.data.pixels import ImageArray

SUFFIXES = (".npy", ".tif", ".tiff")
"""Of files that may hold such pictures."""
_SIGNATURES = {b"\x93NUMPY": "npy", b"II*\0": "tiff", b"MM\0*": "tiff", b"II+\0": "tiff", b"MM\0+": "tiff"}


def decode_bands(data: bytes, bands: int, max_pixels: int) -> ImageArray:
    """A picture of `bands` channels from the bytes of its file: uint8 (height, width, bands).

    Stored as (height, width, channels) or (channels, height, width), or a TIFF of one page a channel.

    Raises:
        UnreadableImageError: it is none, has other channels, too many pixels, or values without a scale.
    """
    kind = next((kind for mark, kind in _SIGNATURES.items() if data.startswith(mark)), None)
    if kind is None:
        raise UnreadableImageError(
            f"neither TIFF nor a numpy array (.npy), which a picture of {bands} channels has to be: --data.mean has "
            f"{bands} values"
        )
    try:
        array = _read(data, kind)
    except MemoryError:
        raise
    except Exception as error:  # whatever the readers raise at damaged bytes, and at objects in an array
        raise UnreadableImageError(
            f"{kind} that cannot be decoded: {str(error)[:160] or type(error).__name__}"
        ) from error
    array = _channels_last(array, bands)
    if array.shape[0] * array.shape[1] > max_pixels:
        raise UnreadableImageError(
            f"{array.shape[1]}x{array.shape[0]} pixels, more than the {max_pixels:,} accepted (--data.max-pixels)"
        )
    return _eight_bits(array)


def _read(data: bytes, kind: str) -> npt.NDArray[np.generic]:
    if kind == "npy":
        return np.asarray(np.load(io.BytesIO(data), allow_pickle=False))
    import tifffile  # here, because RGB pictures need none of it

    return np.asarray(tifffile.imread(io.BytesIO(data)))


def _channels_last(array: npt.NDArray[np.generic], bands: int) -> npt.NDArray[np.generic]:
    if array.ndim == 3 and array.shape[2] == bands:
        return array
    if array.ndim == 3 and array.shape[0] == bands:
        return array.transpose(1, 2, 0)
    raise UnreadableImageError(
        f"an array of shape {array.shape}, not (height, width, {bands}) or ({bands}, height, width): --data.mean and "
        "--data.std have one value a channel"
    )


def _eight_bits(array: npt.NDArray[np.generic]) -> ImageArray:
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array, dtype=np.uint8)
    if array.dtype == np.uint16:
        return np.ascontiguousarray(array.astype(np.uint16) >> 8, dtype=np.uint8)
    raise UnreadableImageError(
        f"values of type {array.dtype}, of which nothing says which is the largest: store them as uint8 or uint16, "
        "scaled to the whole range"
    )
