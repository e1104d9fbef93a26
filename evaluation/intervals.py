"""Confidence intervals by the bootstrap over images: how far a number would move with other images of the same kind."""

import numpy as np
import numpy.typing as npt

_COVERED = (2.5, 97.5)  # percentiles
_STREAM = 0xB007


def accuracy_interval(correct: npt.NDArray[np.bool_], *, seed: int, resamplings: int) -> tuple[float, float]:
    """95 % percentile interval of an accuracy, in percent.

    Args:
        correct: of each image whether it was right, (N,).
        seed: of the resampling.
        resamplings: how many.

    Drawing N images with replacement gives a binomial number of right ones, which is drawn directly.
    """
    source = _generator(seed)
    counts = source.binomial(len(correct), float(correct.mean()), size=resamplings)
    low, high = np.percentile(100 * counts / len(correct), _COVERED)
    return float(low), float(high)


def difference_interval(
    first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_], *, seed: int, resamplings: int
) -> tuple[float, float]:
    """95 % percentile interval of accuracy(second) - accuracy(first) in percent, both on the same images (N,).

    The same images are drawn for both, so what is hard for both does not widen it: only images on which they differ do.
    """
    num = len(first)
    shares = [float(np.mean(second & ~first)), float(np.mean(first & ~second))]
    drawn = _generator(seed).multinomial(num, [*shares, max(1 - sum(shares), 0.0)], size=resamplings)
    low, high = np.percentile(100 * (drawn[:, 0] - drawn[:, 1]) / num, _COVERED)
    return float(low), float(high)


def mean_interval(values: npt.NDArray[np.float64], *, seed: int, resamplings: int) -> tuple[float, float]:
    """95 % percentile interval of the mean of any number per image, (N,)."""
    source = _generator(seed)
    means = [float(values[source.integers(len(values), size=len(values))].mean()) for _ in range(resamplings)]
    low, high = np.percentile(means, _COVERED)
    return float(low), float(high)


def _generator(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, _STREAM))))
