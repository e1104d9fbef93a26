"""The outline (segmentation) of an object: polygons or run lengths, checked value by value before anything draws them.

COCO's tools draw whatever they are given: a coordinate of 2e8 or not-a-number ends the process, run lengths that do not
fill the image give masks of noise.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as run_lengths

from detection.values import numbers, shown, whole_number

OVERSHOOT_PX = 2.0
"""How far a box may reach over the edge of its image before it counts as outside: COCO's own are rounded."""
_OVERSHOOT_SHARE = 0.05
"""How far an outline may, of its image's side, if that is more: tools let a point be dragged over the edge."""
_NUM_TOGETHER = 20_000
_POLYGON_FORM = (
    "COCO's polygons are flat lists of at least three points, [[x1, y1, x2, y2, x3, y3, ...], ...], in pixels"
)
_RUNS_FORM = (
    "COCO's run lengths are {size: [height, width], counts: ...} with counts by columns, as a list of numbers or as "
    "pycocotools' text"
)


@dataclass(frozen=True)
class Outline:
    """What one segmentation means, or what is wrong with it.

    Args:
        value: polygons or run lengths in COCO's form.
        problem: the sentence to print; the value is then of no use.
        as_meant: whether the file has it in another form.
        extent: left, top, right, bottom in pixels; None for an outline without area or points.
    """

    value: Any = None
    problem: str = ""
    as_meant: bool = False
    extent: tuple[float, float, float, float] | None = None


def look_at_outlines(outlines: Sequence[Any], heights: Sequence[int], widths: Sequence[int]) -> list[Outline]:
    """Check many segmentations; polygons in COCO's own form are looked at together, so that a million take seconds.

    Args:
        outlines: segmentations as in the file.
        heights, widths: of their images, in pixels.
    """
    extents = np.full((len(outlines), 4), np.nan)
    for first in range(0, len(outlines), _NUM_TOGETHER):
        part = range(first, min(first + _NUM_TOGETHER, len(outlines)))
        # A list of lists of numbers is looked at further; a string is a sequence too, hence the exact types.
        places = [i for i in part if type(outlines[i]) is list and outlines[i] and _flat(outlines[i])]
        if places:
            _plain(outlines, places, np.array([(widths[i], heights[i]) for i in places], dtype=float), extents)
    return [
        Outline(value, extent=extent) if extent[0] == extent[0] else read_outline(value, height, width)
        for value, extent, height, width in zip(outlines, map(tuple, extents.tolist()), heights, widths, strict=True)
    ]


def _flat(outline: list[Any]) -> bool:
    return all(type(polygon) is list and len(polygon) >= 6 and len(polygon) % 2 == 0 for polygon in outline)


