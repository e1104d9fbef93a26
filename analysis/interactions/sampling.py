"""Which coalitions of cells are looked at: orders, pairs and contexts, each a function of (seed, image, order).

The players are the cells of a g x g partition of an image, numbered row by row from 0; n = g * g. All draws repeat
those of the published implementation (Nebularaid2000/bottleneck, Westlake-AI/A2MIM), of which its curves are made.
"""

import random
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Cells = npt.NDArray[np.int64]
Masks = npt.NDArray[np.bool_]

RATIOS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)
"""The published orders, as fractions of n - 2."""
NUM_VARIANTS = 4
"""Of a context S and a pair i, j: S+i+j, S+i, S+j, S, in this order."""


def orders_of(num_players: int, ratios: Sequence[float] = RATIOS) -> list[int]:
    """m = floor((n - 2) r) of every ratio r in [0, 1]. A small n repeats some; each counts."""
    return [int((num_players - 2) * ratio) for ratio in ratios]


def neighbours(grid: int, reach: int) -> set[tuple[int, int]]:
    """All pairs (smaller cell, larger cell) that `draw_pairs` can draw: at most `reach` rows and columns apart."""
    cells = [(row, column) for row in range(grid) for column in range(grid)]
    return {
        (row * grid + column, other_row * grid + other_column)
        for row, column in cells
        for other_row, other_column in cells
        if (row, column) < (other_row, other_column)
        and other_row - row <= reach
        and abs(other_column - column) <= reach
    }


def draw_pairs(grid: int, count: int, *, index: int, seed: int, reach: int = 2) -> Cells:
    """Different pairs of near cells of one image.

    i is uniform; j is i moved by a random offset of up to `reach` rows and columns and brought back to the border, so
    near the border small distances are more frequent. i and the offset come from two generators, as published.

    Args:
        grid: g.
        count: how many; no more than `neighbours` has.
        index: of the image, from 0.
        seed: of the analysis.
        reach: largest distance in rows and in columns.

    Returns:
        (count, 2): i and j as drawn.
    """
    if count > len(neighbours(grid, reach)):
        raise ValueError(f"a {grid} x {grid} grid has {len(neighbours(grid, reach))} such pairs, not {count}")
    of_cells = np.random.RandomState(_legal(1000 * index + seed))
    of_offsets = random.Random(1000 * index + seed)
    steps = range(-reach, reach + 1)
    offsets = [(row, column) for row in steps for column in steps if (row, column) != (0, 0)]
    pairs: dict[frozenset[int], tuple[int, int]] = {}
    while len(pairs) < count:
        row, column = int(of_cells.randint(grid)), int(of_cells.randint(grid))
        down, right = of_offsets.choice(offsets)
        other_row, other_column = (min(max(place, 0), grid - 1) for place in (row + down, column + right))
        pair = row * grid + column, other_row * grid + other_column
        if pair[0] != pair[1]:
            pairs.setdefault(frozenset(pair), pair)
    return np.array(list(pairs.values()), dtype=np.int64)


def draw_contexts(pairs: Cells, order: int, count: int, *, num_players: int, index: int, seed: int) -> Cells:
    """Contexts S of a size for every pair: `order` of the other n - 2 cells, drawn without replacement.

    Args:
        pairs: (pairs, 2), of draw_pairs.
        order: m, the size of S.
        count: how many for each pair.
        num_players: n.
        index: of the image, from 0.
        seed: of the analysis.

    Returns:
        (pairs, count, m), cells in the order drawn.
    """
    generator = np.random.RandomState(_legal(1000 * index + order + 1 + seed))  # one stream for all pairs of an image
    drawn = np.empty((len(pairs), count, order), dtype=np.int64)
    for place, pair in enumerate(pairs):
        others = np.setdiff1d(np.arange(num_players), pair)
        for number in range(count):
            drawn[place, number] = generator.choice(others, order, replace=False)
    return drawn


def _legal(seed: int) -> int:
    """numpy's old generator takes seeds of 32 bits."""
    return seed % 2**32


def coalitions(pairs: Cells, contexts: Cells, num_players: int) -> Masks:
    """The cells present in each of the four variants of every context.

    Args:
        pairs: (pairs, 2).
        contexts: (pairs, contexts, m).
        num_players: n.

    Returns:
        (pairs, contexts, 4, n), true where the cell is present.
    """
    num_pairs, count, order = contexts.shape
    masks = np.zeros((num_pairs, count, NUM_VARIANTS, num_players), dtype=np.bool_)
    if order:
        np.put_along_axis(masks, np.repeat(contexts[:, :, None], NUM_VARIANTS, axis=2), True, axis=3)
    for place, (first, second) in enumerate(pairs):
        masks[place, :, (0, 1), first] = True
        masks[place, :, (0, 2), second] = True
    return masks


def all_pairs(num_players: int) -> Cells:
    """Every pair i < j: (n (n - 1) / 2, 2)."""
    return np.array([(i, j) for i in range(num_players) for j in range(i + 1, num_players)], dtype=np.int64)


def all_coalitions(num_players: int) -> Masks:
    """Every subset of the players: (2^n, n); player k is present in row r where bit k of r is 1."""
    rows = np.arange(2**num_players)[:, None]
    return np.asarray((rows >> np.arange(num_players)) & 1 == 1)
