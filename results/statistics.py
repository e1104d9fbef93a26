"""Means over seeds with Student's t intervals, and differences to training from scratch."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

FEWEST = 3  # values an interval is computed from; with fewer it says nothing
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Mean:
    """Of n values; `std` is the sample standard deviation. NaN: `std` for n = 1, `low` and `high` for n < FEWEST.

    Args:
        low: lower end of the interval that holds the true mean with CONFIDENCE, if the values are normal.
        high: its upper end.
    """

    mean: float
    std: float
    n: int
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """Of two means. `pairs` counts the seeds that both have, if they have exactly the same; 0: compared unpaired."""

    difference: float
    low: float
    high: float
    pairs: int


def mean_of(values: Sequence[float]) -> Mean:
    """Mean, spread and interval of at least one value."""
    numbers = np.asarray(values, dtype=np.float64)
    mean, n = float(numbers.mean()), len(numbers)
    std = float(numbers.std(ddof=1)) if n > 1 else math.nan
    half = _half(std / math.sqrt(n), n - 1) if n >= FEWEST else math.nan
    return Mean(mean, std, n, mean - half, mean + half)


def difference_of(ours: Mapping[int, float], control: Mapping[int, float]) -> Difference:
    """Mean of `ours` minus mean of `control`, each {seed: value}.

    With the same seeds on both sides the seeds are paired: what a seed does to both cancels. Otherwise the interval is
    Welch's, for two samples whose spreads differ. NaN ends where a side has fewer than FEWEST values.
    """
    if ours.keys() == control.keys():
        paired = mean_of([ours[seed] - control[seed] for seed in sorted(ours)])
        return Difference(paired.mean, paired.low, paired.high, paired.n)
    one, other = mean_of(list(ours.values())), mean_of(list(control.values()))
    difference = one.mean - other.mean
    half = math.nan
    if min(one.n, other.n) >= FEWEST:
        first, second = one.std**2 / one.n, other.std**2 / other.n
        spread = first**2 / (one.n - 1) + second**2 / (other.n - 1)
        half = _half(math.sqrt(first + second), (first + second) ** 2 / spread) if spread else 0.0
    return Difference(difference, difference - half, difference + half, 0)


def _half(standard_error: float, degrees: float) -> float:
    return float(stdtrit(degrees, (1 + CONFIDENCE) / 2)) * standard_error