def _plain(
    outlines: Sequence[Any], places: list[int], sides: npt.NDArray[np.float64], extents: npt.NDArray[np.float64]
) -> None:
    """Fill the extents of the outlines at `places`, whose polygons have an even number of values each."""
    polygons = list(chain.from_iterable(outlines[i] for i in places))
    values = list(chain.from_iterable(polygons))
    if not set(map(type, values)) <= {int, float}:
        if len(places) > 1:  # find the odd ones
            half = len(places) // 2
            _plain(outlines, places[:half], sides[:half], extents)
            _plain(outlines, places[half:], sides[half:], extents)
        return
    try:
        points = np.array(values, dtype=np.float64).reshape(-1, 2)
    except OverflowError:  # a whole number of hundreds of digits
        return
    polygon_starts = np.cumsum([0, *(len(polygon) // 2 for polygon in polygons[:-1])])
    starts = polygon_starts[np.cumsum([0, *(len(outlines[i]) for i in places[:-1])])]
    low, high = np.minimum.reduceat(points, starts), np.maximum.reduceat(points, starts)
    over = np.maximum(OVERSHOOT_PX, _OVERSHOOT_SHARE * sides)
    with np.errstate(invalid="ignore"):
        good = ((low >= -over) & (high <= sides + over)).all(1)  # not-a-number is neither
    for place, left_top, right_bottom in zip(np.array(places)[good], low[good], high[good], strict=True):
        extents[place] = (*left_top, *right_bottom)


def read_outline(value: Any, height: int, width: int) -> Outline:
    """One segmentation of an image of this size, in any form."""
    if isinstance(value, dict):
        return _read_runs(value, height, width)
    if not isinstance(value, list):
        return Outline(
            problem=f"it has no outline (segmentation) that can be drawn, but {shown(value)}. {_POLYGON_FORM}"
        )
    if value and all(isinstance(point, list) and len(point) == 2 for point in value) and len(value) > 2:
        value, as_meant = [value], True  # one polygon as a list of points
    else:
        as_meant = False
    polygons: list[list[float]] = []
    for polygon in value:
        read, changed = _read_polygon(polygon)
        if read is None:
            return Outline(
                problem=f"it has no outline (segmentation) that can be drawn: {_fault(polygon)}. {_POLYGON_FORM}"
            )
        polygons.append(read)
        as_meant |= changed
    return _within(polygons, height, width, as_meant)


def _read_polygon(polygon: Any) -> tuple[list[float] | None, bool]:
    """(x1, y1, x2, y2, ..., whether the file has another form); None for no polygon."""
    if not isinstance(polygon, list):
        return None, False
    flat = polygon
    if polygon and all(isinstance(point, list) and len(point) == 2 for point in polygon):
        flat = list(chain.from_iterable(polygon))
    read = numbers(flat)
    if read is None or len(read) % 2:
        return None, False
    return read, flat is not polygon or any(isinstance(value, str) for value in flat)


def _fault(polygon: Any) -> str:
    """What is wrong with something that is no polygon."""
    if not isinstance(polygon, list):
        return f"{shown(polygon)} is no list"
    values = list(chain.from_iterable(point if isinstance(point, list) else [point] for point in polygon))
    odd = [value for value in values if numbers([value]) is None]
    if odd:
        return f"{shown(odd[0])} is no finite number"
    return f"{shown(polygon)} has {len(values)} values, not pairs of x and y"


def _within(polygons: list[list[float]], height: int, width: int, as_meant: bool) -> Outline:
    xs = [x for polygon in polygons for x in polygon[0::2]]
    ys = [y for polygon in polygons for y in polygon[1::2]]
    if not xs:
        return Outline(polygons, as_meant=as_meant)
    for values, side in ((xs, width), (ys, height)):
        over = max(OVERSHOOT_PX, _OVERSHOOT_SHARE * side)
        far = [value for value in values if not -over <= value <= side + over]
        if far:
            return Outline(
                problem=f"its outline (segmentation) has a point at {far[0]!r}, outside the {width}x{height} image: "
                "give points in pixels of the image file"
            )
    return Outline(polygons, as_meant=as_meant, extent=(min(xs), min(ys), max(xs), max(ys)))


def _read_runs(value: dict[str, Any], height: int, width: int) -> Outline:
    """Run lengths: {size, counts}."""
    if not {"counts", "size"} <= value.keys():
        return Outline(problem=f"it has no outline (segmentation) that can be drawn, but {shown(value)}. {_RUNS_FORM}")
    size = [whole_number(side) for side in value["size"]] if isinstance(value["size"], list) else value["size"]
    if size != [height, width]:
        return Outline(
            problem=f"its mask has size {shown(value['size'])}, its image [{height}, {width}] ([height, width]): write "
            "the mask at the size of the image"
        )
    counts = value["counts"]
    runs = _runs_of_text(counts) if isinstance(counts, str) else _runs_of_list(counts)
    if runs is None:
        return Outline(problem=f"the counts of its mask are {shown(counts)}, no run lengths. {_RUNS_FORM}")
    total = sum(runs)
    if total != height * width:
        return Outline(
            problem=f"the run lengths (counts) of its mask add up to {total:,} pixels, its image has "
            f"{height * width:,} ({height} x {width}): write the run lengths anew. {_RUNS_FORM}"
        )
    read = {"size": [height, width], "counts": counts if isinstance(counts, str) else runs}
    coded = read if isinstance(counts, str) else run_lengths.frPyObjects(read, height, width)
    left, top, w, h = (float(side) for side in run_lengths.toBbox(coded))
    extent = (left, top, left + w, top + h) if w > 0 and h > 0 else None
    return Outline(read, as_meant=read != value, extent=extent)


def _runs_of_list(counts: Any) -> list[int] | None:
    if not isinstance(counts, list):
        return None
    runs = [whole_number(count) for count in counts]
    if any(run is None or not 0 <= run < 2**32 for run in runs):
        return None
    return [run for run in runs if run is not None]


def _runs_of_text(text: str) -> list[int] | None:
    """Decode pycocotools' text: 6 bits a character from "0" on, 5 of them value, differences to two runs before."""
    codes = np.frombuffer(text.encode("utf-8", "replace"), dtype=np.uint8).astype(np.int64) - ord("0")
    if codes.size == 0 or codes.min() < 0 or codes.max() > 63 or codes[-1] & 32:
        return None
    ends = np.flatnonzero(codes & 32 == 0)
    starts = np.r_[0, ends[:-1] + 1]
    lengths = ends - starts + 1
    if lengths.max() > 7:  # beyond 32 bits
        return None
    shifts = 5 * (np.arange(codes.size) - np.repeat(starts, lengths))
    values = np.add.reduceat((codes & 31) << shifts, starts)
    values -= np.where(codes[ends] & 16, 1 << (5 * lengths), 0)  # the sign
    runs = values.copy()
    runs[1::2] = np.cumsum(values[1::2])
    runs[2::2] = np.cumsum(values[2::2])
    return None if runs.min() < 0 else [int(run) for run in runs]


def area_of(outline: Any, height: int, width: int) -> float:
    """Pixels inside an outline of COCO's form."""
    if isinstance(outline, dict) and isinstance(outline["counts"], str):
        return float(run_lengths.area(outline))
    coded = run_lengths.frPyObjects(outline, height, width)
    return float(run_lengths.area(run_lengths.merge(coded) if isinstance(coded, list) else coded))
