"""Run a network on shapes: what goes where, and which weights are never used."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

Result = TypeVar("Result")


def run_on_shapes(
    model: nn.Module, run: Callable[[Tensor], Result], image_size: int | tuple[int, int], channels: int = 3
) -> Result:
    """`run` on one image of `image_size` pixels, square or (height, width), and `channels`, on the meta device: no
    memory, no arithmetic, no random draw.

    `run` is a method of `model` or of one of its modules. The model is as before afterwards. A network whose forward
    pass asks for values is run on grey pixels instead, if it has values.
    """
    shape = (1, channels, *(image_size if isinstance(image_size, tuple) else (image_size, image_size)))
    try:
        with torch.no_grad(), _weights_on_meta(model, training=False):
            return run(torch.empty(shape, device="meta"))
    except (NotImplementedError, RuntimeError) as error:
        device = _device(model)
        if device == "meta" or not _asks_for_values(error):
            raise
        with torch.no_grad(), _in_evaluation(model):
            return run(torch.zeros(shape, device=device))


def unused_parameters(
    model: nn.Module, run: Callable[[Tensor], Tensor | list[Tensor]], image_size: int, channels: int = 3
) -> list[str]:
    """Names of the trainable parameters of `model` that the outputs of `run` do not depend on in training."""
    shape = (2, channels, image_size, image_size)  # two images, for BatchNorm on 1x1 maps
    try:
        # Training mode, because some networks cache detached tables for evaluation.
        with torch.enable_grad(), _weights_on_meta(model, training=True):
            return _without_gradient(model, run, torch.empty(shape, device="meta"))
    except (NotImplementedError, RuntimeError) as error:
        device = _device(model)
        if device == "meta" or not _asks_for_values(error):
            raise
        with torch.enable_grad(), _in_evaluation(model):
            return _without_gradient(model, run, torch.zeros(shape, device=device))


def _without_gradient(model: nn.Module, run: Callable[[Tensor], Tensor | list[Tensor]], images: Tensor) -> list[str]:
    result = run(images)
    outputs = [result] if isinstance(result, Tensor) else result
    named = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    total = cast(Tensor, sum(output.sum() for output in outputs))
    gradients = torch.autograd.grad(total, list(named.values()), allow_unused=True)
    return [name for name, gradient in zip(named, gradients, strict=True) if gradient is None]


def refusal_of(model: nn.Module, run: Callable[[Tensor], Any], image_size: tuple[int, int], channels: int = 3) -> str:
    """What the network says to an image of (height, width); "" where it takes it. Arguments as for run_on_shapes."""
    try:
        run_on_shapes(model, run, image_size, channels)
    except (AssertionError, RuntimeError, ValueError) as error:
        return " ".join(f"{type(error).__name__}: {error}".split())[:200]
    return ""


def remove_unused(net: nn.Module, unused: Sequence[str]) -> list[tuple[str, str, nn.Module]]:
    """Replace the modules whose parameters are all unused by nothing, and freeze single unused parameters; returns
    (name of the parent, of the child, module) of what was replaced."""
    remaining, replaced = set(unused), []
    for name, module in list(net.named_modules()):
        weights = {f"{name}.{weight}" for weight, _ in module.named_parameters()}
        if name and weights and weights <= remaining:
            parent, _, child = name.rpartition(".")
            replaced.append((parent, child, module))
            setattr(net.get_submodule(parent), child, nn.Identity())
            remaining -= weights
    freeze_parameters(net, remaining)
    return replaced


def freeze_parameters(net: nn.Module, names: Iterable[str]) -> None:
    """Stop training these parameters."""
    for name in names:
        net.get_parameter(name).requires_grad_(False)


@dataclass
class Seen:
    """What went through a module in one forward pass, shapes alone: one for each positional input, and output."""

    inputs: tuple[torch.Size | None, ...]
    """None for what is no tensor."""
    outputs: tuple[torch.Size | None, ...] = ()
    """Several if the module returns a tuple or a list."""
    is_single: bool = True
    """Whether it returns one tensor, not a tuple or list."""
    place: int = 0
    """How many modules had returned before this one did."""
    calls: int = 1


def watch(model: nn.Module, run: Callable[[Tensor], Any], image_size: int, channels: int = 3) -> dict[str, Seen]:
    """What goes through every module of `model` that `run` calls, by the module's name, in the order in which they
    return; of a module that is called several times, the first call."""
    seen: dict[str, Seen] = {}
    done: list[str] = []

    def before(name: str, inputs: Sequence[Any]) -> None:
        if name in seen:
            seen[name].calls += 1
        else:
            seen[name] = Seen(_shapes(inputs))

    def after(name: str, output: Any) -> None:
        if name in done:
            return
        several = isinstance(output, (tuple, list))
        seen[name].outputs = _shapes(output if several else [output])
        seen[name].is_single, seen[name].place = not several, len(done)
        done.append(name)

    handles = []
    for name, module in model.named_modules():
        handles.append(module.register_forward_pre_hook(lambda _, inputs, name=name: before(name, inputs)))
        handles.append(module.register_forward_hook(lambda _, __, output, name=name: after(name, output)))
    try:
        run_on_shapes(model, run, image_size, channels)
    finally:
        for handle in handles:
            handle.remove()
    return {name: seen[name] for name in done}


def _shapes(values: Sequence[Any]) -> tuple[torch.Size | None, ...]:
    return tuple(value.shape if isinstance(value, Tensor) else None for value in values)


def depends_on(model: nn.Module, run: Callable[[Tensor], Tensor], images: Tensor, other: Tensor) -> tuple[bool, bool]:
    """Whether the output of `run` on `images` depends on them, and on `other`, both on the meta device and requiring
    gradients; hooks of `model` may cut the way of the first and bring in the second."""
    with torch.enable_grad(), _weights_on_meta(model, training=False):
        output = run(images)
        if output.grad_fn is None:
            return False, False
        of_images, of_other = torch.autograd.grad(output.sum(), [images, other], allow_unused=True)
    return of_images is not None, of_other is not None


def _asks_for_values(error: Exception) -> bool:
    """Whether a forward pass failed because tensors on the meta device have shapes only."""
    return "meta" in str(error) or "item()" in str(error)


def _device(model: nn.Module) -> str:
    first = next(iter(model.parameters()), None)
    return "cpu" if first is None else str(first.device)


@contextmanager
def _in_evaluation(model: nn.Module) -> Iterator[None]:
    kept = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, was_training in kept:
            module.training = was_training


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
