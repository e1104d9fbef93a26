"""What `python -m benchmarks throughput` is asked; apart from the measuring, so that --help imports no torch."""

import dataclasses
from pathlib import Path
from typing import Literal

from pretrain.config import DataConfig

Part = Literal["steps", "precision", "loader"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Throughput:
    """Measure training steps and the image loader, print a table and write it as CSV and JSON.

    Every line compares two ways of doing the same work, timed alternately; the ratio's median and quartiles hold on a
    busy machine where images/s do not.
    """

    only: tuple[Part, ...] = ("steps", "precision", "loader")
    """steps: A2MIM and SimMIM against the same encoder and decoder with a plain mean loss. precision: bfloat16 and
    channels_last against float32; on a GPU also compilation, on a CPU keeping freed memory. loader: images per second
    of one core."""
    models: tuple[str, ...] = ("r50", "vit_b")
    """Published names, or any timm model."""
    image_size: int = 224
    """Side of the images in pixels."""
    batch_size: int | None = None
    """Images in a step; by default 128 on a GPU, on a CPU 16, for transformers 8."""
    pairs: int = 7
    """Timings of each of the two; an odd number has a median that was measured."""
    precision: Literal["float32", "tf32", "bfloat16", "float16"] | None = None
    """Of the steps; by default bfloat16 on a GPU, float32 on a CPU."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the steps run."""
    data: Path | None = None
    """Folder of images for the loader; by default generated JPEGs of 500x375 pixels."""
    num_images: int = 64
    """How many are generated."""
    crop_scale: tuple[float, float] = DataConfig.crop_scale
    """Area of the loader's random crop."""
    output: Path = Path("benchmarks/speed/measured")
    """Folder for the CSV and the JSON file; the latter also has every timing, the machine and the versions."""
