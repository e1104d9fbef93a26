"""Configurations: frozen dataclasses, written to JSON, read back, checked and compared. Knows no task."""

import contextlib
import dataclasses
import difflib
import hashlib
import json
import logging
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

from engine import formats
from engine.errors import ConfigError
from engine.fields import outside

log = logging.getLogger("mim")
Config = TypeVar("Config")


def to_dict(config: Any) -> dict[str, Any]:
    """The configuration as plain JSON values: tuples become lists, and 0 in a field of fractions becomes 0.0."""
    typed = from_dict(type(config), _plain(config))  # the same settings must give the same text, and so the same hash
    return _plain(typed)


def _plain(config: Any) -> dict[str, Any]:
    return typing.cast(dict[str, Any], json.loads(json.dumps(dataclasses.asdict(config))))


def from_dict(cls: type[Config], values: dict[str, Any], where: str = "") -> Config:
    """Rebuild a configuration from `to_dict`'s output. A setting that is not there takes its default, which is logged.

    Raises:
        ConfigError: a setting is unknown, missing without a default, or of the wrong type; names it as `group.field`.
    """
    absent: list[str] = []
    config = _build(cls, values, where, absent)
    if absent:
        log.info("not in the stored configuration, so taken by default: %s", ", ".join(absent))
    return config


def _build(cls: type[Config], values: dict[str, Any], where: str, absent: list[str]) -> Config:
    hints = typing.get_type_hints(cls)
    field_types = getattr(cls, "field_types", None)  # of fields whose class depends on the values of others
    if field_types is not None:
        hints |= field_types(values)
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(map(str, values.keys() - fields.keys()))
    if unknown:
        raise ConfigError("; ".join(_unknown(name, where, cls) for name in unknown))
    built: dict[str, Any] = {}
    for name, field in fields.items():
        if name in values:
            built[name] = _convert(hints[name], values[name], f"{where}{name}", absent)
            continue
        if field.default is not dataclasses.MISSING:
            built[name] = field.default
        elif field.default_factory is not dataclasses.MISSING:
            built[name] = field.default_factory()
        else:
            raise ConfigError(f"{where}{name} is missing, and has no default")
        absent.append(f"{where}{name}" + ("" if dataclasses.is_dataclass(built[name]) else f" {built[name]!r}"))
    return cls(**built)


def _unknown(name: str, where: str, cls: type) -> str:
    """That a group has no such setting, and the nearest that it has."""
    known = [f"{where}{field.name}" for field in dataclasses.fields(cls)]
    near = difflib.get_close_matches(f"{where}{name}", known, n=1, cutoff=0.0)
    return f"there is no setting {where}{name} in this version; nearest: {near[0] if near else 'none'}"


def _convert(hint: Any, value: Any, where: str, absent: list[str]) -> Any:
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise ConfigError(f"{where}: expected a group of settings, found {value!r}")
        return _build(typing.cast(type, hint), value, f"{where}.", absent)
    if origin in (typing.Union, types.UnionType):
        return _convert_union(options, value, where, absent)
    if origin is tuple and isinstance(value, list):
        items = [options[0]] * len(value) if options[-1] is Ellipsis else list(options)
        if len(items) == len(value):
            return tuple(_convert(item, element, where, absent) for item, element in zip(items, value, strict=True))
    if origin is typing.Literal and value in options:
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):  # a whole number beyond any fraction
            return float(value)
    if isinstance(hint, type) and isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
        return value
    raise ConfigError(f"{where}: expected {_in_words(hint)}, found {value!r}")


def _in_words(hint: Any) -> str:
    """What a field holds, for people."""
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return _in_words(options[0])
    if origin is typing.Literal:
        return f"one of {', '.join(map(repr, options))}"
    if origin is tuple:
        number = "" if options[-1] is Ellipsis else f" of {len(options)}"
        return f"a list{number}, each {_in_words(options[0])}"
    return {int: "a whole number", float: "a number", str: "text", bool: "true or false"}.get(hint, str(hint))


