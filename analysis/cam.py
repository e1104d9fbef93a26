"""Class activation maps through the grad-cam package, on any backbone."""

import logging
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from analysis.config import CamConfig
from analysis.robustness import classes
from analysis.subject import Line, Measurement, Subject
from backbones.errors import BackboneError
from backbones.layout import Layout, find_layout
from engine.errors import ConfigError
from engine.run.storage import write_atomic

log = logging.getLogger("mim")
FILE = "maps.safetensors"
"""In the run folder: `images` (N, 3, H, W) between 0 and 1 and `maps` (N, H, W) between 0 and 1."""
_CLASSES = {
    "gradcam": "GradCAM",
    "gradcam++": "GradCAMPlusPlus",
    "xgradcam": "XGradCAM",
    "eigencam": "EigenCAM",
    "eigengradcam": "EigenGradCAM",
    "layercam": "LayerCAM",
}


def measure(config: CamConfig, subject: Subject, folder: Path) -> Measurement:
    """The map of the true class of every image.

    Args:
        config: method and layer.
        subject: the encoder, its readout and its images.
        folder: of the run; gets FILE.

    Raises:
        ConfigError: the grad-cam package is not installed, or there is no such layer.
        DataError: an image cannot be read.
    """
    try:
        import pytorch_grad_cam
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
    except ImportError as error:
        raise ConfigError(f"cam needs the grad-cam package ({error}): pip install -e '.[analysis]'") from error
    assert subject.readout is not None
    network = subject.readout.network
    name, layout = target_layer(network, subject, config.layer)
    method = getattr(pytorch_grad_cam, _CLASSES[config.method])
    maps, pictures, lines = [], [], []
    with method(network, [network.get_submodule(name)], reshape_transform=_to_map(layout)) as cam:
        for number in range(len(subject.images)):
            pixels, label = subject.images.read(number)
            image = subject.prepared(pixels)[None].requires_grad_()
            target = ClassifierOutputTarget(subject.readout.columns[label])
            found = cam(image, targets=[target], eigen_smooth=config.eigen_smooth)
            maps.append(torch.from_numpy(found[0]).float())
            pictures.append(pixels)
            guess = int(classes(subject, image.detach()))
            lines.append(Line(number, {"label": label, "predicted": guess}))
    content = safetensors.torch.save({"images": torch.stack(pictures), "maps": torch.stack(maps)})
    write_atomic(folder / FILE, content)
    right = sum(line.values["label"] == line.values["predicted"] for line in lines)
    log.info("%s: %s at %s, %d of %d images classified rightly", subject.label, config.method, name, right, len(lines))
    facts = {"layer": name, "readout": subject.readout.name, "classes": list(subject.images.index.classes)}
    return Measurement(lines, {"top1": 100 * right / len(lines)}, facts)


def target_layer(network: nn.Module, subject: Subject, wanted: str) -> tuple[str, Layout]:
    """The layer whose maps are weighted, and how they lie in memory.

    By default the last norm layer that gives maps. Where these are tokens, the first norm of the last block: behind the
    last attention only the class token may count.

    Args:
        network: images -> scores.
        subject: for its images and the layout of its encoder.
        wanted: a name of a module; "" for the default.

    Raises:
        ConfigError: there is no such module, or it gives no maps.
    """
    net = subject.encoder.backbone.net
    prefix, last = int(getattr(net, "num_prefix_tokens", 0)), getattr(net, "output_fmt", "NCHW") == "NHWC"
    layouts: dict[str, Layout] = {}

    def look(name: str, output: Any) -> None:
        if not isinstance(output, Tensor):
            return
        try:
            layout = find_layout(output.shape, num_prefix=prefix, channels_last=last, where=name)
        except BackboneError:
            return
        if min(layout.grid) > 1:
            layouts[name] = layout

    handles = [
        module.register_forward_hook(lambda _, __, output, name=name: look(name, output))
        for name, module in network.named_modules()
        if name
    ]
    with torch.inference_mode():
        network(subject.prepared(subject.images.read(0)[0])[None])
    for handle in handles:
        handle.remove()
    norms = [name for name in layouts if "norm" in type(network.get_submodule(name)).__name__.lower()]
    tokens = [name for name in norms if layouts[name].kind == "tokens"]
    known = wanted or (tokens[-3] if len(tokens) > 2 else (norms or list(layouts))[-1])
    if known not in layouts:
        raise ConfigError(
            f"layer {known} gives no map of features; the last ones that do: {', '.join(list(layouts)[-5:])}"
        )
    return known, layouts[known]


def _to_map(layout: Layout) -> Any:
    return None if layout.kind == "nchw" else layout.to_map
