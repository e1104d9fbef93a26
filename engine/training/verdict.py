"""Whether a step may count: the device knows it before any weight moves, the host need not wait to be told."""

import torch
from torch import Tensor

from engine.distributed import max_over_ranks


class Verdict:
    """Whether any rank met a loss or gradient that is not finite.

    Args:
        faults: (), on the device: above 0 if this rank did.
    """

    def __init__(self, faults: Tensor) -> None:
        self.found_inf = max_over_ranks((faults > 0).float())
        """(), on the device: 1 or 0, as torch's fused optimizers want it. With 1 they leave everything as it is."""
        self._host, self._copied = self.found_inf, None
        if faults.is_cuda:
            self._host = torch.empty((), pin_memory=True).copy_(self.found_inf, non_blocking=True)
            self._copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._copied.record()

    def is_bad(self) -> bool:
        """The verdict, once the device has come this far; what it was asked to do since then goes on meanwhile."""
        if self._copied is not None:
            self._copied.synchronize()
        return bool(self._host)


def skips_bad_steps(optimizer: torch.optim.Optimizer) -> bool:
    """Whether the optimizer obeys a `found_inf` on the device, as torch's fused ones do for mixed precision."""
    return bool(getattr(optimizer, "_step_supports_amp_scaling", False))
