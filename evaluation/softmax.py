"""Multinomial logistic regression by L-BFGS in float64, on whatever device the features are.

N images, D numbers of a feature, C classes. The objective is scikit-learn's:
mean of the cross entropy over images + l2 / 2 * |W|^2, the intercept free; l2 = 1 / (C_sklearn * N).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import minimize
from torch import Tensor
from torch.nn import functional as F

_ROWS_AT_ONCE = 1 << 16
_KEPT_BYTES = 8 << 30  # features of ImageNet, 768 numbers each: read again and again they cost more than the fit
_LINE_SEARCH = 50  # steps at most, as scikit-learn asks


@dataclass(frozen=True)
class Softmax:
    """A linear classifier.

    Args:
        weight_cd: float64.
        bias_c: float64; zeros without an intercept.
        iterations: that L-BFGS took.
        converged: whether it ended by itself, not at max_iterations.
    """

    weight_cd: Tensor
    bias_c: Tensor
    iterations: int = 0
    converged: bool = True

    def scores(self, features_nd: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Logits (N, C)."""
        parts = [part @ self.weight_cd.T + self.bias_c for part, _ in _parts(features_nd, self.weight_cd.device)]
        return torch.cat(parts).cpu().numpy()


def fit(
    features_nd: npt.NDArray[Any],
    labels_n: npt.NDArray[np.int64],
    num_classes: int,
    *,
    l2: float,
    device: torch.device,
    options: "FitOptions",
) -> Softmax:
    """The minimum of the objective, from zeros or from another solution (`options.start`).

    Args:
        features_nd: any float type; in memory as float64, a part at a time where they are more than 8 GB.
        labels_n: 0 to num_classes - 1.
        num_classes: C.
        l2: strength of the penalty against the mean loss.
        device: where to compute.
        options: intercept, iterations, tolerance, start.
    """
    width = features_nd.shape[1]
    labels = torch.from_numpy(labels_n).to(device)
    small = features_nd.size * 8 <= _KEPT_BYTES
    kept = list(_parts(features_nd, device)) if small else None
    start = np.zeros((num_classes, width + 1))
    if options.start is not None:
        start[:, :width], start[:, width] = options.start.weight_cd.cpu(), options.start.bias_c.cpu()

    def objective(flat: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        matrix = torch.from_numpy(flat).to(device).view(num_classes, width + 1)
        weight, bias = matrix[:, :width], matrix[:, width]
        loss, gradient = torch.zeros((), dtype=torch.float64, device=device), torch.zeros_like(matrix)
        for part, first in kept or _parts(features_nd, device):
            own = labels[first : first + len(part)]
            logits = part @ weight.T + bias
            loss += F.cross_entropy(logits, own, reduction="sum")
            slope = logits.softmax(1)
            slope[torch.arange(len(part), device=device), own] -= 1
            gradient[:, :width] += slope.T @ part
            gradient[:, width] += slope.sum(0)
        loss, gradient = loss / len(labels), gradient / len(labels)
        gradient[:, :width] += l2 * weight
        if not options.intercept:
            gradient[:, width] = 0
        return float(loss + 0.5 * l2 * weight.square().sum()), gradient.reshape(-1).cpu().numpy()

    limits = {"maxiter": options.max_iterations, "gtol": options.tolerance, "maxls": _LINE_SEARCH}
    limits |= {"ftol": 64 * np.finfo(np.float64).eps, "maxfun": 15 * options.max_iterations}
    found = minimize(objective, start.reshape(-1), method="L-BFGS-B", jac=True, options=limits)
    matrix = torch.from_numpy(found.x).to(device).view(num_classes, width + 1)
    return Softmax(matrix[:, :width], matrix[:, width], int(found.nit), found.status == 0)


@dataclass(frozen=True, kw_only=True)
class FitOptions:
    """How `fit` goes about it."""

    intercept: bool = True
    max_iterations: int = 1000
    tolerance: float = 1e-12
    """Largest component of the gradient at which it ends."""
    start: Softmax | None = None


def _parts(features_nd: npt.NDArray[Any], device: torch.device) -> Any:
    """(rows in float64, place of the first) of the features, a part at a time."""
    for first in range(0, len(features_nd), _ROWS_AT_ONCE):
        rows = np.array(features_nd[first : first + _ROWS_AT_ONCE], dtype=np.float32)
        yield torch.from_numpy(rows).to(device).double(), first
