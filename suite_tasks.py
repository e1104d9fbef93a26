"""THE table of tasks: a task is a package and one entry here (docs/adding-a-task.md makes one).

A run folder names its task in config.json as `package`. benchmarks/, slurm/, results/ and the tests learn from this
table what there is to know of it beside that; no package is imported for it, so it can be read without torch.

    TASKS            every entry, in the order of tables, figures and pages
    find(name)       the entry of a package; one that only knows the name for a package that is not here, whose runs are
                     collected and shown all the same, by all their metrics
    of_kind(kind)    the entries of a kind

A package that only measures encoders, whose run folders shall appear in tables and page, adds
`Entry(name="...", title="...", headline=(...), labels={...})`, and `percent=False` where they are no percentages.
Its run folders hold what every run folder holds (results/runs/runfolder.py): config.json with `package`, `recipe`, and
`model`, `init`, `seed` in the configuration; metrics.jsonl with the measured numbers as "val" lines; finished.json with
the same in `metrics`.
"""

import importlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from suite_error import SuiteError

Kind = Literal["pretraining", "finetuning", "measurement"]
VARIABLE = "MIM_TASKS"
"""Environment variable that names modules with further entries, separated by commas; each has an ENTRY."""


@dataclass(frozen=True, kw_only=True)
class Topic:
    """Numbers that papers print of a task, in results/published/<name>.csv, and the table they are compared in."""

    name: str
    """Of the file of published numbers."""
    table: str
    """Name of the table's files; where `by_family`, each family's is <table>-<family>."""
    title: str
    """Above the table."""
    dataset: str
    """The data set of the literature that is shown, as results/published calls it."""
    metrics: Mapping[str, tuple[str, ...]]
    """Name in papers -> the names of runs that mean the same; the first that a run has is compared."""
    by_family: bool = False
    """Whether it has a table for each family of architectures, and the summary."""
    probes: bool = False
    """Whether it is about runs with a frozen encoder."""
    control: str = "fine-tuned"
    """Protocol that papers print for training without pre-training."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One task."""

    name: str
    """Of its package: `python -m <name>`, and `package` in its run folders."""
    kind: Kind = "measurement"
    """"pretraining" makes an encoder, and its losses compare nothing; "finetuning" trains from one and is a stage of
    the benchmark; "measurement" looks at one."""
    title: str = ""
    """Above its table, where it has no topics; "" for its name."""
    headline: tuple[str, ...] = ()
    """What it is judged by: the first of these metrics that a run has."""
    others: tuple[str, ...] = ()
    """Metrics that stand beside it in tables; a task without headline is shown with all it has."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """How people write its metrics, with the protocol in brackets behind."""
    length: Literal["epochs", "iterations"] = "epochs"
    """What its training is counted in."""
    percent: bool = True
    """Whether all numbers but losses and counts lie in 0 to 100; else any finite number is possible."""
    trains_on_part: bool = False
    """Whether it may leave out some of the images that data.json counts, such as those without an object."""
    topics: tuple[Topic, ...] = ()
    """What papers print of it."""
    data: str = ""
    """Of a stage of the benchmark: its data set, one of DATA_SETS."""
    needs: tuple[str, ...] = ()
    """Modules without which the demo leaves the task out."""
    images_per_device: int | None = None
    """How many a GPU holds at once in the published runs; None: as many as the encoder's own training."""
    cost: float = 1.0
    """Operations of the whole network over those of the encoder on a square of the shorter side."""
    short: tuple[str, ...] = ()
    """Flags that make its demo a run of a few steps."""
    folder_flag: str = "--run-dir"
    """Of its command, where a run goes; of one that names its run folders itself, the folder of these."""


DATA_SETS: Mapping[str, str] = {"imagenet": "imagenet", "coco": "coco", "ade20k": "ADEChallengeData2016"}
"""Flag of `python -m benchmarks run` -> the folder of the generated scenes that stands in for it in the demo."""

_TOP1 = ("top1_best_last10", "top1_last")
_BOXES = ("box_AP", "box_AP_last")
_MIOU = ("mIoU", "mIoU_last")
_SHORT = ("--iterations", "2", "--schedule.warmup-iterations", "1", "--init", "none")

