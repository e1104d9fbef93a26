"""What the generated scenes are made of: outlines of the ten object classes, textures of the objects and the ground.

Shapes: p polygon points, h w pixels of one window, 3 RGB. Colours and patterns are float32 in 0..1 until the scene is
finished. Everything random comes from the generator passed in.
"""

import colorsys
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Floats = NDArray[np.floating[Any]]

NUM_HUES = 5


def _array(values: Any) -> Floats:
    return np.asarray(values, dtype=np.float32)


def _circle(num_points: int = 48, radius: float = 1.0, start: float = 0.0, stop: float = 2 * np.pi) -> Floats:
    angle = np.linspace(start, stop, num_points)
    return _array(radius * np.stack([np.cos(angle), np.sin(angle)], axis=1))


def _crescent() -> Floats:
    outer = _circle(36, 1.0, 0.3 * np.pi, 1.7 * np.pi)
    inner = _circle(30, 0.82, 1.62 * np.pi, 0.38 * np.pi) + _array([0.31, 0.0])
    return _array(np.concatenate([outer, inner]) + _array([0.25, 0.0]))


def _flower() -> Floats:
    points = _circle(72)
    angle = np.arctan2(points[:, 1], points[:, 0])
    return _array(points * (0.68 + 0.32 * np.cos(5 * angle))[:, None])


def _heart() -> Floats:
    t = np.linspace(0, 2 * np.pi, 60)
    x = 16 * np.sin(t) ** 3
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return _array(np.stack([x, -y - 2], axis=1) / 17)


def _star() -> Floats:
    points = _circle(11)[:10]
    points[1::2] *= 0.42
    return points


_CROSS = [(-0.3, -1), (0.3, -1), (0.3, -0.3), (1, -0.3), (1, 0.3), (0.3, 0.3)]

# Outlines in a unit frame (about -1..1). The ring walks its outer circle, then its inner one backwards: filled by the
# even-odd rule, the zero-width bridge between them leaves no trace.
SHAPES: dict[str, Floats] = {
    "arrow": _array([(1, 0), (0.2, -0.8), (0.2, -0.32), (-1, -0.32), (-1, 0.32), (0.2, 0.32), (0.2, 0.8)]),
    "crescent": _crescent(),
    "cross": _array(_CROSS + [(-x, -y) for x, y in _CROSS]),
    "flower": _flower(),
    "heart": _heart(),
    "hourglass": _array([(-0.75, -0.95), (0.75, -0.95), (0.16, 0), (0.75, 0.95), (-0.75, 0.95), (-0.16, 0)]),
    "ring": np.concatenate([_circle(), _circle(radius=0.52)[::-1]]),
    "square": _array([(-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)]),
    "star": _star(),
    "triangle": _circle(4)[:3],
}
CLASSES = tuple(SHAPES)  # alphabetical, so that the folder order of an image folder is the class order


def smooth_noise(rng: np.random.Generator, height: int, width: int, cell: float) -> Floats:
    """Noise of shape (height, width), mean about 0, values mostly in -1..1, with bumps about `cell` pixels wide."""
    rows, columns = int(height / cell) + 3, int(width / cell) + 3
    coarse = Image.fromarray(rng.uniform(-1, 1, (rows, columns)).astype(np.float32))
    box = (1.0, 1.0, 1.0 + width / cell, 1.0 + height / cell)
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC, box=box), dtype=np.float32)


def _fractal(rng: np.random.Generator, height: int, width: int, cell: float) -> Floats:
    octaves = [smooth_noise(rng, height, width, max(cell / 2**k, 1.0)) * 0.6**k for k in range(4)]
    return _array(np.sum(octaves, axis=0))


def hue_colour(rng: np.random.Generator, hue: float) -> tuple[Floats, Floats]:
    """Two colours (3,) of one hue (0..1), for a pattern's ground and its marks, clearly apart in value."""
    hue = (hue + rng.normal(0, 0.03)) % 1.0
    saturation, dark = rng.uniform(0.45, 0.95), rng.uniform(0.15, 0.5)
    light = dark + rng.uniform(0.35, 0.5)
    other = (hue + rng.normal(0, 0.06)) % 1.0
    pair = [colorsys.hsv_to_rgb(hue, saturation, light), colorsys.hsv_to_rgb(other, saturation * 0.8, dark)]
    first, second = (_array(colour) for colour in (pair if rng.random() < 0.5 else pair[::-1]))
    return first, second


