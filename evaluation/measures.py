"""Measures of features, whoever computed them: votes of neighbours, and effective rank. Knows no encoder.

Q queries, K neighbours, C classes, N images, D numbers of a feature.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

Ranking = npt.NDArray[np.int64]


def votes(
    similarities_qk: npt.NDArray[np.float64], labels_qk: Ranking, *, k: int, temperature: float, num_classes: int
) -> npt.NDArray[np.float64]:
    """Scores (Q, C): the sum of exp(s / T) over the k nearest of each class, float64, added from the nearest on."""
    scores = np.zeros((len(labels_qk), num_classes))
    rows = np.arange(len(labels_qk))
    for place in range(min(k, labels_qk.shape[1])):
        scores[rows, labels_qk[:, place]] += np.exp(similarities_qk[:, place] / temperature)
    return scores


def ranking(scores_qc: npt.NDArray[np.float64]) -> Ranking:
    """The classes in the order of their scores, (Q, C); of equal scores the lower class first."""
    return np.argsort(-scores_qc, axis=1, kind="stable")


def hits(scores_qc: npt.NDArray[np.float64], labels_q: npt.NDArray[np.int64], k: int) -> dict[str, npt.NDArray[Any]]:
    """Whether each query is right, (Q,) for each way to count.

    "top1"; "top5": among the first five classes that have a vote; "top5_dino": among the first min(5, k) ranks, classes
    without any vote included, as DINO's code counts, which flatters a small k.
    """
    order = ranking(scores_qc)
    match = order == labels_q[:, None]
    voted = np.take_along_axis(scores_qc, order, axis=1) > 0
    return {
        "top1": match[:, 0],
        "top5": (match & voted)[:, :5].any(axis=1),
        "top5_dino": match[:, : min(5, k)].any(axis=1),
    }


def rank_me(features_nd: npt.NDArray[Any]) -> float:
    """Effective rank exp(H(p)), p = singular values over their sum, of centred features (RankMe, Garrido et al. 2023;
    its published form does not centre). Between 1 and D; float64.
    """
    values = np.asarray(features_nd, dtype=np.float64)
    values = values - values.mean(axis=0)
    scatter = values.T @ values if len(values) >= values.shape[1] else values @ values.T
    singular = np.sqrt(np.clip(np.linalg.eigvalsh(scatter), 0, None))
    total = singular.sum()
    if total == 0:
        return 1.0
    shares = singular[singular > total * 1e-12] / total
    return float(np.exp(-(shares * np.log(shares)).sum()))
