"""A run that is made shorter than its recipe: what no longer fits into it is shortened in proportion."""

import dataclasses
import logging
import typing
from typing import Any, TypeVar

from engine.config import problems_of

Config = TypeVar("Config")
log = logging.getLogger("mim")
_LENGTHS = ("epochs", "iterations")
_SHORTENED = [
    *(("schedule", name) for name in ("warmup_epochs", "warmup_iterations", "milestones")),
    ("ema", "warmup_epochs"),
]


def fit_into_length(default: Any, config: Config) -> Config:
    """The configuration with its warm-up and its milestones as the parts of the run that they were of the recipe, if
    they do not fit into it and are the recipe's own; each change is said.

    Args:
        default: what the recipe says.
        config: the same with what the user changed.
    """
    name = next((name for name in _LENGTHS if hasattr(config, name)), "")
    if not name or not 0 < getattr(config, name) < getattr(default, name) or not (problems := problems_of(config)):
        return config
    new, old = getattr(config, name), getattr(default, name)
    fitted, said = config, []
    for group, setting in _SHORTENED:
        value = getattr(getattr(config, group, None), setting, None)
        if not value or value != getattr(getattr(default, group), setting) or _end(value) < new:
            continue  # not there, the user's own, or it fits
        whole = typing.get_type_hints(type(getattr(config, group)))[setting] is int
        changes = {setting: _scaled(value, new / old, whole)}
        if setting == "milestones" and not changes[setting]:  # before the first one the rate stays what it is
            changes["kind"] = "constant"
        changed: Any = dataclasses.replace(getattr(fitted, group), **changes)
        fitted = dataclasses.replace(fitted, **{group: changed})  # type: ignore[type-var]
        said += [
            f"{group}.{name} {_text(getattr(getattr(config, group), name))} -> {_text(now)}"
            for name, now in changes.items()
        ]
    if len(problems_of(fitted)) >= len(problems):
        return config
    log.info("shortened with the run, from %d to %d %s: %s", old, new, name, ", ".join(said))
    return fitted


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _end(value: Any) -> float:
    return float(max(value) if isinstance(value, tuple) else value)


def _scaled(value: Any, share: float, whole: bool) -> Any:
    if isinstance(value, tuple):
        return tuple(dict.fromkeys(place for each in value if (place := int(each * share))))
    return int(value * share) if whole else value * share
