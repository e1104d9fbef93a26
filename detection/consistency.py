"""Whether box, area and outline of an object fit its image and each other; alone, and over all objects of a file.

A box of half a pixel may be one; when a tenth of all boxes are, the file has other units.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from detection.outlines import OVERSHOOT_PX, Outline
from detection.values import shown

_SHARE_OF_A_FAULT = 0.1
"""From this share of all objects on, what would merely be odd in one of them is a fault of the whole file."""
_SHARE_OF_DISAGREEMENT = 0.5
Entry = dict[str, Any]
Mask = npt.NDArray[np.bool_]


def box_problem(box: Sequence[float], record: Entry) -> str | None:
    """What is wrong with a box [x, y, width, height], apart from having no area."""
    x, y, width, height = box
    if width < 0 or height < 0:
        return f"its box {box} has a negative side: write [x, y, width, height]"
    over = max(-x, -y, x + width - record["width"], y + height - record["height"])
    if over > OVERSHOOT_PX:
        corners = width > x >= 0 and height > y >= 0 and width <= record["width"] and height <= record["height"]
        return (
            f"its box {box} lies outside the {record['width']}x{record['height']} image: write [x, y, width, height] "
            f"in pixels of the image file{' (are these two corners, x1, y1, x2, y2?)' * corners}"
        )
    return None


def area_problem(entry: Entry, record: Entry) -> str | None:
    """What is wrong with an area in pixels."""
    most = (record["width"] + OVERSHOOT_PX) * (record["height"] + OVERSHOOT_PX)
    if entry.get("area", 0) <= most:
        return None
    size = f"{record['width']}x{record['height']}"
    return f"its area {entry['area']} is larger than its {size} image: give it in pixels of the image file"


def outline_problem(outline: Outline, evaluated: bool) -> str | None:
    """What is wrong with an outline, if anything. Polygons of fewer than three points are left out of training, but
    COCO's evaluation takes the form of the first one for that of all."""
    value = outline.value
    if outline.problem:
        return outline.problem
    if evaluated and isinstance(value, list) and not (value and len(value[0]) >= 6):
        return (
            "its outline (segmentation) begins with no polygon of three points or more, and COCO's evaluation cannot "
            f"read it: {shown(value)}; draw it again, or remove the annotation"
        )
    return None


def faults_of_all(entries: Sequence[Entry], outlines: Sequence[Outline | None]) -> list[str]:
    """What no single annotation shows: units other than pixels, boxes or outlines in another convention.

    Args:
        entries: annotations, each sound by itself.
        outlines: of each; None without masks.
    """
    boxes = np.array([entry["bbox"] for entry in entries], dtype=np.float64).reshape(-1, 4)
    areas = np.array([entry.get("area", np.inf) for entry in entries], dtype=np.float64)
    extents = np.array([(outline and outline.extent) or (np.nan,) * 4 for outline in outlines]).reshape(-1, 4)
    objects: Mask = np.all(boxes[:, 2:] > 0, axis=1)
    drawn: Mask = np.all(np.isfinite(extents), axis=1)
    small = (areas < 1) & (areas < 0.01 * boxes[:, 2:].prod(1))
    found = [
        _complaint(
            entries, objects & np.all(boxes <= 1, axis=1), objects, "bbox",
            "within one pixel, as if from 0 to 1: write boxes as [x, y, width, height] in pixels of the image file",
        ),
        _complaint(
            entries, objects & small, objects, "area",
            "below one pixel, with larger boxes: give areas in pixels, or leave them out to have them measured",
        ),
        _complaint(
            entries, drawn & np.all(extents <= 1, axis=1), drawn, "segmentation",
            "within one pixel, as if from 0 to 1: write points as x, y in pixels of the image file",
        ),
    ]  # fmt: skip
    if not any(found):
        with np.errstate(invalid="ignore"):
            differing = objects & drawn & (_agreement(boxes, extents) < 0.5)
        found.append(
            _complaint(
                entries, differing, objects & drawn, "bbox",
                "elsewhere than the outlines of the same objects: boxes are [x, y, width, height], polygons x, y, "
                "x, y, ... and run lengths go down the columns; one of them has another convention",
                _SHARE_OF_DISAGREEMENT,
            )
        )  # fmt: skip
    return [complaint for complaint in found if complaint]


def _complaint(
    entries: Sequence[Entry],
    odd: Mask,
    of: Mask,
    field: str,
    text: str,
    share: float = _SHARE_OF_A_FAULT,
) -> str | None:
    if odd.sum() <= share * max(int(of.sum()), 1):
        return None
    entry = entries[int(np.flatnonzero(odd)[0])]
    return (
        f"{int(odd.sum()):,} of {int(of.sum()):,} objects have their {field} {text} (image {entry['image_id']}, "
        f"annotation {entry['id']}: {field} {shown(entry.get(field))})"
    )


def _agreement(boxes: npt.NDArray[np.float64], extents: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Intersection over union, 0 to 1, of boxes [x, y, width, height] and the extents of their outlines: (number,)."""
    left_top, right_bottom = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    sides = np.minimum(right_bottom, extents[:, 2:]) - np.maximum(left_top, extents[:, :2])
    both = np.clip(sides, 0, None).prod(1)
    either = boxes[:, 2:].prod(1) + (extents[:, 2:] - extents[:, :2]).prod(1) - both
    shares: npt.NDArray[np.float64] = np.divide(both, either, out=np.ones_like(both), where=either > 0)
    return shares
