"""What --dry-run says about cost."""

from collections.abc import Sequence
from pathlib import Path

from benchmarks import cost
from benchmarks.plan import PRETRAINING, Stage
from suite_tasks import find

DEMO_IMAGES = 800


def estimate(stages: Sequence[Stage], num_devices: int) -> str:
    """Each run's effective batch and GPU-hours, and their sum; empty without runs.

    Args:
        stages: of published models.
        num_devices: processes that train a run together.
    """
    return cost.describe(list(stages), num_devices, _num_images(stages)) if stages else ""


def _num_images(stages: Sequence[Stage]) -> int:
    """Of the demo's scenes if they are written, else of ImageNet: counting a million files takes minutes."""
    first = next((stage for stage in stages if find(stage.package).data == PRETRAINING.data), None)
    if first is None or first.recipe != "demo":
        return cost.IMAGENET_IMAGES
    return sum(1 for _ in Path(first.config.data.root, "train").glob("*/*")) or DEMO_IMAGES
