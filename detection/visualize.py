"""Boxes and masks drawn on images: beside the annotations for validation images, alone for any other.

`python -m detection.visualize RUN_DIR [IMAGE ...]` writes PNG files into RUN_DIR/panels.
"""

import colorsys
import dataclasses
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import tyro
from PIL import Image, ImageDraw, ImageFont

from detection.coco import CocoSplit, read_split
from detection.finished import load_detector, read_run
from detection.frameworks.contract import Result
from detection.samples import decode_mask
from engine.cli import guard
from engine.data.images import ImageArray, read_image
from engine.errors import CheckpointError, ConfigError

SCORE_SHOWN = 0.5
"""Detections below this score are not drawn, except for an image's surest three."""
_ALWAYS_SHOWN = 3
_SMALLEST_WIDTH_PX = 480  # of a drawing: smaller images are enlarged, so that names can be read
_MASK_OPACITY = 0.45
_FONT_SHARE = 32  # widths of a letter in the width of a drawing: pages show drawings a few hundred pixels wide
Rectangle = tuple[float, float, float, float]


def draw(image: ImageArray, objects: Sequence[Result], names: dict[int, str]) -> Image.Image:
    """An image with boxes, masks, names and scores on it.

    Args:
        image: RGB, uint8 (h, w, 3).
        objects: detections or annotations: category_id, bbox [x, y, width, height], and if there are any, segmentation
            and score. They are drawn in this order, the last on top.
        names: of the categories by id.
    """
    scale = max(1, -(-_SMALLEST_WIDTH_PX // image.shape[1]))
    colours = {number: _colour(place) for place, number in enumerate(sorted(names))}
    canvas = image.astype(np.float32)
    for thing in objects:
        if thing.get("segmentation"):
            mask = decode_mask(thing["segmentation"], *image.shape[:2]).astype(bool)
            canvas[mask] += _MASK_OPACITY * (np.array(colours[thing["category_id"]]) - canvas[mask])
    enlarged = canvas.round().astype(np.uint8).repeat(scale, axis=0).repeat(scale, axis=1)
    drawing = Image.fromarray(enlarged)
    pen = ImageDraw.Draw(drawing)
    boxes = [tuple(scale * value for value in thing["bbox"]) for thing in objects]
    for thing, (x, y, width, height) in zip(objects, boxes, strict=True):
        pen.rectangle((x, y, x + width, y + height), outline=colours[thing["category_id"]], width=2)
    taken: list[Rectangle] = []
    font = ImageFont.load_default(_font_px(drawing))
    for thing, (x, y, _, _) in reversed(list(zip(objects, boxes, strict=True))):
        score = f" {thing['score']:.2f}" if "score" in thing else " (crowd)" if thing.get("iscrowd") else ""
        text = names[thing["category_id"]] + score
        taken.append(_label(pen, text, (x + 2, y + 1), colours[thing["category_id"]], taken, font))
    return drawing


def _font_px(drawing: Image.Image) -> int:
    return max(15, drawing.width // _FONT_SHARE)


def _label(
    pen: ImageDraw.ImageDraw,
    text: str,
    corner: tuple[float, float],
    colour: tuple[int, int, int],
    taken: Sequence[Rectangle],
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> Rectangle:
    """Write `text` at a corner, or as far below it as keeps off the rectangles of other labels; returns its own."""
    while True:
        place = pen.textbbox(corner, text, font=font)
        hit = [other for other in taken if _overlap(place, other)]
        if not hit:
            break
        corner = (corner[0], corner[1] + max(other[3] for other in hit) - place[1] + 1)
    pen.rectangle(place, fill=colour)
    pen.text(corner, text, font=font, fill=(0, 0, 0))
    return place


def _overlap(one: Rectangle, other: Rectangle) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _colour(place: int) -> tuple[int, int, int]:
    """A bright colour; neighbours in the list are far apart on the circle."""
    red, green, blue = colorsys.hsv_to_rgb(place * 0.618034 % 1, 0.75, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


def side_by_side(left: Image.Image, right: Image.Image) -> Image.Image:
    """Two drawings of one size, headed as annotated and as detected with what is drawn of it, a white line between."""
    size = _font_px(left)
    joined = Image.new("RGB", (left.width + right.width + 8, left.height + size + 6), "white")
    pen = ImageDraw.Draw(joined)
    headings = "annotated", f"detected: scores from {SCORE_SHOWN:g} on, and the surest {_ALWAYS_SHOWN}"
    for x, heading, drawing in ((0, headings[0], left), (left.width + 8, headings[1], right)):
        length = pen.textlength(heading, font=ImageFont.load_default(size))
        fitting = size * min(1.0, (drawing.width - 4) / length)
        pen.text((x + 2, 1), heading, font=ImageFont.load_default(fitting), fill=(0, 0, 0))
        joined.paste(drawing, (x, size + 6))
    return joined


def save_panels(folder: Path, split: CocoSplit, results: Sequence[Result], num_panels: int) -> list[Path]:
    """Draw annotations (left) and detections (right) of a few images with objects, spread over the split.

    Args:
        folder: where `<image_id>.png` go.
        split: evaluated images and their annotations.
        results: detections, with category_id.
        num_panels: how many.
    """
    document, root = split.ground_truth(), split.index.root
    names = {entry["id"]: entry["name"] for entry in document["categories"]}
    with_objects = {entry["image_id"] for entry in document["annotations"]}
    images = [image for image in document["images"] if image["id"] in with_objects]
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(min(num_panels, len(images))):
        image = images[number * len(images) // num_panels]
        array = read_image(root / image["file_name"], split.index.options)
        truth = [entry for entry in document["annotations"] if entry["image_id"] == image["id"]]
        found = shown(result for result in results if result["image_id"] == image["id"])
        paths.append(folder / f"{image['id']:012d}.png")
        side_by_side(draw(array, truth, names), draw(array, found, names)).save(paths[-1])
    return paths


def shown(results: Iterable[Result]) -> list[Result]:
    """What is drawn of an image's detections, the surest last: those from SCORE_SHOWN on, and the surest three."""
    by_score = sorted(results, key=lambda result: float(result["score"]), reverse=True)
    drawn = [result for place, result in enumerate(by_score) if place < _ALWAYS_SHOWN or result["score"] >= SCORE_SHOWN]
    return drawn[::-1]


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Draw what a finished run detects."""

    run_dir: tyro.conf.Positional[Path]
    """Folder of a finished detection run."""
    images: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Image files to run the detector on; without any, validation images are drawn from the run's predictions."""


def draw_files(run_dir: Path, files: Sequence[Path]) -> list[Path]:
    """Run a finished run's detector on image files and draw what it finds; returns the PNG files."""
    detector = load_detector(run_dir)
    (run_dir / "panels").mkdir(exist_ok=True)
    paths = []
    for file in files:
        array = read_image(file, detector.config.data)
        paths.append(run_dir / "panels" / f"{file.stem}.png")
        draw(array, shown(detector.detect(array)), detector.names).save(paths[-1])
    return paths


def draw_validation(run_dir: Path) -> list[Path]:
    """Draw a few validation images from the predictions a finished run has written; returns the PNG files."""
    config, path = read_run(run_dir)[0], run_dir / "predictions.json"
    if not path.is_file():
        raise ConfigError(f"{run_dir} holds no predictions.json: the run is not finished")
    val = read_split(config.data, "val", training=False, masks=config.has_masks)
    try:
        results = [dict(result) for result in json.loads(path.read_bytes())]
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{path}: not the detections that a run writes ({error})") from error
    return save_panels(run_dir / "panels", val, results, max(config.num_panels, 1))


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, draw, and print the files written."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    with guard("--debug" in arguments):
        given = [argument for argument in arguments if argument != "--debug"]
        options = tyro.cli(Arguments, args=given, prog="python -m detection.visualize")
        run_dir, images = options.run_dir, options.images
        for path in draw_files(run_dir, images) if images else draw_validation(run_dir):
            print(path)


if __name__ == "__main__":
    main()
