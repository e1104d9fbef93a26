"""What each task is judged by: the one table of headline metrics, each with its protocol in its label."""

from collections.abc import Iterable, Sequence

TASKS = ("pretrain", "classification", "detection", "segmentation")
"""In the order of reading; a task that is not among them follows by its name."""

# By the names that runs give them. The first one that a run has is its task's headline, in every table and figure.
HEADLINES = {
    "pretrain": ("loss",),
    "classification": ("top1_best_last10", "top1_last"),
    "detection": ("box_AP", "box_AP_last"),
    "segmentation": ("mIoU", "mIoU_last"),
}
# What stands beside it in the tables that people read; a task without any is shown with all. The CSV holds every one.
OTHERS = {
    "classification": ("top1_last", "top5_last"),
    "detection": ("box_AP50", "mask_AP", "mask_AP_last", "mask_AP50"),
    "segmentation": ("mIoU_best", "mIoU_ms"),
}
_LABELS = {
    "loss": "training loss",
    "top1_best_last10": "top-1 (best of last 10 epochs)",
    "top1_last": "top-1 (last epoch)",
    "top5_last": "top-5 (last epoch)",
    "top1_best": "top-1 (best epoch)",
    "top5_best": "top-5 (best epoch)",
    "box_AP": "box AP (last iteration)",
    "box_AP_last": "box AP (last iteration)",
    "box_AP50": "box AP50 (last iteration)",
    "mask_AP": "mask AP (last iteration)",
    "mask_AP_last": "mask AP (last iteration)",
    "mask_AP50": "mask AP50 (last iteration)",
    "mIoU": "mIoU (last iteration)",
    "mIoU_last": "mIoU (last iteration)",
    "mIoU_best": "mIoU (best evaluation)",
    "mIoU_ms": "mIoU (last iteration, several scales and mirrored)",
}
# The numbers that papers print, by their name there: the names of a run that mean the same, the first it has is taken.
PUBLISHED = {
    "classification": {"top1": HEADLINES["classification"]},
    "probes": {"top1": HEADLINES["classification"]},
    "detection": {"box_AP": HEADLINES["detection"], "mask_AP": ("mask_AP", "mask_AP_last")},
    "segmentation": {"mIoU": HEADLINES["segmentation"]},
}
PUBLISHED_LABELS = {"top1": "top-1", "box_AP": "box AP", "mask_AP": "mask AP", "mIoU": "mIoU"}


def label(metric: str) -> str:
    """How people write a metric of a run, with the protocol it was measured by; its own name where it has no other."""
    return _LABELS.get(metric, metric)


def curve_label(metric: str) -> str:
    """The same for what was measured again and again: without a protocol, which chooses one of the values."""
    return label(metric).partition(" (")[0]


def headline(task: str, metrics: Sequence[str]) -> str:
    """The metric that a task is judged by, of those there are (at least one)."""
    return next((name for name in HEADLINES.get(task, ()) if name in metrics), metrics[0])


def talked_about(task: str) -> tuple[str, ...]:
    """The metrics that tables show of a task; () for one that shows all."""
    return (*HEADLINES.get(task, ()), *OTHERS.get(task, ()))


def task_place(task: str) -> tuple[int, str]:
    """Key to sort tasks by."""
    return (TASKS.index(task) if task in TASKS else len(TASKS), task)


def task_places(tasks: Iterable[str]) -> list[int]:
    """For each task its place among them in the order of reading."""
    found = list(tasks)
    order = {task: place for place, task in enumerate(sorted(set(found), key=task_place))}
    return [order[task] for task in found]
