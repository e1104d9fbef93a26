"""Weights in an ONNX graph: its initialisers, which our exports leave under the network's names."""

import importlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from backbones.errors import WeightsFileError

STATE_KEY = "state"
"""Of the header: by "counts" BatchNorm's counters, which a graph has no use for, by "constants" what is no weight."""


def is_graph(start: bytes) -> bool:
    """Whether a file that begins so is an ONNX model: its version, a number, and the name of what made it."""
    return start[:1] == b"\x08" and start[2:3] == b"\x12"


def read_graph(path: Path, header_key: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of an ONNX file under their names there, and what its metadata has under `header_key`.

    Raises:
        WeightsFileError: the package that reads it is not installed, the file is damaged, or its weights are elsewhere.
    """
    try:
        onnx: Any = importlib.import_module("onnx")
    except ImportError as error:
        raise WeightsFileError(f"{path} is an ONNX file, which needs the package onnx: pip install onnx.") from error
    try:
        model = onnx.load_model_from_string(path.read_bytes())
    except OSError:
        raise
    except Exception as error:  # protobuf's own
        raise WeightsFileError(f"{path} is a damaged ONNX file: {str(error)[:120]}.") from error
    if any(tensor.external_data for tensor in model.graph.initializer):
        raise WeightsFileError(f"{path} keeps its weights in other files: give the checkpoint that it was made from.")
    state = {
        tensor.name: torch.from_numpy(onnx.numpy_helper.to_array(tensor).copy())
        for tensor in model.graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT
    }
    told = next((entry.value for entry in model.metadata_props if entry.key == header_key), "{}")
    try:
        header = dict(json.loads(told))
    except (TypeError, ValueError):
        header = {}
    beside = header.pop(STATE_KEY, {"counts": {}, "constants": []})
    state |= {name: torch.tensor(count) for name, count in beside["counts"].items()}
    return {name: tensor for name, tensor in state.items() if name not in beside["constants"]}, header
