"""From rewards to interactions, their strength by order, and how certain it is.

I(m) of a pair is the mean of Dv(i, j, S) = v(S+i+j) - v(S+i) - v(S+j) + v(S) over contexts S of m cells; the strength
of an order is the mean of |I(m)| over pairs and images; J(m) is the strength over its mean over the orders sampled.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Strengths:
    """Of one encoder, a value for each order sampled.

    Args:
        strength: mean of |I| over images and pairs.
        strength_error: its standard error over images; NaN with one image.
        normalised: J, whose mean over the orders is 1; all zero where no interaction is other than zero.
        normalised_error: of J over images (linearised: the divisor varies with the images too); NaN with one.
        change: J minus that of the first half of the contexts: what doubling them did; NaN with one context.
    """

    strength: Floats
    strength_error: Floats
    normalised: Floats
    normalised_error: Floats
    change: Floats


def differences(rewards: Floats) -> Floats:
    """Dv from rewards (..., 4) of S+i+j, S+i, S+j, S: (...), in float64."""
    return rewards[..., 0] - rewards[..., 1] - rewards[..., 2] + rewards[..., 3]


def normalise(strength: Floats) -> Floats:
    """J: the strength of each order over their mean; zeros where all are zero, for 0 / 0 says nothing."""
    mean = strength.mean()
    return strength / mean if mean > 0 else np.zeros_like(strength)


def strengths(interactions: Floats, of_half: Floats | None = None) -> Strengths:
    """The strength of every order.

    Args:
        interactions: I, (images, orders, pairs).
        of_half: the same from the first half of each pair's contexts.
    """
    per_image = np.abs(interactions).mean(axis=2)
    strength = per_image.mean(axis=0)
    normalised = normalise(strength)
    mean = strength.mean()
    residuals = per_image - normalised * per_image.mean(axis=1, keepdims=True)
    change = np.full_like(strength, np.nan)
    if of_half is not None:
        change = normalised - normalise(np.abs(of_half).mean(axis=2).mean(axis=0))
    return Strengths(
        strength,
        _standard_error(per_image),
        normalised,
        _standard_error(residuals) / mean if mean > 0 else np.full_like(strength, np.nan),
        change,
    )


def _standard_error(per_image: Floats) -> Floats:
    if len(per_image) < 2:
        return np.full(per_image.shape[1], np.nan)
    return np.asarray(per_image.std(axis=0, ddof=1) / np.sqrt(len(per_image)))


def exact_interactions(rewards: Floats) -> Floats:
    """I of every pair and every order over all contexts, from the rewards of all subsets.

    Args:
        rewards: (2^n,), of sampling.all_coalitions.

    Returns:
        (n (n - 1) / 2, n - 1): pairs i < j, orders 0 to n - 2.
    """
    num_players = len(rewards).bit_length() - 1
    subsets = np.arange(len(rewards))
    sizes = np.array([int(subset).bit_count() for subset in subsets])
    found = []
    for i in range(num_players):
        for j in range(i + 1, num_players):
            both = 1 << i | 1 << j
            contexts = subsets[subsets & both == 0]
            variants = np.stack([contexts | both, contexts | 1 << i, contexts | 1 << j, contexts], axis=1)
            sums = np.bincount(sizes[contexts], differences(rewards[variants]), minlength=num_players - 1)
            found.append(sums / np.bincount(sizes[contexts], minlength=num_players - 1))
    return np.array(found)