_SUITE: tuple[Entry, ...] = (
    Entry(
        name="pretrain",
        kind="pretraining",
        headline=("loss",),
        labels={"loss": "training loss"},
        percent=False,
        data="imagenet",
        short=("--epochs", "1"),
    ),
    Entry(
        name="classification",
        kind="finetuning",
        headline=_TOP1,
        others=("top1_last", "top5_last"),
        labels={
            "top1": "top-1",
            "top1_best_last10": "top-1 (best of last 10 epochs)",
            "top1_last": "top-1 (last epoch)",
            "top5_last": "top-5 (last epoch)",
            "top1_best": "top-1 (best epoch)",
            "top5_best": "top-5 (best epoch)",
        },
        topics=(
            Topic(
                name="classification",
                table="classification",
                title="Classification",
                dataset="ImageNet-1K",
                metrics={"top1": _TOP1},
                by_family=True,
                control="from scratch",
            ),
            Topic(
                name="probes",
                table="probes",
                title="Linear probes: top-1 accuracy of a frozen encoder, %",
                dataset="ImageNet-1K",
                metrics={"top1": _TOP1},
                probes=True,
            ),
        ),
        data="imagenet",
        short=("--epochs", "1", "--schedule.warmup-epochs", "0", "--init", "none"),
    ),
    Entry(
        name="detection",
        kind="finetuning",
        headline=_BOXES,
        others=("box_AP50", "mask_AP", "mask_AP_last", "mask_AP50"),
        labels={
            "box_AP": "box AP (last iteration)",
            "box_AP_last": "box AP (last iteration)",
            "box_AP50": "box AP50 (last iteration)",
            "mask_AP": "mask AP (last iteration)",
            "mask_AP_last": "mask AP (last iteration)",
            "mask_AP50": "mask AP50 (last iteration)",
        },
        length="iterations",
        trains_on_part=True,
        topics=(
            Topic(
                name="detection",
                table="coco",
                title="Detection and instance segmentation: AP, %",
                dataset="COCO 2017",
                metrics={"box_AP": _BOXES, "mask_AP": ("mask_AP", "mask_AP_last")},
            ),
        ),
        data="coco",
        images_per_device=2,
        cost=5,  # for R50: Mask R-CNN with FPN 3 times the encoder, and 1.6 for the longer side
        short=(*_SHORT, "--data.num-val", "10"),
    ),
    Entry(
        name="segmentation",
        kind="finetuning",
        headline=_MIOU,
        others=("mIoU_best", "mIoU_ms"),
        labels={
            "mIoU": "mIoU (last iteration)",
            "mIoU_last": "mIoU (last iteration)",
            "mIoU_best": "mIoU (best evaluation)",
            "mIoU_ms": "mIoU (last iteration, several scales and mirrored)",
        },
        length="iterations",
        topics=(
            Topic(
                name="segmentation",
                table="ade20k",
                title="Semantic segmentation: mIoU, %",
                dataset="ADE20K",
                metrics={"mIoU": _MIOU},
            ),
        ),
        data="ade20k",
        needs=("mmseg", "cv2"),
        images_per_device=4,
        cost=6,  # for R50: UPerNet 6 times the encoder
        short=_SHORT,
    ),
    Entry(
        name="evaluation",
        title="What a frozen encoder is worth",
        folder_flag="--runs-dir",
        headline=("top1", "top1_1shot", "mIoU", "mCE", "rank_me"),
        others=(
            *("top1_low", "top1_high", "top5", "top1_best", "top1_best_of_grid", "top1_held_out"),
            *("top1_cls_before", "top1_cls_after", "top1_mean_before", "top1_mean_after"),
            *("top1_2shot", "top1_5shot", "top1_1shot_std", "top1_2shot_std", "top1_5shot_std"),
            *("top1_real", "top1_v2", "top1_r", "top1_r_clean", "top1_a", "top1_a_clean", "top1_sketch"),
            *("mCE", "mean_corruption_error", "mIoU_low", "mIoU_high", "mIoU_held_out"),
        ),
        labels={
            "top1_low": "top-1 (2.5 % bound)",
            "top1_high": "top-1 (97.5 % bound)",
            "top5": "top-5",
            "top5_dino": "top-5 (as DINO counts)",
            "top1_best_of_grid": "top-1 (best of the grid, chosen on val)",
            "top1_held_out": "top-1 (on what the head was chosen on)",
            "top1_cls_before": "top-1 (class token before the norm)",
            "top1_cls_after": "top-1 (class token after the norm)",
            "top1_mean_before": "top-1 (mean before the norm)",
            "top1_mean_after": "top-1 (mean after the norm)",
            "top1_1shot": "top-1 (1 image a class)",
            "top1_2shot": "top-1 (2 images a class)",
            "top1_5shot": "top-1 (5 images a class)",
            "rank_me": "effective rank (RankMe)",
            "top1_real": "top-1 (ReaL)",
            "top1_v2": "top-1 (ImageNet-V2)",
            "top1_r": "top-1 (ImageNet-R, of its 200 classes)",
            "top1_r_clean": "top-1 (ImageNet, of R's 200 classes)",
            "top1_a": "top-1 (ImageNet-A, of its 200 classes)",
            "top1_a_clean": "top-1 (ImageNet, of A's 200 classes)",
            "top1_sketch": "top-1 (ImageNet-Sketch)",
            "mCE": "mCE (ImageNet-C, lower is better)",
            "mean_corruption_error": "mean error (ImageNet-C, not over AlexNet's)",
            "mIoU_low": "mIoU (2.5 % bound)",
            "mIoU_high": "mIoU (97.5 % bound)",
            "mIoU_held_out": "mIoU (on what k was chosen on)",
        },
    ),
    Entry(
        name="analysis",
        title="What explains an encoder",
        folder_flag="--out",
        headline=("J_middle", "high_frequency_last", "top1", "cka_mean", "loss_of_weights"),
        others=(
            *("J_low", "J_high", "J_change", "variance_last", "loss_rise_within_half", "cka_of_last"),
            *("top1_drop_mean", "top1_shuffle_mean", "top1_low_pass_mean", "top1_high_pass_mean"),
        ),
        labels={
            "J_low": "J (orders below 0.3n)",
            "J_middle": "J (orders 0.3n to 0.7n)",
            "J_high": "J (orders above 0.7n)",
            "J_change": "change of J (contexts doubled)",
            "high_frequency_last": "Δ log amplitude (last depth, highest frequency)",
            "variance_last": "feature variance (last depth)",
            "loss_of_weights": "loss (of the weights)",
            "loss_rise_within_half": "rise of the loss (within half a filter norm)",
            "cka_mean": "CKA (mean over all pairs of depths)",
            "cka_of_last": "CKA (last depth of both)",
            "top1_drop_mean": "top-1 (patches dropped, mean over ratios)",
            "top1_shuffle_mean": "top-1 (patches shuffled, mean over grids)",
            "top1_low_pass_mean": "top-1 (low-pass, mean over radii)",
            "top1_high_pass_mean": "top-1 (high-pass, mean over radii)",
        },
        percent=False,
    ),
)


def _outside() -> list[Entry]:
    entries = []
    for module in filter(None, os.environ.get(VARIABLE, "").split(",")):
        try:
            entry = importlib.import_module(module.strip()).ENTRY
        except (ImportError, AttributeError) as error:
            raise UnknownTaskError(f"{VARIABLE}: {module.strip()!r} is no module with an ENTRY ({error})") from error
        if not isinstance(entry, Entry):
            raise UnknownTaskError(f"{VARIABLE}: ENTRY of {module.strip()!r} is no suite_tasks.Entry")
        entries.append(entry)
    return entries


class UnknownTaskError(SuiteError):
    """A task that was named is none."""

    exit_code = 2


TASKS: tuple[Entry, ...] = (*_SUITE, *_outside())
"""Every task, in the order of reading."""


def find(name: str) -> Entry:
    """The entry of a package; of one that is not in the table all that is known is its name."""
    return next((entry for entry in TASKS if entry.name == name), Entry(name=name))


def of_kind(kind: Kind) -> tuple[Entry, ...]:
    """The entries of a kind, in order."""
    return tuple(entry for entry in TASKS if entry.kind == kind)
