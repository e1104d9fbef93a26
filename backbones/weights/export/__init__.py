"""Weights for other libraries, as their own loaders read them: `python -m backbones export`."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from backbones.errors import WeightsError

from .written import Written

if TYPE_CHECKING:
    from .trained import Trained

__all__ = ["Written", "export"]


def export(
    source: str | Path,
    out: str | Path,
    to: str,
    *,
    model: str | None = None,
    image_size: int | None = None,
    encoder_only: bool = False,
) -> Written:
    """Write the network of a run folder or a file of weights for another library.

    Args:
        source: the folder of a pre-training or classification run, or a file of weights in anybody's names.
        out: timm and hf: the new folder; else a file's name, to which the first digits of its sha256 are added, or a
            folder for it.
        to: timm, hf, torchvision, onnx, detectron2, mmseg, mmdet, mmpretrain or openmixup.
        model, image_size: where the file does not say them.
        encoder_only: leave out a classifier.

    Raises:
        WeightsError: that library has no such network, or computes something else from the weights.
        WeightsFileError: a file is missing or damaged, or cannot be written.
        BackboneError: there is no such network.
    """
    from . import detectron2_file, onnx_file, openmmlab_file, timm_folder, torchvision_file
    from .trained import read_trained

    writers: dict[str, Callable[[Trained, Path, str], Written]] = {
        "timm": lambda trained, folder, _: timm_folder.write(trained, folder),
        "hf": lambda trained, folder, _: timm_folder.write(trained, folder, hub=True),
        "torchvision": torchvision_file.write,
        "onnx": onnx_file.write,
        "detectron2": detectron2_file.write,
        **{library: partial(openmmlab_file.write, library=library) for library in openmmlab_file.LIBRARIES},
    }
    if to not in writers:
        raise WeightsError(f"nothing can be exported to {to!r}; known: {', '.join(writers)}.")
    trained = read_trained(Path(source), model=model, image_size=image_size, encoder_only=encoder_only)
    method = str(trained.description.get("method") or "weights").replace(" ", "-")
    written = writers[to](trained, Path(out), f"{trained.model.rpartition(':')[2]}-{method}-{to}")
    return Written(written.path, written.lines, (*trained.remarks, *written.remarks))
