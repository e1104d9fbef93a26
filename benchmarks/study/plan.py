"""The runs of a study, in the order in which they are worth most: network by network, and of each seed by seed."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import classification.recipes
import pretrain.recipes
from backbones import BackboneError
from benchmarks.plan import METHODS, Stage
from benchmarks.study.catalogue import Study
from classification.config import ClassificationConfig
from engine import config
from engine.errors import ConfigError
from pretrain.config import PretrainConfig

log = logging.getLogger("mim")


@dataclass(frozen=True, kw_only=True)
class Part:
    """Which runs of a study are made."""

    models: tuple[str, ...]
    methods: tuple[str, ...] = METHODS
    labels: tuple[float, ...]
    seeds: int
    pretrain_epochs: int | None = None
    """Another length of pre-training than the study's; its runs have names of their own."""
    finetune_epochs: int | None = None
    """Likewise of fine-tuning."""

    def problems(self) -> list[str]:
        """What cannot be run, one line each."""
        found = [f"no method {name!r}; methods: {', '.join(METHODS)}" for name in self.methods if name not in METHODS]
        found += [f"labels {share}: allowed: over 0 and at most 1" for share in self.labels if not 0 < share <= 1]
        for name in ("seeds", "pretrain_epochs", "finetune_epochs"):
            value = getattr(self, name)
            if value is not None and value < 1:
                found.append(f"{name} {value}; allowed: 1 or more")
        return found


def make_stages(study: Study, part: Part, data: Path, runs_dir: Path) -> list[Stage]:
    """The runs in an order that respects what each needs.

    Methods that do not take a network are left out, which is said.

    Raises:
        ConfigError: there is no such method, share or number.
    """
    if problems := part.problems():
        raise ConfigError("; ".join(problems))
    models = list(dict.fromkeys(part.models))
    methods = {model: dict(_accepted(study, part, model)) for model in models}
    recipes = {model: _recipe(study, classification.recipes.RECIPES, model=model) for model in models}
    stages: list[Stage] = []
    for model in models:
        for seed in range(part.seeds):
            before = {
                method: _pretraining(part, f"{model}-{method}", study.recipe, _on(replace(recipe, seed=seed), data))
                for method, recipe in methods[model].items()
                if recipe is not None
            }
            stages += before.values()
            finetune = _of_length(study.finetune(recipes[model]), part.finetune_epochs)
            finetune = _on(replace(finetune, seed=seed), data)
            for share in dict.fromkeys(part.labels):
                labelled = replace(finetune, data=replace(finetune.data, train_fraction=float(share)))
                stages += [
                    _finetuning(part, f"{model}-{method}", study.recipe, (labelled, before.get(method)), runs_dir)
                    for method in methods[model]
                ]
    for stage in stages:
        config.check(stage.config)
    return stages


def _accepted(study: Study, part: Part, model: str) -> Iterator[tuple[str, PretrainConfig | None]]:
    """Each method that takes the network with its pre-training, None for from scratch."""
    for method in dict.fromkeys(part.methods):
        if method == "scratch":
            yield method, None
            continue
        try:
            found = study.pretrain(_recipe(study, pretrain.recipes.RECIPES, model=model, method=method))
            found = _of_length(found, part.pretrain_epochs)
            config.check(_on(found, Path()))
        except (ConfigError, BackboneError) as error:
            log.info("%s does not take %s, and is left out: %s", method, model, error)
            continue
        yield method, found


def _pretraining(part: Part, name: str, recipe: str, found: PretrainConfig) -> Stage:
    return Stage(f"{name}{_told(part.pretrain_epochs)}-pretrain-s{found.seed}", "pretrain", recipe, found)


def _finetuning(
    part: Part, name: str, recipe: str, what: tuple[ClassificationConfig, Stage | None], runs_dir: Path
) -> Stage:
    found, before = what
    start = name if before is None else before.name.partition("-pretrain")[0]
    name = f"{start}-labels{found.data.train_fraction:g}{_told(part.finetune_epochs)}-s{found.seed}"
    if before is None:
        return Stage(name, "classification", recipe, replace(found, init="none"))
    found = replace(found, init=str(before.folder(runs_dir)))
    return Stage(name, "classification", recipe, found, needs=(before.name,))


def _told(epochs: int | None) -> str:
    return "" if epochs is None else f"-{epochs}e"


def _recipe(study: Study, recipes: Mapping[str, Any], **chosen: str) -> Any:
    size = {"image_size": study.image_size} if study.recipe == "small" else {}
    return recipes[study.recipe](**chosen, **size)


def _of_length(found: Any, epochs: int | None) -> Any:
    """The same schedule over another number of epochs, evaluated at its end."""
    if epochs is None:
        return found
    warmup = found.schedule.warmup_epochs * epochs / found.epochs
    evaluated = {"evaluate_every": epochs} if hasattr(found, "evaluate_every") else {}
    return replace(found, epochs=epochs, schedule=replace(found.schedule, warmup_epochs=warmup), **evaluated)


def _on(found: Any, data: Path) -> Any:
    return replace(found, data=replace(found.data, root=str(data)))
