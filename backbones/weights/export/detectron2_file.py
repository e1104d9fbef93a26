"""A network for Detectron2: a file for its DetectionCheckpointer, which finds a model's backbone by the names' ends."""

from pathlib import Path

from backbones.weights.containers import HEADER_KEY
from backbones.weights.keymaps import find_keymap, to_detectron2

from .counterparts import detectron2, swin_remarks
from .trained import Trained
from .written import Written, torch_bytes, write_hashed


def write(trained: Trained, out: Path, stem: str) -> Written:
    """Write the encoder; its three lines are for a LazyConfig, such as Detectron2's mask_rcnn_R_50_FPN_1x.py.

    Raises:
        WeightsError: Detectron2 has no such network.
        WeightsFileError: it cannot be written.
    """
    found = detectron2(trained.model, trained.net)
    remarks = ["the classifier is left out"] if trained.num_classes else []
    if found.kind == "ResNet":
        state = to_detectron2(trained.state)
    else:
        encoder = {name: tensor for name, tensor in trained.state.items() if not name.startswith("head.")}
        state = find_keymap("microsoft", "swin").from_timm(encoder)
        state = {f"norm3{name[4:]}" if name.startswith("norm.") else name: tensor for name, tensor in state.items()}
        remarks += swin_remarks(trained.net, "Detectron2")
    content = {
        "model": {name: tensor.contiguous() for name, tensor in state.items()},
        "__author__": "mim-benchmark",
        "matching_heuristics": True,  # else it expects its own training state beside the weights
        "meta": {HEADER_KEY: dict(trained.header)},
    }
    path = write_hashed(out, stem, ".pth", torch_bytes(content))
    return Written(path, configuration(trained, path), tuple(remarks))


def configuration(trained: Trained, path: Path) -> tuple[str, ...]:
    """The three lines of a LazyConfig `cfg` that start its model from the file at `path`.

    Raises:
        WeightsError: Detectron2 has no such network.
    """
    found = detectron2(trained.model, trained.net)
    if found.kind == "SwinTransformer":
        arguments = ", ".join(f"{name}={value}" for name, value in found.options.items())
        network = f"cfg.model.backbone.bottom_up = L(SwinTransformer)({arguments})"
    elif found.options["depth"] == 200:
        network = "cfg.model.backbone.bottom_up.stages = ...  # by ResNet.make_stage: 3, 24, 36 and 3 bottlenecks"
    else:
        network = f"cfg.model.backbone.bottom_up.stages.update(depth={found.options['depth']}, stride_in_1x1=False)"
    mean, std = ([round(255 * value, 3) for value in values] for values in (trained.mean, trained.std))
    return (
        f'cfg.train.init_checkpoint = "{path}"',
        network,
        f'cfg.model.update(input_format="RGB", pixel_mean={mean}, pixel_std={std})',
    )
