"""Scores in float32 under autocast, so that what is computed of them is not rounded to bfloat16."""

from collections.abc import Iterable

from torch import Tensor, nn


def predict_in_float32(modules: Iterable[nn.Module]) -> None:
    """Make the outputs of prediction layers float32: tensors, and those in lists, tuples and dictionaries."""
    for module in modules:
        module.register_forward_hook(lambda _, __, output: _float(output))


def _float(output: object) -> object:
    if isinstance(output, Tensor):
        return output.float()
    if isinstance(output, dict):
        return {name: _float(value) for name, value in output.items()}
    if isinstance(output, list | tuple):
        return type(output)(_float(value) for value in output)
    return output
