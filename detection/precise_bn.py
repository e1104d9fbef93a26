"""BatchNorm statistics averaged over many training batches, in place during an evaluation and gone afterwards.

Training uses a batch's own statistics and evaluation the running ones, which follow the last few batches only. The
published detection protocols therefore compute them anew before an evaluation ("precise BN", Wu and Johnson 2021).
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from engine.distributed import sum_over_ranks, world_size


class PreciseStatistics:
    """Two sets of a model's buffers: those it trains with, and those with averaged BatchNorm statistics.

    Args:
        model: the plain module.
    """

    def __init__(self, model: nn.Module) -> None:
        self._buffers = dict(model.named_buffers())
        self._norms = {
            name: module
            for name, module in model.named_modules()
            if isinstance(module, _BatchNorm) and module.track_running_stats
        }
        self.model = model
        self._training = self._copy()
        self._precise = self._training

    def measure(self, batches: Iterable[Any], forward: Callable[[Any], Any], check_stop: Callable[[], None]) -> None:
        """Average mean and variance over batches, over all ranks; other buffers stay as they are.

        Args:
            batches: equally many on every rank.
            forward: runs the model in training mode on one of them.
            check_stop: called before each.
        """
        if not self._norms:
            return
        momenta = {name: module.momentum for name, module in self._norms.items()}
        sums: dict[str, Tensor] = {}
        num_batches = 0
        self.model.train()
        try:
            for module in self._norms.values():
                module.momentum = 1.0  # the running statistics are then the last batch's
            for batch in batches:
                with self.as_trained():
                    check_stop()
                forward(batch)
                num_batches += 1
                self._add(sums)
        finally:
            for name, module in self._norms.items():
                module.momentum = momenta[name]
            self._put(self._training)
            self.model.eval()
        self._precise = {**self._training, **self._averages(sums, num_batches)}

    def _add(self, sums: dict[str, Tensor]) -> None:
        for name, module in self._norms.items():
            assert module.running_mean is not None and module.running_var is not None
            mean = module.running_mean.double()
            moments = torch.stack([mean, module.running_var.double() + mean**2])
            sums[name] = sums[name] + moments if name in sums else moments

    def _averages(self, sums: dict[str, Tensor], num_batches: int) -> dict[str, Tensor]:
        averages: dict[str, Tensor] = {}
        for name, moments in sums.items():
            mean, square = sum_over_ranks(moments) / (num_batches * world_size())
            averages[f"{name}.running_mean"] = mean.float()
            averages[f"{name}.running_var"] = (square - mean**2).float()
        return averages

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside, the model has the averaged statistics."""
        self._put(self._precise)
        try:
            yield
        finally:
            self._put(self._training)

    @contextmanager
    def as_trained(self) -> Iterator[None]:
        """Inside, the model is as it is trained, so that its state can be saved; afterwards as it was before."""
        now = self._copy()
        self._put(self._training)
        try:
            yield
        finally:
            self._put(now)

    def statistics(self) -> dict[str, Tensor]:
        """The averaged statistics by the names of their buffers; {} for a model without BatchNorm."""
        names = [f"{name}.{part}" for name in self._norms for part in ("running_mean", "running_var")]
        return {name: self._precise[name] for name in names}

    def _copy(self) -> dict[str, Tensor]:
        return {name: buffer.clone() for name, buffer in self._buffers.items()}

    def _put(self, values: dict[str, Tensor]) -> None:
        for name, buffer in self._buffers.items():
            buffer.copy_(values[name])
