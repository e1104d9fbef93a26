"""Values that no trained network has. They would load without a word and show as an accuracy of chance."""

from collections.abc import Mapping

import torch
from torch import Tensor

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""Types whose values are weights as they stand: the others are codes for weights, and need a scale that is not here."""
_COUNTER = "num_batches_tracked"


def find_faults(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """{kind of fault: names and what was found} of the tensors of `state`, all of which are in the network's `own`."""
    faults: dict[str, list[str]] = {"of another type": [], "not finite": [], "negative variances": []}
    for name, tensor in state.items():
        wanted = own[name].dtype
        if not _has_values(tensor) or not _is_type(name, tensor.dtype, wanted):
            found = str(tensor.dtype).removeprefix("torch.") if _has_values(tensor) else _storage(tensor)
            faults["of another type"].append(f"{name} ({found} for {str(wanted).removeprefix('torch.')})")
            continue
        bad = tensor.numel() - int(torch.isfinite(tensor.to(wanted)).sum())
        if bad:
            faults["not finite"].append(f"{name} ({bad} of {tensor.numel()} values)")
        elif name.endswith("running_var") and bool((tensor < 0).any()):
            faults["negative variances"].append(name)
    return faults


def is_plain(tensor: Tensor) -> bool:
    """Whether it holds floating-point numbers as they are: nothing quantised, sparse or without values."""
    return tensor.dtype in FLOATS and _has_values(tensor)


def _is_type(name: str, found: torch.dtype, wanted: torch.dtype) -> bool:
    if wanted.is_floating_point:
        return found in FLOATS
    # Some tools store everything as floating point; a count survives it.
    return not found.is_complex and (not found.is_floating_point or name.endswith(_COUNTER))


def _has_values(tensor: Tensor) -> bool:
    return tensor.layout == torch.strided and tensor.device.type != "meta" and not tensor.is_quantized


def _storage(tensor: Tensor) -> str:
    if tensor.device.type == "meta":
        return "a shape without values"
    return f"quantised {tensor.dtype}" if tensor.is_quantized else f"stored as {tensor.layout}"