def _sharpen(wave: Floats) -> Floats:
    return _array(0.5 + 0.5 * np.tanh(3 * wave))


def _stripes(u: Floats, v: Floats, rng: np.random.Generator) -> Floats:
    return _sharpen(np.sin(u + 0.3 * np.sin(v)))


def _checks(u: Floats, v: Floats, rng: np.random.Generator) -> Floats:
    return _sharpen(2 * np.sin(u) * np.sin(v))


def _dots(u: Floats, v: Floats, rng: np.random.Generator) -> Floats:
    return _sharpen(np.cos(u) + np.cos(v) - 0.8)


def _rays(u: Floats, v: Floats, rng: np.random.Generator) -> Floats:
    return _sharpen(np.sin(rng.integers(5, 9) * np.arctan2(v, u)))


def _speckle(u: Floats, v: Floats, rng: np.random.Generator) -> Floats:
    return _sharpen(2 * smooth_noise(rng, u.shape[0], u.shape[1], rng.uniform(2.0, 4.0)))


# A pattern maps window coordinates (h, w) in radians of its wave, centred on the object, to (h, w) values in 0..1.
PATTERNS: tuple[Callable[[Floats, Floats, np.random.Generator], Floats], ...] = (
    _stripes,
    _checks,
    _dots,
    _rays,
    _speckle,
)


def _sky(rng: np.random.Generator, height: int, width: int) -> Floats:
    clouds = np.clip(_fractal(rng, height, width, 40) * rng.uniform(0.3, 0.8) + 0.2, 0, 1)[..., None]
    fall = np.linspace(0, 0.25, height, dtype=np.float32)[:, None, None]
    return _array(_array([0.35, 0.55, 0.85]) + fall + clouds * _array([0.45, 0.3, 0.1]))


def _brick(rng: np.random.Generator, height: int, width: int) -> Floats:
    brick_h = int(rng.integers(8, 15))
    row, column = np.mgrid[0:height, 0:width] + rng.integers(0, 64, (2, 1, 1))
    shifted = column + (row // brick_h % 2) * brick_h
    joint = (row % brick_h < 2) | (shifted % (2 * brick_h) < 2)
    shade = rng.uniform(0.75, 1.1, (64, 64)).astype(np.float32)[row // brick_h % 64, shifted // (2 * brick_h) % 64]
    wall = _array([0.6, 0.3, 0.22]) * shade[..., None]
    return np.where(joint[..., None], _array([0.62, 0.6, 0.56]), wall)


def _grass(rng: np.random.Generator, height: int, width: int) -> Floats:
    blades = smooth_noise(rng, height, width * 3, 6)[:, ::3] + 0.5 * rng.normal(0, 1, (height, width))
    patches = smooth_noise(rng, height, width, 30)[..., None]
    return _array(_array([0.28, 0.48, 0.18]) * (1 + 0.3 * blades[..., None]) + 0.08 * patches)


def _water(rng: np.random.Generator, height: int, width: int) -> Floats:
    bend = 3 * smooth_noise(rng, height, width, 16)
    wave = np.sin(np.arange(height)[:, None] * rng.uniform(0.7, 1.3) + bend)[..., None]
    return _array(_array([0.15, 0.4, 0.5]) + 0.12 * wave)


def _sand(rng: np.random.Generator, height: int, width: int) -> Floats:
    grain = rng.normal(0, 0.07, (height, width)) + 0.12 * smooth_noise(rng, height, width, 24)
    return _array(_array([0.78, 0.68, 0.48]) + grain[..., None])


def _plaster(rng: np.random.Generator, height: int, width: int) -> Floats:
    stain = 0.16 * _fractal(rng, height, width, 50)[..., None]
    return _array(rng.uniform(0.45, 0.8, 3) * 0.3 + 0.42 + stain)


# Each maps (rng, height, width) to (height, width, 3) values, roughly 0..1.
GROUNDS: dict[str, Callable[[np.random.Generator, int, int], Floats]] = {
    "wall": _plaster,
    "brick": _brick,
    "sky": _sky,
    "grass": _grass,
    "water": _water,
    "sand": _sand,
}
