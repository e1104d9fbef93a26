"""An evaluation counts only if the network computed numbers: NaN scores would be tabulated as an accuracy of chance."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from engine.distributed import max_over_ranks, world_size
from engine.errors import DivergedError

_WATCHED = (nn.Linear, nn.modules.conv._ConvNd)
"""What is not finite anywhere reaches one of these or the output: normalisation and activations lie between them."""


@contextmanager
def finite_outputs(model: nn.Module, step: int, device: torch.device) -> Iterator[None]:
    """Inside, `model` may be called as often as one likes; at the end all its outputs must have been finite.

    Looks at the outputs of every linear and convolutional layer, since frameworks drop boxes that are not finite.

    Args:
        model: on any rank the same.
        step: the training step after which it is evaluated, for the message.
        device: where ranks tell each other.

    Raises:
        DivergedError: on every rank, naming the first such layer and the weights that are not finite themselves.
    """
    worst: dict[str, Tensor] = {}

    def look(name: str, output: Any) -> None:
        if isinstance(output, Tensor) and output.is_floating_point() and output.numel():
            lowest, highest = torch.aminmax(output.detach())
            bad = ~(lowest.isfinite() & highest.isfinite())
            worst[name] = worst[name] | bad if name in worst else bad

    handles = [
        module.register_forward_hook(lambda _, __, output, name=name: look(name, output))
        for name, module in model.named_modules()
        if isinstance(module, _WATCHED)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
    first = next((name for name, bad in worst.items() if bool(bad)), None)
    found = torch.tensor(float(first is not None), device=device)
    if bool(max_over_ranks(found) if world_size() > 1 else found):
        raise DivergedError(_message(model, step, first))


def _message(model: nn.Module, step: int, first: str | None) -> str:
    tensors = [(name, tensor) for name, tensor in model.state_dict().items() if tensor.is_floating_point()]
    bad = [name for name, tensor in tensors if not bool(tensor.isfinite().all())]
    cause = (
        f"{len(bad)} of the network's tensors are not finite: {', '.join(bad[:3])}"
        if bad
        else "all weights and statistics are finite: the values between the layers became too large"
    )
    where = f"first in {first}" if first is not None else "on another rank"
    return f"the evaluation after step {step} is not finite ({where}); {cause}. It was not recorded."
