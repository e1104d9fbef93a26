"""The nearest patches of a bank, and what they say of each pixel.

Q queries, N rows of the bank, D numbers of a feature, K neighbours, C classes, U pixels of a patch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from evaluation.dense.config import Similarity

_BANK_FLOATS = 1 << 25  # 128 MB of float32 at once
_PRODUCTS = 1 << 26  # similarities at once
_VOTES = 1 << 26  # counts at once


@dataclass(frozen=True)
class Rows:
    """Some rows of a table that may be mapped from a file: a part is copied when it is asked for.

    Args:
        values: the table (M, D).
        places: of the N rows.
    """

    values: npt.NDArray[Any]
    places: npt.NDArray[np.int64]

    @classmethod
    def all(cls, values: npt.NDArray[Any]) -> "Rows":
        """Every row."""
        return cls(values, np.arange(len(values)))

    @property
    def width(self) -> int:
        """D."""
        return int(self.values.shape[1])

    def of(self, rows: npt.NDArray[np.int64]) -> "Rows":
        """Some of these rows."""
        return Rows(self.values, self.places[rows])

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, rows: slice | npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        return np.asarray(self.values[self.places[rows]])


@dataclass(frozen=True)
class Scaling:
    """Mean and standard deviation of each of D numbers over the training patches, float32."""

    mean_d: Tensor
    std_d: Tensor

    def __call__(self, rows_nd: npt.NDArray[Any], similarity: Similarity) -> Tensor:
        """Standardised rows, of length 1 for cosine."""
        rows = (torch.from_numpy(np.array(rows_nd, dtype=np.float32)).to(self.mean_d.device) - self.mean_d) / self.std_d
        return F.normalize(rows, dim=1) if similarity == "cosine" else rows


def scaling_of(bank_nd: Rows, device: torch.device) -> Scaling:
    """Over all rows, in float64; a number that never changes is left as it is."""
    total, squares = (torch.zeros(bank_nd.width, dtype=torch.float64, device=device) for _ in range(2))
    for rows in _parts(bank_nd):
        part = torch.from_numpy(np.array(rows, dtype=np.float32)).to(device).double()
        total += part.sum(0)
        squares += (part**2).sum(0)
    mean = total / len(bank_nd)
    std = (squares / len(bank_nd) - mean**2).clamp(min=0).sqrt()
    std = torch.where(std < 1e-6 * mean.abs().clamp(min=1e-6), torch.ones_like(std), std)
    return Scaling(mean.float(), std.float())


def _parts(bank_nd: Rows) -> Iterator[npt.NDArray[Any]]:
    step = max(1, _BANK_FLOATS // bank_nd.width)
    for first in range(0, len(bank_nd), step):
        yield bank_nd[first : first + step]


@torch.no_grad()
def nearest_patches(
    bank_nd: Rows,
    queries_qd: Rows,
    num: int,
    scaling: Scaling,
    similarity: Similarity,
) -> Tensor:
    """Places in the bank of each query's nearest rows, nearest first, int64 (Q, K) on the CPU.

    Bank and queries may be mapped from files: the bank is read once, a part at a time, and of the queries as many at
    once as keep the similarities below 256 MB. float32; of equal similarities the earlier row of the bank.
    """
    num = min(num, len(bank_nd))
    scores = torch.full((len(queries_qd), num), -torch.inf)
    places = torch.zeros((len(queries_qd), num), dtype=torch.int64)
    first = 0
    for rows in _parts(bank_nd):
        part = scaling(rows, similarity)
        half_squares = 0.5 * (part**2).sum(1)
        step = max(1, _PRODUCTS // len(part))
        for start in range(0, len(queries_qd), step):
            chunk = slice(start, start + step)
            product = scaling(queries_qd[chunk], similarity) @ part.T
            if similarity == "l2":  # the same order as -|q - b|^2
                product -= half_squares
            found, where = product.topk(min(num, len(part)), dim=1)
            all_scores = torch.cat([scores[chunk].to(found.device), found], dim=1)
            all_places = torch.cat([places[chunk].to(found.device), where + first], dim=1)
            order = _order(all_scores, all_places)[:, :num]
            scores[chunk] = all_scores.gather(1, order).cpu()
            places[chunk] = all_places.gather(1, order).cpu()
        first += len(part)
    return places


def _order(scores: Tensor, places: Tensor) -> Tensor:
    """By (score, earlier place)."""
    by_place = places.argsort(dim=1, stable=True)
    return by_place.gather(1, scores.gather(1, by_place).argsort(dim=1, descending=True, stable=True))


@torch.no_grad()
def vote(
    places_qk: Tensor, labels_nu: Rows, ks: Sequence[int], num_classes: int, device: torch.device
) -> dict[int, npt.NDArray[np.uint8]]:
    """{k: labels (Q, U)}: at each place in a patch the most frequent label of the k nearest ones.

    255 does not vote, and is the answer where no neighbour has a label; of equally frequent labels the first.

    Args:
        places_qk: of nearest_patches.
        labels_nu: of every pixel of the patches of the bank; may be mapped from a file.
        ks: none above K is told apart from K.
        num_classes: C.
        device: where votes are counted.
    """
    num_pixels = labels_nu.width
    answers = {k: np.empty((len(places_qk), num_pixels), dtype=np.uint8) for k in ks}
    step = max(1, _VOTES // (num_pixels * (num_classes + 1)))
    for start in range(0, len(places_qk), step):
        places = places_qk[start : start + step]
        counts = torch.zeros(len(places), num_pixels, num_classes + 1, dtype=torch.int16, device=device)
        for number in range(places.shape[1]):
            labels = torch.from_numpy(labels_nu[places[:, number].numpy()]).to(device).long()
            labels = labels.clamp(max=num_classes)[..., None]  # 255 goes to a class of its own
            counts.scatter_add_(2, labels, torch.ones_like(labels, dtype=torch.int16))
            for k in ks:
                if number + 1 == min(k, places.shape[1]):
                    answers[k][start : start + step] = _winners(counts[..., :num_classes])
    return answers


def _winners(counts_quc: Tensor) -> npt.NDArray[np.uint8]:
    answers: npt.NDArray[np.uint8] = (
        torch.where(counts_quc.amax(dim=2) > 0, counts_quc.argmax(dim=2), 255).to(torch.uint8).cpu().numpy()
    )
    return answers  # argmax names the first of equal ones
