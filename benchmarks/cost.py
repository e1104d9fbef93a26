"""What a benchmark will cost before it starts: GPU-hours from counted operations, an estimate and said to be one."""

import functools
import math

import torch
from torch.utils.flop_counter import FlopCounterMode

from backbones import build_backbone
from benchmarks.plan import Stage
from suite_tasks import find

# Sustained rate assumed for one GPU: a quarter of an A100's 312 bfloat16 TFLOP/s for convolutions, which is what
# well-tuned ResNet-50 training reaches (about 2,500 images/s), and 40 % for Transformers.
SUSTAINED = {True: 0.25 * 312e12, False: 0.4 * 312e12}
IMAGENET_IMAGES = 1_281_167
BACKWARD_FACTOR = 3  # a backward pass costs two forward passes


def gpu_hours(stage: Stage, num_images: int = IMAGENET_IMAGES) -> float:
    """A100-hours of a run: images seen x 3 forward passes of the encoder, at the sustained rate above.

    Tasks with large heads count several times the encoder (their entry's `cost`).
    """
    config, size = stage.config, min(stage.config.image_size, 512)
    seen = num_images * config.epochs if hasattr(config, "epochs") else config.iterations * config.batch_size
    flops, is_cnn = forward_flops(config.model, size)
    area = (config.image_size / size) ** 2
    return float(seen * BACKWARD_FACTOR * find(stage.package).cost * area * flops / SUSTAINED[is_cnn] / 3600)


@functools.cache
def forward_flops(model: str, image_size: int) -> tuple[float, bool]:
    """(floating-point operations of one image's forward pass, whether the encoder is convolutional)."""
    with torch.device("meta"), torch.no_grad():  # shapes without numbers: nothing is initialised or computed
        encoder = build_backbone(model, image_size=image_size).eval()
        with FlopCounterMode(display=False) as counter:
            encoder(torch.zeros(1, 3, image_size, image_size))
    return float(counter.get_total_flops()), encoder.is_cnn


def describe(stages: list[Stage], num_devices: int, num_images: int) -> str:
    """What will run, the effective batch of each run, and its estimated cost."""
    lines, total = [], 0.0
    for stage in stages:
        config = stage.config
        hours = gpu_hours(stage, num_images)
        total += hours
        pieces = config.accumulation
        share = config.batch_size // (num_devices * pieces)
        length = f"{config.epochs} epochs" if hasattr(config, "epochs") else f"{config.iterations} iterations"
        lines.append(
            f"  {stage.name}: {stage.recipe}, {length} at {config.image_size} px, "
            f"batch {config.batch_size} = {num_devices} devices x {share} images x {pieces} accumulation steps, "
            f"peak learning rate {config.learning_rate:g}, {_about(hours)} GPU-hours"
        )
    wall = total / num_devices
    lines.append(
        f"  in all {_about(total)} GPU-hours, {_about(wall)} hours on {num_devices} devices. Estimated from "
        "operation counts for an A100 in bfloat16; measure your own with: python -m benchmarks throughput"
    )
    return "\n".join(lines)


def _about(hours: float) -> str:
    """Two significant digits: an estimate is no better than that."""
    if hours < 0.01:
        return "less than 0.01"
    magnitude = math.floor(math.log10(hours))
    return f"about {round(hours, 1 - magnitude):,.{max(1 - magnitude, 0)}f}"
