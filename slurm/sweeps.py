"""Sweeps: typed recipes for a whole table, expanded into the run graph of `python -m benchmarks run`."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from benchmarks.axes import Axes, request_of
from benchmarks.plan import DEMO_DATA, Profile, Stage, make_stages
from benchmarks.scenes.demo_data import write_demo_data


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sweep(Axes):
    """Models x methods x tasks x labels x seeds. A pre-training run is shared by every run that starts from it.

    All nodes must see the data sets, and the generated scenes of a demo.
    """

    models: tuple[str, ...]
    """Published names (r50, convnext_t, vit_b, ...) or any timm models."""
    finetune: tuple[str, ...] = ()
    """Classification recipes, all of them, instead of the model family's own."""
    profile: Profile = "paper"
    """As in `python -m benchmarks run`: demo, own, small, or the published recipes on ImageNet."""


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
    stages: dict[str, Stage] = {}
    for model in dict.fromkeys(sweep.models):
        for recipe in sweep.finetune or (None,):
            request = request_of(sweep, model, runs_dir=runs_dir, finetune=recipe, num_devices=num_tasks)
            stages |= {stage.name: stage for stage in make_stages(request) if stage.name not in stages}
    return list(stages.values())


def write_data(sweep: Sweep) -> None:
    """Write the generated scenes of a demo sweep, unless they are there."""
    if sweep.profile == "demo" and sweep.imagenet is None:
        write_demo_data(sweep.data or DEMO_DATA)