def _convert_union(options: tuple[Any, ...], value: Any, where: str, absent: list[str]) -> Any:
    if value is None and type(None) in options:
        return None
    wanted = [option for option in options if option is not type(None)]
    for option in wanted[:-1]:
        with contextlib.suppress(ConfigError):
            return _convert(option, value, where, absent)
    return _convert(wanted[-1], value, where, absent)


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"data": {"root": 1}} -> {"data.root": 1}."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat.update(flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value})
    return flat


def setting_of(parameter: str) -> str:
    """The setting that a recipe's parameter is: data_root is data.root, image_size itself."""
    group, _, name = parameter.partition("_")
    return f"data.{name}" if group == "data" else parameter


def differences(old: dict[str, Any], new: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The settings that differ, as {"group.field": (old value, new value)}."""
    flat_old, flat_new = flatten(old), flatten(new)
    keys = sorted(flat_old.keys() | flat_new.keys())
    return {k: (flat_old.get(k), flat_new.get(k)) for k in keys if flat_old.get(k) != flat_new.get(k)}


def config_hash(values: dict[str, Any]) -> str:
    """sha256 over the canonical JSON of `to_dict`'s output."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def check(config: Any) -> None:
    """Report at once everything about a configuration that cannot be run.

    The ranges of its fields stand on them (engine/fields.py). A group states what is left, rules between its fields, in
    a method `problems() -> list[str]`: the field, the value and what is allowed of each.

    Raises:
        ConfigError: listing every problem.
    """
    if found := problems_of(config):
        lines = "".join(f"\n  - {line}" for line in found)
        raise ConfigError(f"{len(found)} problem{'s' * (len(found) > 1)} in the configuration:{lines}")


def problems_of(config: Any) -> list[str]:
    """What `check` reports, one line each.

    Raises:
        ConfigError: a value is of another type.
    """
    values = flatten(to_dict(config))
    impossible = [line for name, value in values.items() for line in _impossible(name, value)]
    return impossible or list(dict.fromkeys([*outside(config), *_problems(config)]))


_LARGEST = 2**31 - 1
_LARGEST_FLOAT32 = 3.4e38


def _impossible(name: str, value: Any) -> list[str]:
    """What no setting of any group can be."""
    if isinstance(value, list):
        return list(dict.fromkeys(line for each in value for line in _impossible(name, each)))
    if isinstance(value, float) and not abs(value) <= _LARGEST_FLOAT32:  # not a number either
        return [f"{name} is {value}; allowed: a finite number"]
    if isinstance(value, int) and abs(value) > _LARGEST:
        return [f"{name} is {value}; allowed: at most {_LARGEST}"]
    if isinstance(value, str) and "\0" in value:
        return [f"{name} is {value!r}; allowed: text without null characters"]
    return []


def _problems(group: Any) -> list[str]:
    found: list[str] = list(group.problems()) if hasattr(group, "problems") else []
    for field in dataclasses.fields(group):
        value = getattr(group, field.name)
        if dataclasses.is_dataclass(value):
            found += [f"{field.name}.{line}" for line in _problems(value)]
    return found


def file_content(package: str, recipe: str, values: dict[str, Any]) -> dict[str, Any]:
    """What a run folder's config.json holds. Giving the file back to its package runs the run again."""
    return {"format": formats.current(), "package": package, "recipe": recipe, "config": values}


def read_config_file(path: Path) -> dict[str, Any]:
    """A run folder's `config.json` as plain values in the present format: {"format", "package", "recipe", "config"}.

    Raises:
        ConfigError: the file is absent, not such an object, or of a newer version of the suite.
    """
    try:
        stored = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        what = "no run is in it" if path.parent.is_dir() else "there is no such folder"
        raise ConfigError(f"{path}: not a readable configuration: {what}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not a readable configuration ({error})") from error
    if not isinstance(stored, dict):
        raise ConfigError(f"{path}: not a configuration: it holds no object")
    try:
        return formats.upgrade(stored)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
