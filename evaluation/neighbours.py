"""The nearest neighbours of queries in a bank: by cosine, exact, in bounded memory, the same on every machine.

Q queries, N rows of the bank, D numbers of a feature, K neighbours.

A float32 product finds candidates. What decides is a float64 sum over each candidate's D products, in one order for
every row: equal rows score equal, and of equal scores the earlier row of the bank is nearer. Where candidates may be
missing (many rows within the rounding of the product), they are found again by a float64 product; and where that does
not tell either, since many rows are equal, the query is compared with the whole bank.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

_SPARE = 56  # candidates beyond K
_PASSES = ((torch.float32, 1e-5), (torch.float64, 1e-12))
"""Types of the product, and its rounding for unit vectors, generously."""
_FLOATS_AT_ONCE = 1 << 26  # 256 MB of float32


def nearest(
    bank_nd: npt.NDArray[Any], queries_qd: npt.NDArray[Any], num: int, device: torch.device
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Cosine similarities and places in the bank of each query's `num` nearest rows, nearest first: (Q, K) each.

    The bank is read a part at a time, and may be mapped from a file. Features are normalised in float32; one of length
    0 has similarity 0 to everything. Fewer rows than `num`: all of them.
    """
    num = min(num, len(bank_nd))
    queries = normalised(queries_qd, device)
    scores = torch.zeros((len(queries), num), dtype=torch.float64, device=device)
    places = torch.zeros((len(queries), num), dtype=torch.int64, device=device)
    unsure = torch.arange(len(queries), device=device)
    for dtype, rounding in _PASSES:
        if len(unsure):
            scores[unsure], places[unsure], again = _search(bank_nd, queries[unsure], num, dtype, rounding)
            unsure = unsure[again]
    for query in unsure.tolist():
        scores[query], places[query] = _whole(bank_nd, queries[query], num, device)
    return scores.cpu().numpy(), places.cpu().numpy()


def _search(
    bank_nd: npt.NDArray[Any], queries_qd: Tensor, num: int, dtype: torch.dtype, rounding: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Similarities and places (Q, K), and of which queries a nearer row may have been missed (Q,)."""
    width, device = queries_qd.shape[1], queries_qd.device
    keep = min(num + _SPARE, len(bank_nd))
    scores = torch.full((len(queries_qd), keep), -torch.inf, dtype=torch.float64, device=device)
    places = torch.zeros((len(queries_qd), keep), dtype=torch.int64, device=device)
    left_out = torch.full((len(queries_qd),), -torch.inf, dtype=torch.float64, device=device)
    for first, part in bank_parts(bank_nd, device):
        step = max(1, min(1024, _FLOATS_AT_ONCE // max(len(part), keep * width)))
        columns = part.to(dtype).T
        for start in range(0, len(queries_qd), step):
            rows = slice(start, start + step)
            rough, found = (queries_qd[rows].to(dtype) @ columns).topk(min(keep, len(part)), dim=1)
            if len(part) > keep:
                left_out[rows] = torch.maximum(left_out[rows], rough[:, -1].double())
            exact = _dot(queries_qd[rows, None], part[found])
            merged = torch.cat([scores[rows], exact], dim=1), torch.cat([places[rows], found + first], dim=1)
            scores[rows], places[rows] = _best(*merged, keep)
    return scores[:, :num], places[:, :num], left_out >= scores[:, num - 1] - rounding


def normalised(rows_nd: npt.NDArray[Any], device: torch.device) -> Tensor:
    """Rows of length 1, float32, on a device."""
    return F.normalize(torch.from_numpy(np.array(rows_nd, dtype=np.float32)).to(device), dim=1)


def bank_parts(bank_nd: npt.NDArray[Any], device: torch.device) -> Iterator[tuple[int, Tensor]]:
    """(place of its first row, normalised rows) of each part of a bank."""
    step = max(1, _FLOATS_AT_ONCE // bank_nd.shape[1])
    for first in range(0, len(bank_nd), step):
        yield first, normalised(bank_nd[first : first + step], device)


def _dot(one: Tensor, other: Tensor) -> Tensor:
    """Sums of products over the last axis in float64: the same for the same rows, wherever they stand."""
    return (one.double() * other.double()).sum(-1)


def _best(scores: Tensor, places: Tensor, num: int) -> tuple[Tensor, Tensor]:
    """The best by (score, earlier place), in order."""
    by_place = places.argsort(dim=1, stable=True)
    scores, places = scores.gather(1, by_place), places.gather(1, by_place)
    order = scores.argsort(dim=1, descending=True, stable=True)[:, :num]
    return scores.gather(1, order), places.gather(1, order)


def _whole(bank_nd: npt.NDArray[Any], query_d: Tensor, num: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """One query against every row, exactly."""
    scores = torch.cat([_dot(query_d, part) for _, part in bank_parts(bank_nd, device)])
    order = scores.argsort(descending=True, stable=True)[:num]
    return scores[order], order
