"""What a benchmark runs: a graph of run folders, from pre-training to every task, for each method and seed."""

import dataclasses
import functools
import importlib
import importlib.util
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pretrain.methods
import pretrain.recipes
from backbones import find_architecture
from backbones.small import small_network
from benchmarks.small import of_steps, small_pictures, small_size
from engine import config
from engine.errors import ConfigError
from suite_tasks import DATA_SETS, find, of_kind

log = logging.getLogger("mim")
METHODS = ("scratch", *(method.name for method in pretrain.methods.METHODS))
(PRETRAINING,) = of_kind("pretraining")
TASKS = tuple(entry.name for entry in of_kind("finetuning"))
DEMO_DATA = Path("data/demo")
"""Where the generated scenes are, if nothing else is said."""
Profile = Literal["demo", "own", "small", "paper"]


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
        data: the data set of each task. Pre-training uses that of a task that is trained on the same images.
        tasks: of TASKS, what each model is fine-tuned for; by default everything that has data.
        profile: "demo" for minutes on two cores, "own" for what fits the data set, "small" for pictures of 32 to 96
            pixels, "paper" for the published recipes.
        seeds: fine-tuning runs per method, seeds 0 to seeds - 1.
        labels: shares of the labelled images that tasks on PRETRAINING's images are trained on, each by every method
            and seed.
        pretrain_seeds: pre-training runs per method; fine-tuning seed i starts from number i modulo this.
        runs_dir: folder of run folders.
        finetune: recipe of those tasks instead of the model family's own.
        framework: detection framework instead of the recipe's.
        num_devices: processes that train together, for the accumulation that keeps the published batch.
        num_workers: loader processes of each, or the recipe's.
        steps: of pre-training and of fine-tuning, instead of what fits the data set (profiles own and small).
        image_size: instead of what fits the pictures (likewise).
        reading: fields of the data group of all runs on PRETRAINING's images.
    """

    model: str
    methods: tuple[str, ...] = METHODS
    profile: Profile = "demo"
    seeds: int = 1
    labels: tuple[float, ...] = (1.0,)
    pretrain_seeds: int = 1
    runs_dir: Path = field(default_factory=lambda: Path("runs"))
    data: dict[str, Path]
    tasks: tuple[str, ...] | None = None
    finetune: str | None = None
    framework: Literal["detectron2", "torchvision"] | None = None
    num_devices: int = 1
    num_workers: int | None = None
    steps: tuple[int | None, int | None] = (None, None)
    image_size: int | None = None
    reading: Mapping[str, Any] = field(default_factory=dict)


def data_sets(
    profile: Profile,
    folder: Path | None,
    *,
    imagenet: Path | None = None,
    coco: Path | None = None,
    ade20k: Path | None = None,
) -> dict[str, Path]:
    """The data set of each task: those given, or for the demo, if none is given, the generated scenes' three.

    Args:
        profile: as in Request.
        folder: the user's images (own), or where the demo's scenes are.
        imagenet: an image folder with train/ and val/.
        coco: COCO 2017.
        ade20k: ADEChallengeData2016.

    The demo leaves out a task whose extra is not installed, and says so.

    Raises:
        ConfigError: the paper or small profile, or a demo with COCO or ADE20K, without an image folder; or the own
            profile with another data set than a folder.
    """
    if profile == "own":
        if folder is None or imagenet or coco or ade20k:
            raise ConfigError(
                "the own profile takes --data DIR, a folder of class folders of your images, and no other"
            )
        return {task: folder for task in TASKS if _on_images(task) and "own" in recipes_of(task).RECIPES}
    given = {"imagenet": imagenet, "coco": coco, "ade20k": ade20k}
    tasks = of_kind("finetuning")
    found = {task.name: path for task in tasks if (path := given.get(task.data)) is not None}
    if profile == "small":
        found = {task: path for task, path in found.items() if _on_images(task)}
    if imagenet is not None:
        return found
    if profile in ("paper", "small") or found:
        raise ConfigError("--imagenet DIR is needed too: a folder with train/ and val/ class folders")
    ready = [task for task in tasks if all(importlib.util.find_spec(module) for module in task.needs)]
    for task in tasks:
        if task not in ready:
            log.warning("%s is left out: its extra is not installed (pip install -e '.[%s]')", task.name, task.name)
    return {task.name: (folder or DEMO_DATA) / DATA_SETS[task.data] for task in ready}


def make_stages(request: Request) -> list[Stage]:
    """The graph in an order that respects every dependency.

    Raises:
        ConfigError: the model, a method or a recipe does not exist, or a configuration has problems.
        BackboneError: the model does not exist.
    """
    images = images_of(request)
    small = request.profile == "small"
    size = request.image_size or (small_size(images) if small else 0)
    find_architecture(small_network(request.model, size) if small else request.model)
    problems = _problems_of_size(request)
    problems += [f"no method {name!r}: {', '.join(METHODS)}" for name in request.methods if name not in METHODS]
    tasks = tuple(dict.fromkeys(request.data if request.tasks is None else request.tasks))
    problems += [f"no task {name!r}: {', '.join(TASKS)}" for name in {*request.data, *tasks} if name not in TASKS]
    problems += [f"no data for {name}" for name in tasks if name in TASKS and name not in request.data]
    if not 1 <= request.pretrain_seeds <= request.seeds:
        problems.append(
            f"seeds {request.seeds}, pretrain seeds {request.pretrain_seeds}: must be 1 <= pretrain <= seeds"
        )
    problems += [f"labels {share}: must be over 0 and at most 1" for share in request.labels if not 0 < share <= 1]
    problems += [] if request.labels else ["labels: name one share of the labelled images or several"]
    if problems:
        raise ConfigError("; ".join(problems))
    methods = list(dict.fromkeys(request.methods))
    # Pre-training first: everything else waits for it, while the controls can run at any time.
    stages = [
        _pretraining(request, method, seed)
        for method in methods
        if method != "scratch"
        for seed in range(request.pretrain_seeds)
    ]
    stages += [
        _finetuning(request, method, task, share, seed)
        for method in methods
        for task in tasks
        for share in (dict.fromkeys(request.labels) if _on_images(task) else (1.0,))
        for seed in range(request.seeds)
    ]
    for stage in stages:
        config.check(stage.config)
    return stages


def _problems_of_size(request: Request) -> list[str]:
    """What of the lengths and the size of images cannot be as asked."""
    asked = {"image_size": request.image_size}
    asked |= dict(zip(("pretrain_steps", "finetune_steps"), request.steps, strict=True))
    return [
        f"{name} {value}: only of the profiles own and small, and 1 or more"
        for name, value in asked.items()
        if value is not None and (request.profile not in ("own", "small") or value < 1)
    ]


def _on_images(task: str) -> bool:
    """Whether a task is trained on the images that pre-training uses, with labels."""
    return find(task).data == PRETRAINING.data


def images_of(request: Request) -> Path:
    """The folder of the images of pre-training.

    Raises:
        ConfigError: there is none.
    """
    for task, path in request.data.items():
        if _on_images(task):
            return path
    raise ConfigError(f"no image folder for pre-training (--{PRETRAINING.data} DIR)")


def recipes_of(task: str) -> Any:
    """The module of a task's recipes: RECIPES, recipe_for."""
    return importlib.import_module(f"{task}.recipes")


