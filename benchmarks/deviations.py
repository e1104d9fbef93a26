"""`python -m benchmarks.deviations > docs/deviations.md`: where every recipe does otherwise than its source."""

from collections.abc import Callable, Mapping
from typing import Any

import classification.recipes
import classification.sources
import detection.recipes
import detection.sources
import pretrain.recipes
import segmentation.recipes
import segmentation.sources
from engine.deviations import Sources, of_recipe

TASKS: dict[str, tuple[Mapping[str, Callable[..., Any]], Sources]] = {
    "pretrain": (pretrain.recipes.RECIPES, pretrain.recipes.SOURCES),
    "classification": (classification.recipes.RECIPES, classification.sources.SOURCES),
    "detection": (detection.recipes.RECIPES, detection.sources.SOURCES),
    "segmentation": (segmentation.recipes.RECIPES, segmentation.sources.SOURCES),
}

_HEAD = """# Deviations

What each recipe does otherwise than the file it follows; `--help` of the recipe ends with the same list. Settings are
compared with the recipe's own, so a line goes when a default comes to agree with the source; the source's value can
always be given (`--precision float32`).

Of every recipe: random draws are functions of (seed, epoch, sample), so they are not the source's; batch norm is
synchronised wherever there are several GPUs; losses are float32.

This page is written by `python -m benchmarks.deviations`.
"""


def page() -> str:
    """The page, in Markdown."""
    parts = [_HEAD]
    for task, (recipes, sources) in TASKS.items():
        parts.append(f"## {task}\n")
        for name in recipes:
            lists = list(of_recipe(name, recipes, sources))
            parts.append(f"### {name}\n")
            parts += [f"From {whose}:\n\n{lines}\n" for whose, lines in lists] or ["A recipe of our own.\n"]
    return "\n".join(parts)


if __name__ == "__main__":
    print(page(), end="")
