"""Interactions against the published implementation, against all subsets, and against functions with known ones."""

import hashlib

import numpy as np
import pytest
import torch

from analysis.interactions import rewards
from analysis.interactions.masked import Plan, rewards_of
from analysis.interactions.sampling import all_coalitions, all_pairs, draw_contexts, draw_pairs, neighbours, orders_of
from analysis.interactions.strength import differences, exact_interactions, normalise, strengths
from tests.analysis import golden

PUBLISHED = {"modified": rewards.margin, "normal": rewards.log_probability, "yi": rewards.logit}


def sampled(case, outputs, images, batch_size=64, kinds=("modified",)):
    """{reward: I of every image, (images, orders, pairs)}, and how many forward passes that took."""
    found, passes = {kind: [] for kind in kinds}, 0
    for index, (image, label) in enumerate(zip(images, case["labels"], strict=True)):
        pairs = draw_pairs(case["grid"], case["pairs_per_image"], index=index, seed=case["seed"])
        assert pairs.tolist() == case["pairs"][index]
        settings = {"num_players": case["players"], "index": index, "seed": case["seed"]}
        plan = Plan(pairs, case["orders"], case["contexts_per_pair"], **settings)
        all_of = [PUBLISHED[kind] for kind in kinds]  # from the same logits
        several = rewards_of(
            plan.masks,
            image,
            outputs,
            lambda z, y=label, of=all_of: torch.stack([reward(z, y) for reward in of], dim=1),
            batch_size=batch_size,
        )
        batches = list(several)
        assert max(map(len, batches)) <= batch_size  # what memory grows with
        values = np.concatenate(batches)
        passes += len(values)
        for place, kind in enumerate(kinds):
            found[kind].append(differences(plan.spread(values[:, place])).mean(axis=2))
    return {kind: np.array(values) for kind, values in found.items()}, passes


def test_pairs_and_contexts_are_the_published_draws():
    (case,) = golden.read("interaction/generator_full")["cases"]
    seed, grid = case["seed"], case["grid"]
    for index in range(2):
        pairs = draw_pairs(grid, case["pairs_per_image"], index=index, seed=seed)
        assert pairs.tolist() == case["pairs"][index]
        for drawn in case["contexts"].values():
            contexts = draw_contexts(
                pairs, drawn["m"], case["contexts_per_pair"], num_players=grid**2, index=index, seed=seed
            )
            assert hashlib.sha256(contexts.astype("<i4").tobytes()).hexdigest() == drawn["sha256"][index]
    assert orders_of(196) == [0, 9, 19, 38, 58, 77, 97, 116, 135, 155, 174, 184, 194]


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("r24_g3", torch.float64), ("r32_g4", torch.float64), ("v32_g4", torch.float64), ("v32_g4", torch.float32)],
)
def test_interactions_are_the_published_numbers(name, dtype):
    case = golden.read(f"interaction/{name}")
    assert orders_of(case["players"], case["ratios"]) == case["orders"]
    net, images = golden.network(case, dtype), golden.images(case, dtype)
    of_rewards, _ = sampled(case, net, images, kinds=tuple(PUBLISHED))
    for word, found in of_rewards.items():
        expected = case["fp64"][word]
        interactions = np.array(expected["I"]).transpose(1, 0, 2)
        close, relative = (1e-12, 1e-9) if dtype == torch.float64 else (1e-4 * np.abs(interactions).max(), 1e-4)
        assert np.abs(found - interactions).max() < close
        result = strengths(found)
        np.testing.assert_allclose(result.strength, expected["strength"], rtol=relative)
        np.testing.assert_allclose(result.normalised, expected["J"], rtol=relative)


@pytest.mark.parametrize(("name", "relative"), [("v224_g14", 1e-2), ("r224_g14", 5e-4)])
def test_at_the_published_size_float32_is_enough(name, relative):
    case = golden.read(f"interaction/{name}")
    case["orders"], kept = case["orders"][:7:6], slice(0, 7, 6)
    net, images = golden.network(case, torch.float32), golden.images(case, torch.float32)
    case["labels"] = case["labels"][:1]
    found, passes = sampled(case, net, images[:1], batch_size=32)
    expected = np.array(case["fp64"]["modified"]["I"])[kept, 0]
    assert np.abs(found["modified"][0] - expected).max() < relative / 2 * np.abs(case["fp64"]["modified"]["I"]).max()
    assert passes <= 4 * 4 * 4 + 4 * 4  # of the order 0, every context is the same


