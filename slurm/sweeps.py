"""Sweeps: typed recipes for a whole table, expanded into the run graph of `python -m benchmarks run`."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from benchmarks.plan import METHODS, Profile, Request, Stage, data_sets, make_stages
from benchmarks.scenes.demo_data import write_demo_data


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sweep:
    """Models x methods x seeds x tasks. A pre-training run is shared by every run that starts from it."""

    models: tuple[str, ...]
    """Published names (r50, convnext_t, vit_b, ...) or any timm models."""
    methods: tuple[str, ...] = METHODS
    """Pre-training methods; scratch is the control."""
    tasks: tuple[str, ...] | None = None
    """What each is fine-tuned for; by default every task that has data (in the demo, all)."""
    seeds: int = 1
    """Fine-tuning runs of each."""
    pretrain_seeds: int = 1
    """Pre-training runs of each; fine-tuning seed i starts from number i modulo this."""
    finetune: tuple[str, ...] = ()
    """Classification recipes, all of them, instead of the model family's own."""
    profile: Profile = "paper"
    """demo: generated scenes, minutes on CPUs. paper: the published recipes on ImageNet."""
    data: Path = Path("data/demo")
    """Where the demo's generated scenes are, or are written. All nodes must see it."""
    imagenet: Path | None = None
    """ImageNet, or any image folder with train/ and val/ class folders. All nodes must see it."""
    coco: Path | None = None
    """COCO 2017, to fine-tune for detection too."""
    ade20k: Path | None = None
    """ADEChallengeData2016, to fine-tune for segmentation too."""
    num_workers: int | None = None
    """Loader processes per GPU, instead of the recipes'."""


def paper_table() -> Sweep:
    """Every model with published pre-training recipes of both methods, one seed: the papers' ImageNet table.

    Cost: 50 runs, about 5,600 A100-hours as estimated by --dry-run, which adds them up for your choice of models.
    """
    return Sweep(models=(*cnn().models, "vit_s", "vit_b", "vit_l"))


def r50_all() -> Sweep:
    """ResNet-50 under every classification recipe the papers report it with, three seeds."""
    return Sweep(models=("r50",), finetune=("rsb-a2", "rsb-a3", "linear-probe"), seeds=3)


def cnn() -> Sweep:
    """The convolutional networks: ResNet-50 to -200, ConvNeXt-T/S/B."""
    return Sweep(models=("r50", "r101", "r152", "r200", "convnext_t", "convnext_s", "convnext_b"))


def vit() -> Sweep:
    """The Transformers: ViT-S/B/L, DeiT-S, Swin-T/B."""
    return Sweep(models=("vit_s", "vit_b", "vit_l", "deit_s", "swin_t", "swin_b"))


def seeds5() -> Sweep:
    """ResNet-50 and ViT-S, five fine-tuning seeds each: how much of a difference is chance."""
    return Sweep(models=("r50", "vit_s"), seeds=5)


def demo() -> Sweep:
    """What `make benchmark` runs: ResNet-50 on generated scenes, minutes on CPUs. Shows that the cluster works."""
    return Sweep(models=("r50",), profile="demo")


SWEEPS: dict[str, Callable[[], Sweep]] = {
    "demo": demo,
    "paper-table": paper_table,
    "r50-all": r50_all,
    "cnn": cnn,
    "vit": vit,
    "seeds5": seeds5,
}
"""Sweep name -> function returning it; its fields are flags of the command line."""


def expand(sweep: Sweep, runs_dir: Path, *, num_tasks: int) -> list[Stage]:
    """The runs, each once, parents before children.

    Args:
        sweep: what to run.
        runs_dir: folder of run folders.
        num_tasks: processes that train a run together; gradient accumulation makes up the published batch.

    Raises:
        ConfigError: a name is unknown, the data are not given, or the batch does not divide among the processes.
    """
    data = data_sets(sweep.profile, sweep.data, imagenet=sweep.imagenet, coco=sweep.coco, ade20k=sweep.ade20k)
    stages: dict[str, Stage] = {}
    for model in dict.fromkeys(sweep.models):
        for recipe in sweep.finetune or (None,):
            request = Request(
                model=model,
                methods=sweep.methods,
                profile=sweep.profile,
                seeds=sweep.seeds,
                pretrain_seeds=sweep.pretrain_seeds,
                runs_dir=runs_dir,
                data=data,
                tasks=sweep.tasks,
                finetune=recipe,
                num_devices=num_tasks if sweep.profile == "paper" else 1,
                num_workers=sweep.num_workers,
            )
            stages |= {stage.name: stage for stage in make_stages(request) if stage.name not in stages}
    return list(stages.values())


def write_data(sweep: Sweep) -> None:
    """Write the generated scenes of a demo sweep, unless they are there."""
    if sweep.profile == "demo" and sweep.imagenet is None:
        write_demo_data(sweep.data)
