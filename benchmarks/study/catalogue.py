"""The studies: which pictures, which networks, how long. A study is a function of this file alone."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from benchmarks.study.pictures import CLIPART, CLIPART_SIZE, DIGITS_SIZE, write_clipart, write_digits, write_scenes
from classification.config import ClassificationConfig
from pretrain.config import PretrainConfig


@dataclass(frozen=True, kw_only=True)
class Study:
    """A study: recipes of one name for these networks, with the lengths that fit these pictures.

    Args:
        title: what it is about.
        write: (folder, source) writes the pictures as image folders.
        source: where they come from by default, if from files.
        data: name of the pictures' folder, the study's own name by default.
        recipe: of pre-training and fine-tuning.
        image_size: in pixels, of recipes that take it.
        models: networks by their plain names (backbones/small.py).
        labels: shares of the labelled training images.
        seeds: pre-training and fine-tuning runs of each kind; seed i is fine-tuned from pre-training i.
        pretrain: changes of the recipe.
        finetune: likewise.
    """

    title: str
    write: Callable[[Path, Path], None]
    source: Path = Path()
    data: str = ""
    recipe: Literal["small", "demo"] = "small"
    image_size: int
    models: tuple[str, ...]
    labels: tuple[float, ...]
    seeds: int
    pretrain: Callable[[PretrainConfig], PretrainConfig]
    finetune: Callable[[ClassificationConfig], ClassificationConfig]


def _pretrain(
    config: PretrainConfig, *, epochs: int, batch: int, warmup: float, mirror: float, cell: int
) -> PretrainConfig:
    return replace(
        config,
        epochs=epochs,
        batch_size=batch,
        checkpoint_every=1000,
        log_every=20,
        visualize_every_epochs=0,
        deterministic=True,
        data=replace(config.data, num_workers=0, flip=mirror),
        mask=replace(config.mask, cell_size=max(cell, config.mask.cell_size)),
        optimizer=replace(config.optimizer, base_batch=batch),
        schedule=replace(config.schedule, warmup_epochs=warmup),
    )


def _finetune(config: ClassificationConfig, *, epochs: int, batch: int, mirror: float) -> ClassificationConfig:
    return replace(
        config,
        epochs=epochs,
        batch_size=batch,
        checkpoint_every=1000,
        evaluate_every=epochs,
        deterministic=True,
        data=replace(config.data, num_workers=0, evaluation_batch_size=250),
        augment=replace(config.augment, flip=mirror),
        optimizer=replace(config.optimizer, base_batch=batch),
        schedule=replace(config.schedule, warmup_epochs=1),
    )


def _demo_pretrain(config: PretrainConfig) -> PretrainConfig:
    return replace(config, visualize_every_epochs=0, checkpoint_every=1000, data=replace(config.data, num_workers=0))


def _demo_finetune(config: ClassificationConfig, *, full_epochs: bool = False) -> ClassificationConfig:
    """A share of the labels takes that share of the steps, or as many as all."""
    data = replace(config.data, num_workers=0, full_epochs=full_epochs)
    return replace(config, evaluate_every=config.epochs, checkpoint_every=1000, data=data)


STUDIES: dict[str, Study] = {
    "digits": Study(
        title="scikit-learn's handwritten digits: 1,797 pictures, 10 classes, 32 x 32 pixels",
        write=lambda folder, _: write_digits(folder),
        image_size=DIGITS_SIZE,
        models=("resnet18", "vit_tiny", "convnext_atto"),
        labels=(0.01, 0.05, 0.1, 1.0),
        seeds=5,
        pretrain=lambda config: _pretrain(config, epochs=20, batch=64, warmup=2, mirror=0.0, cell=8),
        finetune=lambda config: _finetune(config, epochs=5, batch=32, mirror=0.0),
    ),
    "digits-short": Study(
        title="the same digits, fine-tuned for 36 steps by the demo recipe (10 % of the labels)",
        write=lambda folder, _: write_digits(folder),
        data="digits",
        recipe="demo",
        image_size=64,
        models=("resnet18",),
        labels=(0.1,),
        seeds=5,
        pretrain=_demo_pretrain,
        finetune=_demo_finetune,
    ),
    "scenes": Study(
        title="the demo's 800 generated scenes by the demo recipes, over seeds",
        write=lambda folder, _: write_scenes(folder),
        data="demo/imagenet",
        recipe="demo",
        image_size=64,
        models=("resnet18",),
        labels=(0.1, 1.0),
        seeds=5,
        pretrain=_demo_pretrain,
        finetune=lambda config: _demo_finetune(config, full_epochs=True),
    ),
    "clipart": Study(
        title="Debian's openclipart-png by the demo recipes: clip art in 13 classes, 64 x 64 pixels",
        write=write_clipart,
        source=CLIPART,
        recipe="demo",
        image_size=CLIPART_SIZE,
        models=("resnet18",),
        labels=(0.1, 1.0),
        seeds=3,
        pretrain=_demo_pretrain,
        finetune=_demo_finetune,
    ),
    "clipart-long": Study(
        title="the same clip art by the recipes for small pictures, at a length for a GPU",
        write=write_clipart,
        source=CLIPART,
        data="clipart",
        image_size=CLIPART_SIZE,
        models=("resnet18",),
        labels=(0.1, 1.0),
        seeds=3,
        pretrain=lambda config: _pretrain(config, epochs=40, batch=128, warmup=4, mirror=0.5, cell=8),
        finetune=lambda config: _finetune(config, epochs=10, batch=64, mirror=0.5),
    ),
}
