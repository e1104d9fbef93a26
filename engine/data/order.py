"""Which samples are in a batch, and what is random about each: pure functions of (seed, step) and (seed, sample).

Nothing here keeps state, so a run resumed at step k asks for step k and gets what it would have got. A sample's own
randomness comes from `generator(seed, key)`, so it does not depend on worker, rank or history either.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from engine.errors import DataError


class SampleKey(NamedTuple):
    """One use of one sample: `repeat` counts its copies within the epoch (repeated augmentation)."""

    epoch: int
    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    repeat: int = 0


def generator(seed: int, key: SampleKey, stream: int = 0) -> np.random.Generator:
    """The source of everything random about one use of a sample; streams of the same key are independent."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, *key, stream))))


def step_seed(seed: int, step: int, rank: int) -> int:
    """A 32-bit seed for what is drawn on the device in one step (drop path, dropout, mixup)."""
    return int(np.random.SeedSequence((seed, step, rank, 0x57E9)).generate_state(1)[0])


@dataclass(frozen=True)
class SamplePlan:
    """The order of the samples of a run.

    Args:
        num_samples: images in the training set.
        batch_size: global batch, over all ranks and micro-batches.
        seed: of the permutation.
        repeats: copies of an image within an epoch; 3 is repeated augmentation (Hoffer et al. 2020) as in RSB and DeiT,
            where an epoch stays num_samples long and so sees a third of the images three times.

    Raises:
        DataError: there are fewer samples than one batch.
    """

    num_samples: int
    batch_size: int
    seed: int
    repeats: int = 1

    def __post_init__(self) -> None:
        if self.num_samples < self.batch_size:
            raise DataError(
                f"the data set has {self.num_samples} images, fewer than one batch of {self.batch_size}: "
                f"use --batch-size {max(self.num_samples, 1)} or less"
            )

    @property
    def steps_per_epoch(self) -> int:
        """Full batches in an epoch; the remainder of a permutation is dropped, another one in each epoch."""
        return self.num_samples // self.batch_size

    def batch(self, step: int) -> list[SampleKey]:
        """The global batch of a 0-based step."""
        epoch, position = divmod(step, self.steps_per_epoch)
        order = self._order(epoch)
        places = range(position * self.batch_size, (position + 1) * self.batch_size)
        return [SampleKey(epoch, int(order[p // self.repeats]), p % self.repeats) for p in places]

    def _order(self, epoch: int) -> np.ndarray:
        if getattr(self, "_cached", (None, None))[0] != epoch:
            order = np.random.Generator(np.random.Philox(np.random.SeedSequence((self.seed, epoch)))).permutation(
                self.num_samples
            )
            object.__setattr__(self, "_cached", (epoch, order))  # one epoch's permutation, not state: recomputable
        return self._cached[1]  # type: ignore[attr-defined, no-any-return]
