"""One generated scene: textured ground, several textured objects in front of each other, and their exact masks.

A scene is a function of (seed, split, index) alone. Its main object, the one an image-level label names, has the
largest visible area: at least `MAIN_LEAD` times that of any other. Shape decides the class; pattern and hue
follow it in 60 % of the objects only, and each preferred one is shared by two classes, so neither gives the class away.
Shapes: h w pixels of the image.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from benchmarks.scenes.textures import CLASSES, GROUNDS, NUM_HUES, PATTERNS, SHAPES, Floats, hue_colour, smooth_noise

SPLITS = ("train", "val")
SIDES_PX = (128, 144, 160)
MAIN_LEAD = 1.5
MIN_VISIBLE_SHARE, MIN_VISIBLE_PX = 0.3, 40
CROWD_CHANCE, TYPICAL_LOOK_CHANCE = 0.1, 0.6
SUPERSAMPLE = 4

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Thing:
    """An object or a crowd of small ones: its class (index in CLASSES) and the pixels of it that can be seen."""

    class_index: int
    crowd: bool
    visible_hw: Mask


@dataclass(frozen=True)
class Scene:
    """An image (h, w, 3) uint8, the index in GROUNDS of every pixel's ground, and the things, main object first."""

    image_hw3: NDArray[np.uint8]
    ground_hw: NDArray[np.uint8]
    things: tuple[Thing, ...]


@dataclass(frozen=True)
class _Layer:
    """A thing before it is painted: its outlines in pixels, place, size and cover (h, w) in 0..1."""

    class_index: int
    crowd: bool
    centre_xy: Floats
    radius_px: float
    angle: float
    cover_hw: Floats


def draw_scene(seed: int, split: str, index: int) -> Scene:
    """The scene number `index` (from 0) of "train" or "val"; the main object's class is index modulo 10."""
    rng = np.random.default_rng([seed, SPLITS.index(split), index])
    height, width = (int(side) for side in rng.choice(SIDES_PX, 2))
    layers, main = _place(rng, height, width, index % len(CLASSES))
    ground_hw = _ground_map(rng, height, width)
    canvas = np.zeros((height, width, 3), dtype=np.float32)
    for ground, paint in enumerate(GROUNDS.values()):
        where = ground_hw == ground
        if where.any():
            canvas[where] = (paint(rng, height, width) + rng.normal(0, 0.06, 3).astype(np.float32))[where]
    for layer in layers:
        _paint(rng, canvas, layer)
    visible = _visible(layers)
    order = [main, *(i for i in range(len(layers)) if i != main)]
    things = tuple(Thing(layers[i].class_index, layers[i].crowd, visible[i]) for i in order)
    return Scene(_photograph(rng, canvas), ground_hw, things)


def _place(rng: np.random.Generator, height: int, width: int, main_class: int) -> tuple[list[_Layer], int]:
    """Layers from back to front and the main one's position among them; every layer left can be seen well enough."""
    short = min(height, width)
    layers = [
        _layer(rng, (height, width), int(rng.integers(len(CLASSES))), short * rng.uniform(0.09, 0.2), False)
        for _ in range(int(rng.integers(5)))
    ]
    main = _layer(rng, (height, width), main_class, short * rng.uniform(0.28, 0.44), False)
    layers.insert(int(rng.integers(len(layers) + 1)), main)
    if rng.random() < CROWD_CHANCE:
        layers.insert(0, _layer(rng, (height, width), int(rng.integers(len(CLASSES))), short * 0.05, True))
    while True:
        position = next(i for i, layer in enumerate(layers) if layer is main)
        drop = _worst(layers, position)
        if drop is None:
            return layers, position
        del layers[drop]


def _worst(layers: list[_Layer], main: int) -> int | None:
    """The next layer to take away: it hides the main object too much, is hidden too much itself, or is too large."""
    areas = [int(mask.sum()) for mask in _visible(layers)]
    wholes = [int((layer.cover_hw >= 0.5).sum()) for layer in layers]
    if areas[main] < 0.6 * wholes[main]:
        return max(range(main + 1, len(layers)), key=lambda i: wholes[i])
    for i, area in enumerate(areas):
        too_small = area < max(MIN_VISIBLE_PX, MIN_VISIBLE_SHARE * wholes[i])
        if i != main and (too_small or area * MAIN_LEAD > areas[main]):
            return i
    return None


def _layer(rng: np.random.Generator, size: tuple[int, int], class_index: int, radius: float, crowd: bool) -> _Layer:
    height, width = size
    reach = 4 * radius if crowd else 0.9 * radius
    centre = rng.uniform([reach, reach], [width - reach, height - reach])
    angle = rng.uniform(0, 2 * np.pi)
    if crowd:
        offsets = rng.normal(0, 2.4 * radius, (int(rng.integers(6, 11)), 2))
        outlines = [_outline(rng, class_index, centre + shift, radius, rng.uniform(0, 6.3)) for shift in offsets]
    else:
        outlines = [_outline(rng, class_index, centre, radius, angle)]
    cover = _cover(outlines, height, width)
    return _Layer(class_index, crowd, centre.astype(np.float32), radius, angle, cover)


