import numpy as np
import pytest
from pycocotools import mask as coco_mask

from benchmarks.scenes.outlines import outline_polygons, run_lengths

PICTURES = {
    "one pixel": ["#"],
    "full": ["###", "###"],
    "two parts": ["#.#", "#.#"],
    "hole": ["####", "#..#", "#.##", "####"],
    "two holes": ["#####", "#.#.#", "#####"],
    "hole of one pixel at the left": ["###", "#.#", "###"],
    "ring in a ring": ["#######", "#.....#", "#.###.#", "#.#.#.#", "#.###.#", "#.....#", "#######"],
    "touching at a corner": ["##..", "##..", "..##", "..##"],
    "touching at the other corner": ["..##", "..##", "##..", "##.."],
    "chain around a hole": [".#.", "#.#", ".#."],
    "empty": ["...", "..."],
}


def as_mask(rows):
    return np.array([[pixel == "#" for pixel in row] for row in rows])


def filled(polygons, shape):
    if not polygons:
        return np.zeros(shape, dtype=bool)
    return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(polygons, *shape))).astype(bool)


@pytest.mark.parametrize("rows", PICTURES.values(), ids=PICTURES)
def test_filling_the_polygons_gives_the_mask_back(rows):
    mask = as_mask(rows)
    np.testing.assert_array_equal(filled(outline_polygons(mask), mask.shape), mask)


def test_filling_the_polygons_of_random_masks_gives_them_back():
    rng = np.random.default_rng(0)
    for _ in range(60):
        mask = rng.random((int(rng.integers(1, 14)), int(rng.integers(1, 14)))) < rng.choice([0.3, 0.5, 0.8])
        np.testing.assert_array_equal(filled(outline_polygons(mask), mask.shape), mask)


def test_a_rectangle_needs_four_corners():
    mask = np.zeros((20, 30), dtype=bool)
    mask[3:8, 5:25] = True
    (polygon,) = outline_polygons(mask)
    assert sorted(zip(polygon[::2], polygon[1::2], strict=True)) == [(5, 3), (5, 8), (25, 3), (25, 8)]


@pytest.mark.parametrize("rows", PICTURES.values(), ids=PICTURES)
def test_run_lengths_are_those_pycocotools_reads(rows):
    mask = as_mask(rows)
    encoded = coco_mask.frPyObjects({"counts": run_lengths(mask), "size": list(mask.shape)}, *mask.shape)
    np.testing.assert_array_equal(coco_mask.decode(encoded).astype(bool), mask)
