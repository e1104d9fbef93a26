"""Batches on their way to the device: copied beside the computation, so that no step waits for its images."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor


def to_device(batch: Any, device: torch.device) -> Any:
    """Move every tensor of a nested batch to the device; leaves other objects alone."""
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, dict):
        return {key: to_device(value, device) for key, value in batch.items()}
    if isinstance(batch, list | tuple):
        return type(batch)(to_device(value, device) for value in batch)
    return batch


class Transfer:
    """Copies the next step's batch on a stream of its own while the device computes; on a CPU there is nothing to do.

    The source must be pinned memory (LoaderOptions.pin_memory), or the host waits for the copy. A whole step's images
    then lie on the device twice, the ones in use and the next ones: as bytes, little beside a step's activations.

    Args:
        device: where to.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]

    def start(self, batch: Any) -> Any:
        """The nested batch as it will be on the device; not to be used before `finish`."""
        if self._stream is None:
            return to_device(batch, self.device)
        with torch.cuda.stream(self._stream):
            return to_device(batch, self.device)

    def finish(self, batch: Any) -> Any:
        """The same batch, for what the device is asked to do from now on. The host does not wait."""
        if self._stream is not None:
            current = torch.cuda.current_stream(self.device)
            current.wait_stream(self._stream)
            for tensor in _tensors(batch):
                tensor.record_stream(current)  # its memory is not given away before this stream is done with it
        return batch


def _tensors(batch: Any) -> Iterator[Tensor]:
    if isinstance(batch, Tensor):
        if batch.is_cuda:
            yield batch
    elif isinstance(batch, dict | list | tuple):
        for value in batch.values() if isinstance(batch, dict) else batch:
            yield from _tensors(value)
