"""A network for ONNX: its maps, or its logits, as a graph that needs neither torch nor timm."""

import contextlib
import importlib.util
import io
import json
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from backbones.encoder import Backbone, is_fixed_size
from backbones.errors import WeightsError
from backbones.weights.containers import HEADER_KEY
from backbones.weights.graph import STATE_KEY
from backbones.weights.keymaps import State

from .counterparts import refused
from .trained import Trained
from .written import Written, write_hashed

_TOLERANCE = 1e-4
"""Of the runtime's outputs, relative to the largest: it adds in another order."""
INSTALL = 'pip install -c constraints.txt -e ".[onnx]"'


class _Maps(nn.Module):
    """An encoder's maps, finest first, and its final map: from one forward pass, or from two."""

    def __init__(self, encoder: Backbone, *, once: bool) -> None:
        super().__init__()
        self.net = encoder.net
        self.encoder = (encoder,)  # in a tuple, so that weights keep the names that they have in `net`
        self.once = once

    def forward(self, images_bchw: Tensor) -> tuple[Tensor, ...]:
        encoder = self.encoder[0]
        if not self.once:
            return (*encoder.features(images_bchw), encoder(images_bchw))
        last, maps = self.net.forward_intermediates(
            images_bchw, indices=encoder.stages, norm=False, output_fmt="NCHW", intermediates_only=False
        )
        return (*maps, encoder.final_map(last))


def _maps(encoder: Backbone, images_bchw: Tensor) -> _Maps:
    """The module that needs one pass, if it gives the same."""
    twice, once = _Maps(encoder, once=False).eval(), _Maps(encoder, once=True).eval()
    with torch.no_grad(), contextlib.suppress(Exception):  # whatever a network of one's own raises at the request
        if all(map(torch.equal, twice(images_bchw), once(images_bchw))):
            return once
    return twice


def write(trained: Trained, out: Path, stem: str) -> Written:
    """Write the graph: `images` (B, C, H, W), normalised, to `map0`, ... and `final`, or to `logits`.

    The batch is free; height and width too where the network takes any size. The header is in the metadata, under
    `backbone`, the names of classes there.

    Raises:
        WeightsError: the exporter is not installed, or the network cannot be written as a graph.
        WeightsFileError: it cannot be written.
    """
    lacking = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if lacking:
        raise WeightsError(f"--to onnx needs {' and '.join(lacking)}, not installed here: {INSTALL}.")
    encoder = None if trained.num_classes else trained.encoder()
    images = torch.randn(1, *trained.image_shape, generator=torch.Generator().manual_seed(0))
    model = _maps(encoder, images) if encoder else trained.net
    outputs = [*(f"map{i}" for i in range(len(encoder.channels))), "final"] if encoder else ["logits"]
    free = not is_fixed_size(trained.net)
    remarks: tuple[str, ...] = ()
    try:
        program = _graph(model.eval(), outputs, trained, free=free)
    except Exception as error:  # from inside torch's exporter: whatever a network holds that no graph can
        if not free:
            raise _no_graph(trained, error) from error
        try:
            program, remarks = _graph(model.eval(), outputs, trained, free=False), (_fixed(trained),)
        except Exception as again:
            raise _no_graph(trained, again) from again
    proto = program.model_proto
    entry = proto.metadata_props.add()
    header = {**trained.header, STATE_KEY: _beside(model.state_dict(), [t.name for t in proto.graph.initializer])}
    entry.key, entry.value = HEADER_KEY, json.dumps(header, sort_keys=True)
    content = proto.SerializeToString(deterministic=True)
    _compare(trained, model, content, images)
    path = write_hashed(out, stem, ".onnx", content)
    lines = (
        f'session = onnxruntime.InferenceSession("{path}")',
        f'{", ".join(outputs)}{"," if len(outputs) == 1 else ""} = session.run(None, {{"images": images}})',
    )
    return Written(path, lines, remarks)


def _beside(state: State, names: list[str]) -> dict[str, Any]:
    """What of the weights is not in the graph, and what in the graph is no weight, for who reads them back."""
    counts = {name: int(state[name]) for name in state if name.endswith("num_batches_tracked")}
    return {"counts": counts, "constants": [name for name in names if name not in state]}


def _graph(model: nn.Module, outputs: list[str], trained: Trained, *, free: bool) -> Any:
    axes = torch.export.Dim.DYNAMIC
    shapes = {0: axes, 2: axes, 3: axes} if free else {0: axes}
    images = torch.zeros(2, *trained.image_shape)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
        warnings.simplefilter("ignore")
        return torch.onnx.export(
            model,
            (images,),
            input_names=["images"],
            output_names=outputs,
            dynamic_shapes=(shapes,),
            optimize=False,  # weights keep their names and values; onnxruntime optimises when it loads
            verbose=False,
        )


def _fixed(trained: Trained) -> str:
    return f"height and width are fixed, {trained.image_size} pixels: the graph of this network depends on them"


def _no_graph(trained: Trained, error: Exception) -> WeightsError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    return refused(trained.model, f"torch cannot write it as a graph ({reason.rstrip('.')})")


def _compare(trained: Trained, model: nn.Module, content: bytes, images: Tensor) -> None:
    """Refuse a graph that onnxruntime, where it is installed, does not run to the same outputs."""
    if importlib.util.find_spec("onnxruntime") is None:
        return
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    found = session.run(None, {"images": images.numpy()})
    with torch.no_grad():
        expected = model(images)
    for ours, theirs in zip([expected] if isinstance(expected, Tensor) else expected, found, strict=True):
        if (ours - torch.from_numpy(theirs)).abs().max() > _TOLERANCE * ours.abs().max().clamp(min=1e-12):
            raise refused(trained.model, "onnxruntime computes something else from its graph")