@pytest.mark.parametrize("name", ["r24_g3", "v32_g4"])
def test_all_contexts_give_the_exact_interactions(name):
    case = golden.read(f"interaction/{name}")
    net, images = golden.network(case), golden.images(case)
    num_players, label = case["players"], case["labels"][0]
    masks = all_coalitions(num_players)[:: 1 if num_players == 9 else 64]
    subsets = np.concatenate(
        list(rewards_of(masks, images[0], net, lambda z: rewards.margin(z, label), batch_size=256))
    )
    exact = case["exact"]["modified_0"]
    assert subsets[0] == pytest.approx(exact["v_empty"], abs=1e-12)
    if num_players != 9:
        return
    assert subsets.sum() == pytest.approx(exact["v_sum"], abs=1e-9)
    interactions = exact_interactions(subsets)
    strength = np.abs(interactions).mean(axis=0)
    np.testing.assert_allclose(strength, exact["strength_all_pairs"], rtol=0, atol=1e-12)
    np.testing.assert_allclose(normalise(strength), exact["J_all_orders"], rtol=1e-9)
    efficiency = sum(subsets[1 << k] - subsets[0] for k in range(9)) - (subsets[-1] - subsets[0])
    orders = np.arange(8)
    efficiency += 2 * (interactions.sum(axis=0) * (8 - orders) / (9 * 8)).sum()
    assert efficiency == pytest.approx(0, abs=1e-12)


def function_of_cells(formula, grid):
    """A network whose logits are (f, 0) for a function f of the set of cells present in an image of ones."""

    def outputs(images):
        cells = images[:, 0, :: images.shape[2] // grid, :: images.shape[3] // grid].flatten(1)
        value = formula(cells)
        return torch.stack([value, torch.zeros_like(value)], dim=1)

    return outputs


FORMULAS = {
    "additive": lambda cells: (cells * (torch.arange(16) - 5) / 8).sum(1),
    "product_of_two": lambda cells: 1.5 * cells[:, 4] * cells[:, 6],
    "product_of_three": lambda cells: 2.0 * cells[:, 4] * cells[:, 5] * cells[:, 6],
}


@pytest.mark.parametrize("name", FORMULAS)
def test_functions_with_known_interactions(name):
    synthetic = golden.read("interaction/synthetic_g4")
    case = {**synthetic, **synthetic["cases"][name], "labels": [0]}
    case["pairs"] = [case["pairs"]]
    ones = torch.ones(1, 3, 16, 16, dtype=torch.float64)
    of_rewards, _ = sampled(case, function_of_cells(FORMULAS[name], 4), ones)
    found = of_rewards["modified"]
    assert np.abs(found[0] - np.array(case["modified"]["I"])).max() < 1e-12
    result = strengths(found)
    expected = [0.0 if value is None else value for value in case["modified"]["J"]]
    np.testing.assert_allclose(result.normalised, expected, atol=1e-12)
    if name == "product_of_two":  # one pair, with the same interaction at every order
        subsets = 1.5 * all_coalitions(16)[:, [4, 6]].all(axis=1)
        exact = exact_interactions(subsets)
        there = np.flatnonzero(np.abs(exact).max(axis=1) > 1e-12)
        assert all_pairs(16)[there].tolist() == [[4, 6]]
        np.testing.assert_allclose(exact[there[0]], 1.5)


def test_the_mean_over_many_contexts_comes_to_the_mean_over_all():
    case = golden.read("interaction/r24_g3")
    net, image, label = golden.network(case), golden.images(case)[0], case["labels"][0]

    def values(masks):
        return np.concatenate(list(rewards_of(masks, image, net, lambda z: rewards.margin(z, label), batch_size=128)))

    exact = exact_interactions(values(all_coalitions(9)))
    pairs = np.array(sorted(neighbours(3, 1)))
    plan = Plan(pairs, [1, 4, 6], 200, num_players=9, index=0, seed=3)
    found = differences(plan.spread(values(plan.masks))).mean(axis=2)
    place = {tuple(pair): number for number, pair in enumerate(all_pairs(9).tolist())}
    expected = exact[[place[tuple(pair)] for pair in pairs.tolist()]][:, [1, 4, 6]].T
    assert np.abs(found - expected).max() < 0.2 * np.abs(expected).max()
    assert len(plan.masks) <= 512  # each coalition once


def test_errors_over_images_and_what_doubling_the_contexts_did():
    generator = np.random.default_rng(0)
    interactions = generator.standard_normal((100, 4, 5)) * np.array([1, 2, 3, 4])[:, None]
    interactions *= generator.uniform(0.5, 2, (100, 1, 1))  # images differ in scale, which J does not see
    result = strengths(interactions, interactions * np.array([1, 1, 1, 2])[:, None])
    drawn = [strengths(interactions[generator.integers(100, size=100)]) for _ in range(400)]
    for name in ("strength", "normalised"):
        spread = np.std([getattr(again, name) for again in drawn], axis=0)
        np.testing.assert_allclose(getattr(result, f"{name}_error"), spread, rtol=0.15)
    assert result.normalised.mean() == pytest.approx(1)
    assert result.change[3] < 0 < result.change[0]
    assert np.isnan(strengths(interactions[:1]).strength_error).all()
