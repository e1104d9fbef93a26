"""A whole set in numbered batches whose content does not depend on the ranks: rank r of n reads the batches r, r + n,
r + 2n, ... So what is measured on several ranks is that of one process to the last digit, without the repeated images
by which samplers usually even out the ranks.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch.utils.data import Dataset

from engine.data.loader import LoaderOptions, make_batches
from engine.data.order import SampleKey
from engine.distributed import rank, world_size


def in_order(num_samples: int, batch_size: int) -> list[range]:
    """The positions of each batch of a set as it is listed; the last one may be smaller."""
    return [range(first, min(first + batch_size, num_samples)) for first in range(0, num_samples, batch_size)]


def read(dataset: Dataset[Any], batches: Sequence[Sequence[int]], **options: Any) -> Iterator[Any]:
    """Read batches given by positions, one after another, in this process's own readers.

    Args:
        dataset: `dataset[SampleKey]`.
        batches: positions in it.
        options: fields of LoaderOptions.
    """

    def keys(number: int) -> list[SampleKey]:
        return [SampleKey(0, position) for position in batches[number]]

    for (batch,) in make_batches(dataset, keys, range(len(batches)), LoaderOptions(**options)):
        yield batch


def rounds(
    dataset: Dataset[Any], batches: Sequence[Sequence[int]], check_stop: Callable[[], None], **options: Any
) -> Iterator[list[Any]]:
    """Read this rank's part of the batches, one in each round; none where the set ends before its turn.

    Args:
        dataset: `dataset[SampleKey]`.
        batches: positions in it, the same on every rank.
        check_stop: called equally often on every rank, before each batch; raises to end the evaluation.
        options: fields of LoaderOptions.
    """
    mine = read(dataset, batches[rank() :: world_size()], **options)
    for _ in range(math.ceil(len(batches) / world_size())):
        check_stop()
        yield [batch for batch in [next(mine, None)] if batch is not None]
