"""Run a network on shapes alone: what goes where, and which weights are never used."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

Result = TypeVar("Result")


def run_on_shapes(model: nn.Module, run: Callable[[Tensor], Result], image_size: int) -> Result:
    """`run` on one square image of `image_size` pixels, on the meta device: no memory, no arithmetic, no random draw.

    `run` is a method of `model` or of one of its modules. The model is as before afterwards.
    """
    with torch.no_grad(), _weights_on_meta(model, training=False):
        return run(torch.empty(1, 3, image_size, image_size, device="meta"))


def unused_parameters(model: nn.Module, run: Callable[[Tensor], Tensor | list[Tensor]], image_size: int) -> list[str]:
    """Names of the trainable parameters of `model` that the outputs of `run` do not depend on in training."""
    # Training mode, because some networks cache detached tables for evaluation; two images, for BatchNorm on 1x1 maps.
    with torch.enable_grad(), _weights_on_meta(model, training=True):
        result = run(torch.empty(2, 3, image_size, image_size, device="meta"))
        outputs = [result] if isinstance(result, Tensor) else result
        named = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        total = cast(Tensor, sum(output.sum() for output in outputs))
        gradients = torch.autograd.grad(total, list(named.values()), allow_unused=True)
    return [name for name, gradient in zip(named, gradients, strict=True) if gradient is None]


@contextmanager
def _weights_on_meta(model: nn.Module, *, training: bool) -> Iterator[None]:
    """Inside, every weight and buffer is a shape without values, and the model in training or evaluation mode."""
    kept = [(module, module._parameters.copy(), module._buffers.copy(), module.training) for module in model.modules()]
    shapes: dict[int, nn.Parameter] = {}  # by identity, so that tied weights stay tied
    try:
        for module, weights, buffers, _ in kept:
            module.training = training
            for name, weight in weights.items():
                if weight is not None:
                    shape = nn.Parameter(torch.empty_like(weight, device="meta"), requires_grad=weight.requires_grad)
                    module._parameters[name] = shapes.setdefault(id(weight), shape)
            for name, buffer in buffers.items():
                if buffer is not None:
                    module._buffers[name] = torch.empty_like(buffer, device="meta")
        yield
    finally:
        for module, weights, buffers, was_training in kept:
            module._parameters.update(weights)
            module._buffers.update(buffers)
            module.training = was_training
