"""Where a recipe does otherwise than the published file it follows: one list, made from the recipe and its source.

A task package's sources.py says what the files behind each recipe hold. What differs between that and the configuration
the recipe returns stands in the recipe's docstring, and so in `--help`, and in docs/deviations.md.
"""

import dataclasses
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from engine.config import flatten

Recipe = TypeVar("Recipe", bound=Callable[..., Any])


@dataclass(frozen=True, kw_only=True)
class Source:
    """A file that a recipe follows.

    Args:
        name: whose file, and which. The name of another recipe of the task stands for everything that one is set to.
        settings: {"group.field": its value there}; those equal to the recipe's own are no deviation.
        other: what no setting expresses, one entry for each deviation.
        model: `--model` for which the recipe follows this file; "" for the recipe's own default.
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    other: tuple[str, ...] = ()
    model: str = ""


Sources = Mapping[str, tuple[Source, ...]]
"""Recipe name -> the files it follows, one for each family of models; none for a recipe of our own."""


def deviations(config: Any, source: Source) -> list[str]:
    """One line for each setting of `config` that its source has otherwise, then what no setting expresses."""
    ours = flatten(dataclasses.asdict(config))
    differing = [(name, ours[name], theirs) for name, theirs in source.settings.items() if ours[name] != theirs]
    return [f"{name}: {_text(mine)}, there {_text(theirs)}" for name, mine, theirs in differing] + list(source.other)


def of_recipe(name: str, recipes: Mapping[str, Callable[..., Any]], sources: Sources) -> Iterator[tuple[str, str]]:
    """(the source, its deviations as a Markdown list) for each source of a recipe."""
    for source in sources[name]:
        config = recipes[name](source.model) if source.model else recipes[name]()
        whose = source.name + (f" (--model {source.model})" if source.model else "")
        if source.name in recipes:
            settings = {**flatten(dataclasses.asdict(recipes[source.name]())), **source.settings}
            inherited = f"and those of {source.name} from its own source"
            source = dataclasses.replace(source, settings=settings, other=(*source.other, inherited))
        yield whose, "\n".join(f"- {line}" for line in deviations(config, source) or ["none known"])


def with_deviations(recipes: Mapping[str, Recipe], sources: Sources) -> dict[str, Recipe]:
    """The same recipes; the docstring of each now ends with its deviations.

    Raises:
        ValueError: the two name different recipes.
    """
    if differing := sorted(recipes.keys() ^ sources.keys()):
        raise ValueError(f"recipes without sources, or sources without a recipe: {', '.join(differing)}")
    for name, recipe in recipes.items():
        parts = [f"Deviations from {whose}:\n{lines}" for whose, lines in of_recipe(name, recipes, sources)]
        recipe.__doc__ = "\n\n".join([inspect.getdoc(recipe) or "", *parts])
    return dict(recipes)


def _text(value: Any) -> str:
    """As one would give it on the command line."""
    if isinstance(value, tuple | list):
        return " ".join(_text(item) for item in value) or "none"
    return {None: "none", "": "none"}.get(value, str(value)) if isinstance(value, str | None) else str(value)
