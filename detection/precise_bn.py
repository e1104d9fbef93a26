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

from engine.distributed import sum_over_ranks


class PreciseStatistics:
    """Two sets of a model's buffers: those it trains with, and those with averaged BatchNorm statistics.

    Args:
        model: the plain module.
    """

    def __init__(self, model: nn.Module) -> None:
        self._buffers = dict(model.named_buffers())
        self._norms = _training_norms(model)
        self.model = model
        self._training = self._copy()
        self._precise = self._training

    def measure(self, batches: Iterable[Any], forward: Callable[[Any], Any], check_stop: Callable[[], None]) -> None:
        """Average mean and variance over the pixels of all batches and ranks; other buffers stay as they are.

        As in fvcore, which the published files use: a batch weighs as much as it has pixels (a norm of regions: as many
        as there are), and the variance is that of all pixels together.

        Args:
            batches: equally many on every rank.
            forward: runs the model in training mode on one of them.
            check_stop: called before each.
        """
        if not self._norms:
            return
        momenta = {name: module.momentum for name, module in self._norms.items()}
        sums = {
            name: torch.zeros(3, *_mean(norm).shape, dtype=torch.float64, device=_mean(norm).device)
            for name, norm in self._norms.items()
        }
        counts: dict[str, int] = {}
        counters = [module.register_forward_pre_hook(_counter(counts, name)) for name, module in self._norms.items()]
        self.model.train()
        try:
            for module in self._norms.values():
                module.momentum = 1.0  # the running statistics are then the last batch's
            for batch in batches:
                with self.as_trained():
                    check_stop()
                counts.clear()
                forward(batch)
                self._add(sums, counts)
        finally:
            for counter in counters:
                counter.remove()
            for name, module in self._norms.items():
                module.momentum = momenta[name]
            self._put(self._training)
            self.model.eval()
        self._precise = {**self._training, **_averages(sums)}

    def _add(self, sums: dict[str, Tensor], counts: dict[str, int]) -> None:
        """Add a batch's number of values, their sum and the sum of their squares, for each norm that took part."""
        for name, count in counts.items():
            if count:  # a norm of regions may have seen none
                mean, variance = _mean(self._norms[name]).double(), self._norms[name].running_var
                assert variance is not None
                square = variance.double() * ((count - 1) / count) + mean**2  # torch stores the unbiased variance
                sums[name] += torch.stack([torch.full_like(mean, count), count * mean, count * square])

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


def _training_norms(model: nn.Module) -> dict[str, _BatchNorm]:
    """The norms that take statistics of a batch in training; those of a frozen encoder never do."""
    was_training = model.training
    model.train()
    norms = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm) and module.track_running_stats and module.training
    }
    model.train(was_training)
    return norms


def _counter(counts: dict[str, int], name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    """A hook that notes how many values of each channel a norm averages over."""

    def count(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        counts[name] = inputs[0].numel() // inputs[0].shape[1]

    return count


def _mean(norm: _BatchNorm) -> Tensor:
    assert norm.running_mean is not None
    return norm.running_mean


def _averages(sums: dict[str, Tensor]) -> dict[str, Tensor]:
    averages: dict[str, Tensor] = {}
    for name, moments in sums.items():
        total, first, second = sum_over_ranks(moments)
        if total[0] > 0:
            mean = first / total
            averages[f"{name}.running_mean"] = mean.float()
            averages[f"{name}.running_var"] = (second / total - mean**2).float()
    return averages
