"""Libraries that draw from the global random generators, made a function of the sample."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def seeded(source: np.random.Generator, *, numpy_first: bool = False) -> Iterator[None]:
    """Set the global generators of python, numpy and torch (CPU) from `source`, and put them back afterwards, so that
    reading in the training process (no workers) does not change what the network draws.

    Args:
        source: of this use of a sample.
        numpy_first: numpy's seed is drawn first instead of second.
    """
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    first, second, third = (int(value) for value in source.integers(2**32, size=3))
    for_python, for_numpy = (second, first) if numpy_first else (first, second)
    random.seed(for_python)
    np.random.seed(for_numpy)
    torch.default_generator.manual_seed(third)  # torch.manual_seed would reset the GPUs' generators too
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])
