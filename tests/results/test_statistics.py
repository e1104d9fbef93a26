"""Intervals against textbook values, and when seeds pair."""

import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from results.statistics import difference_of, mean_of


def test_the_interval_is_students():
    found = mean_of([1.0, 2.0, 3.0, 4.0, 5.0])
    assert (found.mean, found.n) == (3.0, 5)
    assert found.std == pytest.approx(math.sqrt(2.5))
    half = 2.7764451 * math.sqrt(2.5 / 5)  # t of 4 degrees of freedom at 97.5 %
    assert (found.low, found.high) == pytest.approx((3 - half, 3 + half))


def test_one_value_has_no_spread_and_two_have_no_interval():
    assert math.isnan(mean_of([7.0]).std)
    two = mean_of([7.0, 9.0])
    assert two.std == pytest.approx(math.sqrt(2))
    assert math.isnan(two.low)
    assert math.isnan(two.high)


def test_the_same_seeds_are_paired_and_what_they_share_cancels():
    found = difference_of({0: 51.0, 1: 61.5, 2: 72.0}, {0: 50.0, 1: 60.0, 2: 70.0})
    assert found.pairs == 3
    half = 4.3026527 * 0.5 / math.sqrt(3)  # t of 2 degrees of freedom; the differences are 1, 1.5, 2
    assert (found.difference, found.low, found.high) == pytest.approx((1.5, 1.5 - half, 1.5 + half))


def test_other_seeds_are_compared_by_welch():
    ours, control = {3: 10.0, 4: 12.0, 5: 14.0}, {0: 7.0, 1: 8.0, 2: 9.0}
    found = difference_of(ours, control)
    assert found.pairs == 0
    degrees = (4 / 3 + 1 / 3) ** 2 / ((4 / 3) ** 2 / 2 + (1 / 3) ** 2 / 2)
    assert degrees == pytest.approx(2.941, abs=1e-3)
    half = 3.2185 * math.sqrt(4 / 3 + 1 / 3)
    assert (found.difference, found.low, found.high) == pytest.approx((4.0, 4 - half, 4 + half), abs=2e-3)


def test_a_missing_seed_leaves_the_difference_unpaired_and_without_interval():
    found = difference_of({0: 66.5, 1: 67.5}, {0: 60.0, 1: 61.0, 2: 64.0})
    assert (found.pairs, found.difference) == (0, pytest.approx(67 - 185 / 3))
    assert math.isnan(found.low)


def test_no_spread_at_all_is_an_interval_of_no_width():
    found = difference_of({3: 5.0, 4: 5.0, 5: 5.0}, {0: 4.0, 1: 4.0, 2: 4.0})
    assert (found.low, found.difference, found.high) == (1.0, 1.0, 1.0)


@given(st.lists(st.floats(0, 100), min_size=3, max_size=9))
def test_the_mean_lies_in_its_interval(values):
    found = mean_of(values)
    assert found.mean == pytest.approx(statistics.mean(values))
    assert found.low <= found.mean <= found.high
