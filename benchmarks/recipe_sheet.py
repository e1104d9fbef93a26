"""`python -m benchmarks.recipe_sheet > docs/recipes.md`: the recipes of each task side by side."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from benchmarks.plan import recipes_of
from suite_tasks import TASKS

_HEAD = """# Recipes side by side

Each table has a line for each recipe and a column for every setting in which they differ; what all share stands above.
A setting is given as on the command line (`--optimizer.weight-decay 0.02`); where a recipe has none the cell is
empty. `python -m <package> RECIPE --help` says where a recipe comes from, what to expect and what it costs, and
[deviations](deviations.md) where it does otherwise than its source. Recipes that look at your data or are made for the
generated scenes (`own`, `demo`, `any`, `small`) are left out.

This page is written by `python -m benchmarks.recipe_sheet`.
"""
_OWN = ("own", "demo", "any", "small")
_HOUSEKEEPING = ("seed", "checkpoint_every", "log_every", "evaluate_every", "visualize_every_epochs", "num_panels",
                 "num_workers", "root", "evaluation_batch_size", "init", "method")  # fmt: skip


def page() -> str:
    """The page, in Markdown."""
    parts = [_HEAD]
    for task in TASKS:
        recipes = {} if task.kind == "measurement" else dict(recipes_of(task.name).RECIPES)
        groups: dict[str, dict[str, dict[str, Any]]] = {}
        for name, make in recipes.items():
            if not name.startswith(_OWN):
                config = make()
                groups.setdefault(getattr(config, "method", ""), {})[name] = dict(_flat(config))
        for method, settings in groups.items():
            parts += [f"## {f'{task.name}, {method}' if method else task.name}\n", *_table(settings)]
    return "\n".join(parts)


def _table(settings: dict[str, dict[str, Any]]) -> Iterator[str]:
    names = list(dict.fromkeys(name for values in settings.values() for name in values))
    shown = {name: [_text(values.get(name, "")) for values in settings.values()] for name in names}
    common = {name: cells[0] for name, cells in shown.items() if len(set(cells)) == 1 and cells[0]}
    apart = [name for name, cells in shown.items() if len(set(cells)) > 1]
    yield "All: " + ", ".join(f"{_flag(name)} {value}" for name, value in common.items()) + ".\n"
    yield "| recipe | " + " | ".join(_flag(name) for name in apart) + " |"
    yield "| --- |" + " --- |" * len(apart)
    for i, recipe in enumerate(settings):
        yield f"| {recipe} | " + " | ".join(shown[name][i] for name in apart) + " |"
    yield ""


def _flat(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for each in dataclasses.fields(config):
        value = getattr(config, each.name)
        if dataclasses.is_dataclass(value):
            yield from _flat(value, f"{prefix}{each.name}.")
        elif each.name not in _HOUSEKEEPING:
            yield prefix + each.name, value


def _flag(name: str) -> str:
    return f"`{name.replace('_', '-')}`"


def _text(value: Any) -> str:
    """A setting in few letters: no regular expressions, no sixteen digits."""
    if isinstance(value, tuple | list):
        return " ".join(_text(item) for item in value) or "none"
    if isinstance(value, float):
        return f"{value:.4g}"
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    return str(value).replace("|", "\\|")


if __name__ == "__main__":
    print(page(), end="")
