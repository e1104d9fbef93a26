"""The order of samples: a function of the step, like shapes together."""

import numpy as np
import pytest

from detection.grouping import GroupedPlan
from engine.errors import DataError

IS_WIDE = np.random.default_rng(0).random(53) < 0.7


def test_a_batch_is_a_function_of_its_step_alone():
    first, second = (GroupedPlan(IS_WIDE, 8, 3, 2) for _ in range(2))
    in_order = [first.batch(step) for step in range(20)]
    for step in (17, 2, 9, 2):
        assert second.batch(step) == in_order[step]
    assert GroupedPlan(IS_WIDE, 8, 4, 2).batch(0) != in_order[0]


@pytest.mark.parametrize("group_size", [1, 2, 4])
def test_groups_are_of_one_shape_and_no_image_comes_twice_in_an_epoch(group_size):
    plan = GroupedPlan(IS_WIDE, 8, 0, group_size)
    for epoch in range(3):
        steps = range(epoch * plan.steps_per_epoch, (epoch + 1) * plan.steps_per_epoch)
        keys = [key for step in steps for key in plan.batch(step)]
        assert {key.epoch for key in keys} == {epoch}
        indices = [key.index for key in keys]
        assert len(set(indices)) == len(indices) == plan.steps_per_epoch * 8
        for start in range(0, len(indices), group_size):
            assert len({bool(IS_WIDE[index]) for index in indices[start : start + group_size]}) == 1


def test_over_many_epochs_every_image_comes_equally_often():
    plan = GroupedPlan(IS_WIDE, 4, 0, 4)
    seen = np.zeros(len(IS_WIDE))
    for step in range(100 * plan.steps_per_epoch):
        for key in plan.batch(step):
            seen[key.index] += 1
    for kind in (True, False):
        counts = seen[kind == IS_WIDE]
        assert counts.min() > 0.8 * counts.mean()


def test_one_image_per_group_is_the_plain_permutation_in_its_order():
    plan = GroupedPlan(IS_WIDE, 53, 0, 1)
    order = [key.index for key in plan.batch(0)]
    assert sorted(order) == list(range(53))
    mixed = GroupedPlan(~IS_WIDE, 53, 0, 1)
    assert [key.index for key in mixed.batch(0)] == order


def test_too_few_images_for_a_batch_are_refused_with_both_numbers():
    with pytest.raises(DataError, match=r"5 images with objects, 4 of them .*batch of 8"):
        GroupedPlan(np.array([True, True, False, False, False]), 8, 0, 2)
