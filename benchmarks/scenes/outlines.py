"""Exact polygons of a binary mask, as COCO annotations want them. Shapes: h w pixels, p polygon corners."""

import itertools

import numpy as np
from numpy.typing import NDArray


def outline_polygons(mask_hw: NDArray[np.bool_]) -> list[list[float]]:
    """Polygons [x0, y0, x1, y1, ...] along the pixel edges of a mask; their union, filled, is exactly the mask.

    COCO joins the polygons of an object, so a hole cannot be given as a polygon of its own: a region around a hole is
    cut through the hole into two parts without one. An empty mask gives no polygon.
    """
    loops = _edge_loops(mask_hw)
    holes = [loop for loop in loops if _signed_area(loop) < 0]
    if not holes:
        return [[float(value) for corner in loop for value in corner] for loop in loops]
    columns = [x for x, _ in holes[0]]
    cut = (min(columns) + max(columns)) // 2
    left, right = mask_hw.copy(), mask_hw.copy()
    left[:, cut:] = False
    right[:, :cut] = False
    return outline_polygons(left) + outline_polygons(right)


def _edge_loops(mask_hw: NDArray[np.bool_]) -> list[list[tuple[int, int]]]:
    """Closed walks along the pixel edges, as lists of corners (x, y); outer edges have positive area, holes negative.

    A grid point is a corner if an odd number of its four pixels is set; it is two corners if two opposite ones are.
    In reading order the corners of a row bound its horizontal edges in pairs, those of a column its vertical edges, so
    walking the two pairings in turn closes every loop.
    """
    padded = np.pad(mask_hw, 1).astype(np.int8)
    upper_left, upper_right = padded[:-1, :-1], padded[:-1, 1:]
    lower_left, lower_right = padded[1:, :-1], padded[1:, 1:]
    odd = (upper_left + upper_right + lower_left + lower_right) % 2
    crossing = (upper_left == lower_right) & (upper_right == lower_left) & (upper_left != upper_right)
    y, x = np.nonzero(odd | crossing)
    repeats = np.where(crossing[y, x], 2, 1)
    y, x = np.repeat(y, repeats), np.repeat(x, repeats)
    along_row, along_column = _partners(np.lexsort((x, y))), _partners(np.lexsort((y, x)))
    # Start each loop going right along an edge with the mask below it: outer edges then come out positive.
    goes_right = lower_right[y, x].astype(bool) & (x[along_row] > x)
    loops, seen = [], np.zeros(len(x), dtype=bool)
    for start in np.nonzero(goes_right & ~upper_right[y, x].astype(bool))[0]:
        if seen[start]:
            continue
        corner, loop = int(start), []
        while not seen[corner]:
            other = int(along_row[corner])
            seen[corner] = seen[other] = True
            loop += [(int(x[corner]), int(y[corner])), (int(x[other]), int(y[other]))]
            corner = int(along_column[other])
        loops.append(loop)
    return loops


def _partners(order: NDArray[np.intp]) -> NDArray[np.intp]:
    partners = np.empty_like(order)
    partners[order[0::2]], partners[order[1::2]] = order[1::2], order[0::2]
    return partners


def _signed_area(loop: list[tuple[int, int]]) -> float:
    points = np.array(loop, dtype=np.int64)
    following = np.roll(points, -1, axis=0)
    return float((points[:, 0] * following[:, 1] - following[:, 0] * points[:, 1]).sum()) / 2


def run_lengths(mask_hw: NDArray[np.bool_]) -> list[int]:
    """Uncompressed COCO run lengths: pixels column by column, the first count is of unset ones (it may be 0)."""
    flat = mask_hw.T.ravel()
    changes = np.nonzero(np.diff(flat))[0] + 1
    bounds = [0, *(int(change) for change in changes), flat.size]
    counts = [stop - start for start, stop in itertools.pairwise(bounds)]
    return [0, *counts] if flat.size and flat[0] else counts
