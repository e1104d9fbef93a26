"""What `python -m benchmarks run` and a Slurm sweep can be asked alike, and the request that it makes for a model."""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro

from benchmarks.plan import METHODS, Profile, Request, data_sets
from engine.data.options import Unreadable

SEEDS = {"own": 3, "small": 3}
"""Fine-tuning runs per method by default, where it is not one."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Axes:
    """Methods x tasks x labels x seeds on the data sets given."""

    methods: tuple[str, ...] = METHODS
    """Pre-training methods, in the table's order; scratch is the control."""
    tasks: tuple[str, ...] | None = None
    """What the models are fine-tuned for; by default every task that has data (in the demo, all)."""
    profile: Profile = "demo"
    """demo: generated scenes, minutes on two CPU cores. own: does pre-training help on the class folders in --data, by
    the recipes that fit them. small: pictures of 32 to 96 pixels in --imagenet, such as CIFAR-10's. paper: the
    published recipes on ImageNet."""
    seeds: int | None = None
    """Fine-tuning runs per method: by default 1, and for own and small 3, from which on there are intervals."""
    labels: tuple[float, ...] = (1.0,)
    """Shares of the labelled images to train classifiers on (0.05 0.1 1), each by every method and seed."""
    pretrain_seeds: int = 1
    """Pre-training runs per method; fine-tuning seed i starts from number i modulo this."""
    data: Path | None = None
    """The class folders of own; for demo, where its generated scenes are, or are written (data/demo)."""
    pretrain_steps: int | None = None
    """Steps of each pre-training of own and small, instead of what fits the data set."""
    finetune_steps: int | None = None
    """Steps of each fine-tuning of own and small, likewise."""
    image_size: int | None = None
    """Of own and small, instead of what fits the pictures: from 64 on, of small 32, 64 or 96."""
    exclude: Annotated[Path | None, tyro.conf.arg(name="data.exclude")] = None
    """A list of images to leave out in pre-training and classification, as `python -m engine.verify DIR --list FILE`
    writes it."""
    unreadable: Annotated[Unreadable | None, tyro.conf.arg(name="data.unreadable")] = None
    """What these do at a training image that cannot be read, instead of stopping: take another one."""
    max_unreadable: Annotated[float | None, tyro.conf.arg(name="data.max-unreadable")] = None
    """How many they may skip: below 1 a share of the images, from 1 on a number."""
    max_pixels: Annotated[int | None, tyro.conf.arg(name="data.max-pixels")] = None
    """The largest picture that these accept, width times height."""
    imagenet: Path | None = None
    """ImageNet, or any image folder with train/ and val/ class folders."""
    coco: Path | None = None
    """COCO 2017, to fine-tune for detection too."""
    ade20k: Path | None = None
    """ADEChallengeData2016, to fine-tune for segmentation too."""
    framework: Literal["detectron2", "torchvision"] | None = None
    """Detection framework instead of the recipes' (paper: detectron2, demo: torchvision)."""
    num_workers: int | None = None
    """Loader processes per device, instead of the recipes'."""


def request_of(axes: Axes, model: str, *, runs_dir: Path, finetune: str | None, num_devices: int) -> Request:
    """What is asked of one model.

    Args:
        axes: of the command line.
        model: a published name or any timm model.
        runs_dir: folder of run folders.
        finetune: classification recipe instead of the model family's own.
        num_devices: processes that train a run together; counts for the paper profile, which keeps the published batch.

    Raises:
        ConfigError: the data sets do not go with the profile.
    """
    return Request(
        model=model,
        methods=axes.methods,
        profile=axes.profile,
        seeds=axes.seeds if axes.seeds is not None else SEEDS.get(axes.profile, 1),
        labels=axes.labels,
        pretrain_seeds=axes.pretrain_seeds,
        runs_dir=runs_dir,
        data=data_sets(axes.profile, axes.data, imagenet=axes.imagenet, coco=axes.coco, ade20k=axes.ade20k),
        tasks=axes.tasks,
        finetune=finetune,
        framework=axes.framework,
        num_devices=num_devices if axes.profile == "paper" else 1,
        num_workers=axes.num_workers,
        steps=(axes.pretrain_steps, axes.finetune_steps),
        image_size=axes.image_size,
        reading={
            name: str(value) if isinstance(value, Path) else value
            for name in ("exclude", "unreadable", "max_unreadable", "max_pixels")
            if (value := getattr(axes, name)) is not None
        },
    )