def lay_out(stages: Sequence[Stage], runs_dir: Path) -> None:
    """Write every run folder's config.json, so that each can be run on its own from then on.

    Raises:
        ConfigError: a folder holds a run with another configuration.
    """
    from engine.run.open import prepare  # imports torch, which help texts that name our methods do without

    def write(stage: Stage) -> None:
        prepare(stage.folder(runs_dir), stage.config, package=stage.package, recipe=stage.recipe)

    # The disk confirms a thousand files much sooner when they are not written one after another.
    with ThreadPoolExecutor(max_workers=32) as pool:
        list(pool.map(write, stages))  # raises the first error; what has not begun by then does not begin


def _name(request: Request, method: str, task: str, seed: int) -> str:
    return f"{request.profile}-{request.model}-{method}-{task}-s{seed}"


def _pretraining(request: Request, method: str, seed: int) -> Stage:
    if request.profile == "demo":
        recipe, base = "demo", pretrain.recipes.RECIPES["demo"](model=request.model, method=method)
    elif request.profile == "own":
        recipe, base = "own", _own(PRETRAINING.name, request, request.steps[0], method=method)
    elif request.profile == "small":
        size = request.image_size or small_size(images_of(request))
        recipe, base = "small", pretrain.recipes.RECIPES["small"](request.model, method, size)
        base = of_steps(base, images_of(request), request.steps[0])
    else:
        recipe = pretrain_recipe(request.model, method)
        recipes = pretrain.recipes.RECIPES
        base = recipes[recipe]() if recipe != "any" else recipes[recipe](model=request.model, method=method)
    name = PRETRAINING.name
    return Stage(_name(request, method, name, seed), name, recipe, _fit(base, request, name, seed))


