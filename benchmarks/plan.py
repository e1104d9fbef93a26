"""What a benchmark runs: a graph of run folders, from pre-training to every task, for each method and seed."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import classification.recipes
import pretrain.recipes
from backbones import find_architecture
from engine import config
from engine.errors import ConfigError
from engine.run import prepare

METHODS = ("scratch", "simmim", "a2mim")
TASKS = ("classification",)
Profile = Literal["demo", "paper"]


@dataclass(frozen=True)
class Stage:
    """One run of the graph. `needs` names the stages that must be finished before it."""

    name: str
    package: str
    recipe: str
    config: Any
    needs: tuple[str, ...] = ()

    def folder(self, runs_dir: Path) -> Path:
        """Where it runs."""
        return runs_dir / self.name


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to benchmark.

    Args:
        model: a published name or any timm model.
        methods: of METHODS, in table order.
        tasks: of TASKS; what each pre-trained model is fine-tuned for.
        profile: "demo" for minutes on two CPU cores, "paper" for the published recipes.
        seeds: fine-tuning runs per method, seeds 0 to seeds - 1.
        pretrain_seeds: pre-training runs per method; fine-tuning seed i starts from number i modulo this.
        runs_dir: folder of run folders.
        imagenet: folder with train/ and val/.
        finetune: classification recipe instead of the model family's own.
        num_devices: processes that train together, for the accumulation that keeps the published batch.
        num_workers: loader processes of each, or the recipe's.
    """

    model: str
    methods: tuple[str, ...] = METHODS
    tasks: tuple[str, ...] = TASKS
    profile: Profile = "demo"
    seeds: int = 1
    pretrain_seeds: int = 1
    runs_dir: Path = field(default_factory=lambda: Path("runs"))
    imagenet: Path
    finetune: str | None = None
    num_devices: int = 1
    num_workers: int | None = None


def make_stages(request: Request) -> list[Stage]:
    """The graph in an order that respects every dependency.

    Raises:
        ConfigError: the model, a method or a recipe does not exist, or a configuration has problems.
        BackboneError: the model does not exist.
    """
    find_architecture(request.model)
    unknown = [name for name in (*request.methods, *request.tasks) if name not in METHODS + TASKS]
    if unknown or request.seeds < 1 or not 1 <= request.pretrain_seeds <= request.seeds:
        raise ConfigError(
            f"methods {' '.join(request.methods)}, tasks {' '.join(request.tasks)}, seeds {request.seeds}, pretrain "
            f"seeds {request.pretrain_seeds}: methods are {', '.join(METHODS)}, tasks are {', '.join(TASKS)}, seeds at "
            "least 1, pretrain seeds between 1 and seeds"
        )
    stages = []
    for method in dict.fromkeys(request.methods):
        if method != "scratch":
            stages += [_pretraining(request, method, seed) for seed in range(request.pretrain_seeds)]
        if "classification" in request.tasks:
            stages += [_finetuning(request, method, seed) for seed in range(request.seeds)]
    for stage in stages:
        config.check(stage.config)
    return stages


def lay_out(stages: Sequence[Stage], runs_dir: Path) -> None:
    """Write every run folder's config.json, so that each can be run on its own from then on.

    Raises:
        ConfigError: a folder holds a run with another configuration.
    """
    for stage in stages:
        prepare(stage.folder(runs_dir), stage.config, package=stage.package, recipe=stage.recipe)


def _name(request: Request, method: str, task: str, seed: int) -> str:
    return f"{request.profile}-{request.model}-{method}-{task}-s{seed}"


def _pretraining(request: Request, method: str, seed: int) -> Stage:
    if request.profile == "demo":
        recipe, base = "demo", pretrain.recipes.RECIPES["demo"](model=request.model, method=method)
    else:
        recipe = pretrain_recipe(request.model, method)
        recipes = pretrain.recipes.RECIPES
        base = recipes[recipe]() if recipe != "any" else recipes[recipe](model=request.model, method=method)
    finished = _fit(base, request, seed)
    return Stage(_name(request, method, "pretrain", seed), "pretrain", recipe, finished)


def _finetuning(request: Request, method: str, seed: int) -> Stage:
    recipe = request.finetune or ("demo" if request.profile == "demo" else finetune_recipe(request.model))
    if recipe not in classification.recipes.RECIPES:
        raise ConfigError(f"no classification recipe {recipe!r}: {', '.join(classification.recipes.RECIPES)}")
    base = classification.recipes.RECIPES[recipe](model=request.model)
    parent = _name(request, method, "pretrain", seed % request.pretrain_seeds)
    init = "none" if method == "scratch" else str(request.runs_dir / parent)
    suffix = f"-{request.finetune}" if request.finetune else ""
    return Stage(
        _name(request, method, f"classification{suffix}", seed),
        "classification",
        recipe,
        dataclasses.replace(_fit(base, request, seed), init=init),
        needs=() if method == "scratch" else (parent,),
    )


def _fit(base: Any, request: Request, seed: int) -> Any:
    """Data, seed, and as much accumulation as keeps the published images per device at most."""
    data = dataclasses.replace(base.data, root=str(request.imagenet))
    if request.num_workers is not None:
        data = dataclasses.replace(data, num_workers=request.num_workers)
    fitted = dataclasses.replace(base, data=data, seed=seed)
    if request.profile == "demo":
        return fitted
    per_device = images_per_device(request.model)
    return dataclasses.replace(fitted, accumulation=_accumulation(base.batch_size, request.num_devices, per_device))


def _accumulation(batch_size: int, num_devices: int, per_device: int) -> int:
    """The fewest pieces that divide the batch and hold at most `per_device` images each."""
    if batch_size % num_devices:
        raise ConfigError(f"batch_size {batch_size} does not divide into {num_devices} devices: use another number")
    share = batch_size // num_devices
    return next(pieces for pieces in range(1, share + 1) if share % pieces == 0 and share // pieces <= per_device)


def images_per_device(model: str) -> int:
    """Images a device holds at once in the published runs (256 for ResNets, ConvNeXt and ViT-S, 128 for ViT-B/L)."""
    return 128 if model in ("vit_b", "vit_l", "swin_b") else 256


def pretrain_recipe(model: str, method: str) -> str:
    """The published recipe of a model; "any", its family's rules, for one without."""
    names = (f"{method}-{model}-{epochs}e" for epochs in (300, 800))
    return next((name for name in names if name in pretrain.recipes.RECIPES), "any")


def finetune_recipe(model: str) -> str:
    """The classification recipe of a model's published table."""
    families = {"vit": "vit-ft", "deit": "deit-ft", "swin": "swin-ft", "convnext": "convnext-ft"}
    return next((recipe for start, recipe in families.items() if model.startswith(start)), "rsb-a2")
