"""Means over seeds with Student's t intervals, and differences to training from scratch."""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

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
    return Mean(mean, std, n, *_interval("ttest_1samp", mean, numbers, np.float64(0)))


def difference_of(ours: Mapping[Any, float], control: Mapping[Any, float]) -> Difference:
    """Mean of `ours` minus mean of `control`, each {seed: value}.

    With the same seeds on both sides the seeds are paired: what a seed does to both cancels. Otherwise the interval is
    Welch's, for two samples whose spreads differ. NaN ends where a side has fewer than FEWEST values.
    """
    if ours.keys() == control.keys():
        one, other = (np.array([side[seed] for seed in sorted(ours)], dtype=np.float64) for side in (ours, control))
        difference = float((one - other).mean())
        return Difference(difference, *_interval("ttest_rel", difference, one, other), len(one))
    one, other = (np.array(list(side.values()), dtype=np.float64) for side in (ours, control))
    difference = float(one.mean() - other.mean())
    return Difference(difference, *_interval("ttest_ind", difference, one, other, equal_var=False), 0)


def significant(low: float, high: float) -> bool:
    """Whether an interval says that there is a difference: it exists and does not hold zero."""
    return low > 0 or high < 0


def _interval(test: str, centre: float, one: Any, other: Any, **options: Any) -> tuple[float, float]:
    """What scipy's test of that name says of one minus other; NaN for fewer than FEWEST values."""
    if min(side.size for side in (one, other) if side.ndim) < FEWEST:
        return math.nan, math.nan
    spread = one - other if test != "ttest_ind" else np.concatenate([one - one[0], other - other[0]])
    if np.ptp(spread) == 0:  # of values that are all the same the test knows no error
        return centre, centre
    from scipy import stats  # here: half a second that most commands do not need

    with warnings.catch_warnings(action="ignore", category=RuntimeWarning):  # of values that are nearly the same
        found = getattr(stats, test)(one, other, **options).confidence_interval(CONFIDENCE)
    return float(found.low), float(found.high)