def _finetuning(request: Request, method: str, task: str, share: float, seed: int) -> Stage:
    module = recipes_of(task)
    choice = {"framework": request.framework} if request.framework and hasattr(module, "with_framework") else {}
    chosen = request.finetune if _on_images(task) else None
    usual = module.recipe_for(request.model, **choice) if request.profile == "paper" else request.profile
    recipe = chosen or usual
    if recipe not in module.RECIPES:
        raise ConfigError(f"no {task} recipe {recipe!r}: {', '.join(module.RECIPES)}")
    if request.profile == recipe == "own":
        base = _own(task, request, request.steps[1])
    elif request.profile == "small":
        size = request.image_size or small_size(images_of(request))
        base = small_pictures(module.RECIPES[recipe], request.model, size)
        base = of_steps(base, images_of(request), request.steps[1])
    else:
        base = module.RECIPES[recipe](model=request.model)
    if choice:
        base = module.with_framework(base, **choice)
    fitted = _fit(base, request, task, seed)
    if share != 1:
        fitted = dataclasses.replace(fitted, data=dataclasses.replace(fitted.data, train_fraction=float(share)))
    parent = _name(request, method, PRETRAINING.name, seed % request.pretrain_seeds)
    init = "none" if method == "scratch" else str(request.runs_dir / parent)
    return Stage(
        _name(request, method, "-".join(filter(None, (task, chosen, f"labels{share:g}" * (share != 1)))), seed),
        task,
        recipe,
        dataclasses.replace(fitted, init=init),
        needs=() if method == "scratch" else (parent,),
    )


def _own(task: str, request: Request, steps: int | None, **more: str) -> Any:
    """The recipe own of a task for the data set, which is looked at, and said, once."""
    asked = {"steps": steps, "image_size": request.image_size, "data_exclude": request.reading.get("exclude")}
    given = {name: str(value) for name, value in asked.items() if value}
    return _recipe_own(task, request.model, data_root=str(images_of(request)), **given, **more)


@functools.cache
def _recipe_own(task: str, model: str, **more: str) -> Any:
    return recipes_of(task).RECIPES["own"](model=model, **more)


def _fit(base: Any, request: Request, task: str, seed: int) -> Any:
    """Data, seed, and as much accumulation as keeps the published images per device at most."""
    root = images_of(request) if task == PRETRAINING.name else request.data[task]
    read = request.reading if task == PRETRAINING.name or _on_images(task) else {}
    data = dataclasses.replace(base.data, root=str(root), **read)
    if request.num_workers is not None:
        data = dataclasses.replace(data, num_workers=request.num_workers)
    fitted = dataclasses.replace(base, data=data, seed=seed)
    if request.profile != "paper":
        return fitted
    per_device = images_per_device(request.model, task)
    return dataclasses.replace(fitted, accumulation=_accumulation(base.batch_size, request.num_devices, per_device))


def _accumulation(batch_size: int, num_devices: int, per_device: int) -> int:
    """The fewest pieces that divide the batch and hold at most `per_device` images each."""
    if batch_size % num_devices:
        raise ConfigError(f"batch_size {batch_size} does not divide into {num_devices} devices: use another number")
    share = batch_size // num_devices
    return next(pieces for pieces in range(1, share + 1) if share % pieces == 0 and share // pieces <= per_device)


def images_per_device(model: str, task: str) -> int:
    """Images a device holds at once in the published runs: as the task's entry says, else 256, or 128 for ViT-B, ViT-L
    and Swin-B."""
    return find(task).images_per_device or (128 if model in ("vit_b", "vit_l", "swin_b") else 256)


def pretrain_recipe(model: str, method: str) -> str:
    """The published recipe of a model; "any", its family's rules, for one without."""
    names = (f"{method}-{model}-{epochs}e" for epochs in (300, 800))
    return next((name for name in names if name in pretrain.recipes.RECIPES), "any")