def _outline(rng: np.random.Generator, class_index: int, centre: Floats, radius: float, angle: float) -> Floats:
    """The class's shape stretched, turned and slightly bent, in pixels (p, 2)."""
    points = SHAPES[CLASSES[class_index]]
    stretch = np.exp(rng.uniform(-0.2, 0.2, 2))
    bend = 1 + 0.12 * rng.normal() * points[:, ::-1]
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return np.asarray(centre + (points * stretch * bend * radius) @ turn, dtype=np.float32)


def _cover(outlines: list[Floats], height: int, width: int) -> Floats:
    """How much of every pixel (h, w) the filled outlines cover, 0..1."""
    sheet = Image.new("L", (width * SUPERSAMPLE, height * SUPERSAMPLE))
    pen = ImageDraw.Draw(sheet)
    for outline in outlines:
        pen.polygon([tuple(point) for point in (outline * SUPERSAMPLE).tolist()], fill=255)
    return np.asarray(sheet.reduce(SUPERSAMPLE), dtype=np.float32) / 255


def _visible(layers: list[_Layer]) -> list[Mask]:
    """Which pixels show which layer: the frontmost one that covers at least half of the pixel."""
    free = np.ones_like(layers[0].cover_hw, dtype=bool)
    masks = []
    for layer in reversed(layers):
        mask = (layer.cover_hw >= 0.5) & free
        free &= ~mask
        masks.append(mask)
    return masks[::-1]


def _ground_map(rng: np.random.Generator, height: int, width: int) -> NDArray[np.uint8]:
    """One to three kinds of ground, side by side along a wavy border: indices in GROUNDS, (h, w)."""
    kinds = rng.permutation(len(GROUNDS))[: int(rng.integers(1, 4))]
    direction = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    ramp = x * np.cos(direction) + y * np.sin(direction) + 8 * smooth_noise(rng, height, width, 40)
    cuts = np.quantile(ramp, np.arange(1, len(kinds)) / len(kinds) + rng.uniform(-0.12, 0.12, len(kinds) - 1))
    ground_hw: NDArray[np.uint8] = kinds[np.searchsorted(cuts, ramp)].astype(np.uint8)
    return ground_hw


def _paint(rng: np.random.Generator, canvas: Floats, layer: _Layer) -> None:
    """Paint a layer over the canvas (h, w, 3) in place, with a soft shadow beneath it."""
    typical_pattern, typical_hue = layer.class_index // 2, layer.class_index % NUM_HUES
    pattern = typical_pattern if rng.random() < TYPICAL_LOOK_CHANCE else int(rng.integers(len(PATTERNS)))
    hue = typical_hue if rng.random() < TYPICAL_LOOK_CHANCE else int(rng.integers(NUM_HUES))
    height, width = layer.cover_hw.shape
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    across, down = (x - layer.centre_xy[0]) / layer.radius_px, (y - layer.centre_xy[1]) / layer.radius_px
    u = across * np.cos(layer.angle) + down * np.sin(layer.angle)
    v = down * np.cos(layer.angle) - across * np.sin(layer.angle)
    # Waves of 5 to 14 px: below that the image cannot hold them, above that small objects show none.
    frequency = 2 * np.pi * max(layer.radius_px / rng.uniform(5, 14), 0.7)
    marks = PATTERNS[pattern](u * frequency, v * frequency, rng)[..., None]
    first, second = hue_colour(rng, hue / NUM_HUES)
    light = rng.uniform(0, 2 * np.pi)
    shade = 1 + rng.uniform(0, 0.3) * (across * np.cos(light) + down * np.sin(light)).clip(-1, 1)[..., None]
    paint = (first + (second - first) * marks) * shade
    shadow = Image.fromarray((layer.cover_hw * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(3))
    shadow_hw1 = np.roll(np.asarray(shadow, dtype=np.float32) / 255, (2, 2), (0, 1))[..., None]
    canvas *= 1 - rng.uniform(0.1, 0.5) * shadow_hw1
    canvas += (paint - canvas) * layer.cover_hw[..., None]


def _photograph(rng: np.random.Generator, canvas: Floats) -> NDArray[np.uint8]:
    """Exposure, contrast, colour cast, unsharpness and sensor noise; returns (h, w, 3) uint8."""
    cast = np.exp(rng.normal(0, 0.05, 3)) * np.exp(rng.normal(0, 0.15))
    contrast = rng.uniform(0.7, 1.15)
    exposed = ((canvas * cast - 0.5) * contrast + 0.5).clip(0, 1) ** np.exp(rng.normal(0, 0.15))
    noisy = exposed * 255 + rng.normal(0, rng.uniform(1, 9), canvas.shape)
    photo = Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
    return np.asarray(photo.filter(ImageFilter.GaussianBlur(float(rng.choice([0.0, 0.0, 0.5, 0.9])))))
