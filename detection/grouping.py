"""Which samples are in a batch when images of like shape stand together: a pure function of (seed, step)."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from engine.data.order import SampleKey
from engine.errors import DataError

_STREAM = 0xA5BEC7  # sets this order apart from other draws of the same seed


@dataclass(frozen=True, eq=False)
class GroupedPlan:
    """The order of a detection run's samples.

    An epoch's random permutation is read in order; wide and high images are collected apart, and whenever `group_size`
    of a kind are together they follow in the batch (so does Detectron2's grouped sampler). What is left over at the end
    of an epoch is dropped, something else in each.

    Args:
        is_wide: of each image, bool (num_images,).
        batch_size: global batch, a multiple of group_size.
        seed: of the permutations.
        group_size: 1 for no groups.

    Raises:
        DataError: an epoch would not fill one batch.
    """

    is_wide: npt.NDArray[np.bool_]
    batch_size: int
    seed: int
    group_size: int = 1
    _cache: dict[int, npt.NDArray[np.int64]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.steps_per_epoch < 1:
            raise DataError(
                f"the data set has {len(self.is_wide)} images with objects, {self._num_grouped} of them in full groups "
                f"of {self.group_size}: fewer than one batch of {self.batch_size}; use a smaller --batch-size"
            )

    @property
    def _num_grouped(self) -> int:
        num_wide = int(self.is_wide.sum())
        kinds = (num_wide, len(self.is_wide) - num_wide)
        return sum(count // self.group_size * self.group_size for count in kinds)

    @property
    def steps_per_epoch(self) -> int:
        """Full batches in an epoch."""
        return self._num_grouped // self.batch_size

    def batch(self, step: int) -> list[SampleKey]:
        """The global batch of a 0-based step."""
        epoch, position = divmod(step, self.steps_per_epoch)
        order = self._order(epoch)[position * self.batch_size : (position + 1) * self.batch_size]
        return [SampleKey(epoch, int(index)) for index in order]

    def _order(self, epoch: int) -> npt.NDArray[np.int64]:
        if epoch not in self._cache:  # one epoch's permutation, not state: recomputable
            self._cache.clear()
            source = np.random.Generator(np.random.Philox(np.random.SeedSequence((self.seed, epoch, _STREAM))))
            self._cache[epoch] = self._grouped(source.permutation(len(self.is_wide)))
        return self._cache[epoch]

    def _grouped(self, permutation: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Full groups in the order in which their last member comes up."""
        groups: list[npt.NDArray[np.int64]] = []
        completed: list[npt.NDArray[np.int64]] = []
        for kind in (False, True):
            members = np.flatnonzero(self.is_wide[permutation] == kind)
            places = members[: len(members) // self.group_size * self.group_size].reshape(-1, self.group_size)
            groups.append(permutation[places])
            completed.append(places[:, -1])
        order: npt.NDArray[np.int64] = np.concatenate(groups)[np.argsort(np.concatenate(completed))].reshape(-1)
        return order
