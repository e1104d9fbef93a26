"""Where a recipe does otherwise than the published file it follows: one list, made from the recipe and its source.

Above a recipe stands what the files that it follows hold where ours may differ. What differs between that and the
configuration the recipe returns is added to the recipe's docstring, and so to `--help`, and is in docs/deviations.md.
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


FLOAT32, FLOAT16 = {"precision": "float32"}, {"precision": "float16"}
"""What most of the files have otherwise."""


def follows(
    name: str, settings: Mapping[str, Any] | None = None, *other: str, model: str = ""
) -> Callable[[Recipe], Recipe]:
    """Say of a recipe function that it follows a file, or several, for a family of models each; see Source. A recipe of
    our own follows none."""

    def marked(recipe: Recipe) -> Recipe:
        source = Source(name=name, settings=settings or {}, other=other, model=model)
        vars(recipe)["sources"] = (source, *sources_of(recipe))
        return recipe

    return marked


def sources_of(recipe: Callable[..., Any]) -> tuple[Source, ...]:
    """The files that a recipe follows."""
    sources: tuple[Source, ...] = getattr(recipe, "sources", ())
    return sources


def deviations(config: Any, source: Source) -> list[str]:
    """One line for each setting of `config` that its source has otherwise, then what no setting expresses."""
    ours = flatten(dataclasses.asdict(config))
    differing = [(name, ours[name], theirs) for name, theirs in source.settings.items() if ours[name] != theirs]
    return [f"{name}: {_text(mine)}, there {_text(theirs)}" for name, mine, theirs in differing] + list(source.other)


def of_recipe(name: str, recipes: Mapping[str, Callable[..., Any]]) -> Iterator[tuple[str, str]]:
    """(the source, its deviations as a Markdown list) for each source of a recipe."""
    for source in sources_of(recipes[name]):
        config = recipes[name](source.model) if source.model else recipes[name]()
        whose = source.name + (f" (--model {source.model})" if source.model else "")
        if source.name in recipes:
            settings = {**flatten(dataclasses.asdict(recipes[source.name]())), **source.settings}
            inherited = f"and those of {source.name} from its own source"
            source = dataclasses.replace(source, settings=settings, other=(*source.other, inherited))
        yield whose, "\n".join(f"- {line}" for line in deviations(config, source) or ["none known"])


def with_deviations(recipes: dict[str, Recipe]) -> dict[str, Recipe]:
    """The same recipes; the docstring of each now ends with its deviations."""
    for name, recipe in recipes.items():
        parts = [f"Deviations from {whose}:\n{lines}" for whose, lines in of_recipe(name, recipes)]
        recipe.__doc__ = "\n\n".join([inspect.getdoc(recipe) or "", *parts])
    return recipes


def _text(value: Any) -> str:
    """As one would give it on the command line."""
    if isinstance(value, tuple | list):
        return " ".join(_text(item) for item in value) or "none"
    return {None: "none", "": "none"}.get(value, str(value)) if isinstance(value, str | None) else str(value)
