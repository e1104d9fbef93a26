"""Formats of config.json: what an older version of the suite wrote, said in the words of this one.

A file without a number is of format 1. To respell a setting, append a function (package, config) -> config to UPGRADES
that turns the present format into the next: old run folders then resume, are compared and run again under the new name.
A setting that is only added needs nothing here: where a file lacks it, it takes its default.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any

from engine.errors import ConfigError

Values = dict[str, Any]
Upgrade = Callable[[str, Values], Values]


def move(config: Values, old: str, new: str) -> None:
    """Respell a setting or a group in place, as move(config, "schedule.min_learning_rate", "schedule.min_rate");
    nothing if it is not there."""
    *path, name = old.split(".")
    group: Any = config
    for part in path:
        group = group.get(part) if isinstance(group, dict) else None
    if not isinstance(group, dict) or name not in group:
        return
    value = group.pop(name)
    *path, name = new.split(".")
    target: Any = config
    for part in path:
        target = target.setdefault(part, {})
    target[name] = value


def own_options(package: str, config: Values) -> Values:
    """Format 2: what one pre-training method alone has stands under `options`. Every method had all of it before; A2MIM
    was allowed one `fill`, and SimMIM one `loss`."""
    if package != "pretrain" or "options" in config:
        return config
    move(config, "token", "options.token")
    move(config, "mask.fill", "options.fill")
    move(config, "loss", "options.loss")
    unused = {"a2mim": "fill", "simmim": "loss"}.get(str(config.get("method")))
    config.get("options", {}).pop(unused, None)
    return config


_SPELLINGS = {
    "schedule.min_learning_rate": "schedule.min_rate",
    "schedule.step_epochs": "schedule.milestones",
    "augment.hflip": "augment.flip",
    "augment.scale": "augment.crop_scale",
    "augment.ratio": "augment.crop_ratio",
}
_ADDED: dict[str, Values] = {
    "pretrain": {"schedule.power": 1.0},
    "classification": {"optimizer.eps": None, "schedule.step_factor": 0.1, "schedule.power": 1.0},
    "detection": {"optimizer.eps": None, "schedule.min_rate": 0.0, "schedule.power": 1.0},
    "segmentation": {
        "optimizer.eps": None, "schedule.kind": "poly", "schedule.milestones": [], "schedule.step_factor": 0.1
    },
}  # fmt: skip
"""What a task was without and now shares with the others, at the value that changes nothing: else a run of before would
be told apart from one of today by what it could not say."""


def one_spelling(package: str, config: Values) -> Values:
    """Format 3: the groups that all tasks share are spelt one way in all."""
    if package not in _ADDED:
        return config
    for old, new in _SPELLINGS.items():
        move(config, old, new)
    if config.get("accumulation", 1) is None:
        config["accumulation"] = 1
    schedule = config.get("schedule")
    if isinstance(schedule, dict):
        schedule.setdefault("final_weight_decay", None)
        if isinstance(schedule.get("warmup_epochs"), int):
            schedule["warmup_epochs"] = float(schedule["warmup_epochs"])
        if package == "pretrain" and schedule.get("kind") != "step":
            schedule["milestones"] = []  # which nothing looked at
        if package == "classification" and schedule.get("kind") == "step":
            _leave_out_late(schedule, config.get("epochs"))
    for name, value in _ADDED[package].items():
        group, _, field = name.partition(".")
        if isinstance(config.get(group), dict):
            config[group].setdefault(field, copy.deepcopy(value))
    return config


def _leave_out_late(schedule: Values, epochs: Any) -> None:
    """Milestones after the run's end did nothing and were taken; without any the rate stays what it is."""
    milestones = schedule.get("milestones")
    if isinstance(milestones, list) and isinstance(epochs, int):
        schedule["milestones"] = [m for m in milestones if not isinstance(m, int | float) or m < epochs]
        if milestones and not schedule["milestones"]:
            schedule["kind"] = "constant"


_NEUTRAL: dict[str, Values] = {
    "pretrain": {"data.mean": [0.485, 0.456, 0.406], "data.std": [0.229, 0.224, 0.225]},
    "classification": {
        "standardise": False, "data.mean": [0.485, 0.456, 0.406], "data.std": [0.229, 0.224, 0.225]
    },
}  # fmt: skip
"""What came before format 4 was numbered, likewise at the value that changes nothing."""


def length_of_a_part(package: str, config: Values) -> Values:
    """Format 4: unless it is said otherwise, an epoch of few labelled images is as many steps as one of all. Before, it
    was as many as they make; of all images both are the same."""
    data = config.get("data")
    if not isinstance(data, dict):
        return config
    for name, value in _NEUTRAL.get(package, {}).items():
        (data if name.startswith("data.") else config).setdefault(name.removeprefix("data."), copy.deepcopy(value))
    if package != "classification":
        return config
    if data.get("train_fraction", 1) != 1 or data.get("label_list"):
        data.setdefault("full_epochs", False)
    else:
        data["full_epochs"] = True
    return config


UPGRADES: tuple[Upgrade, ...] = (own_options, one_spelling, length_of_a_part)
"""The first takes format 1 to 2, the next 2 to 3, and so on. Each may change the values it is given."""


def current(upgrades: Sequence[Upgrade] = UPGRADES) -> int:
    """The format that this version writes."""
    return 1 + len(upgrades)


def upgrade(stored: Values, upgrades: Sequence[Upgrade] = UPGRADES) -> Values:
    """A config.json's content {"format", "package", "recipe", "config"} in the present format; `stored` is unchanged.

    Raises:
        ConfigError: it lacks one of them, holds something else there, or a newer version of the suite wrote it.
    """
    for name, kind, meaning in (("package", str, "a name"), ("recipe", str, "a name"), ("config", dict, "settings")):
        if not isinstance(stored.get(name), kind):
            raise ConfigError(f"{name} is {stored.get(name)!r}, not {meaning}")
    number, newest = stored.get("format", 1), current(upgrades)
    if type(number) is not int or number < 1:
        raise ConfigError(f"format is {number!r}, not a number from 1 to {newest}")
    if number > newest:
        raise ConfigError(f"format {number} is of a newer version, this one reads up to {newest}: update to read it")
    config = copy.deepcopy(stored["config"])
    for step in upgrades[number - 1 :]:
        config = step(stored["package"], config)
    return {**stored, "format": newest, "config": config}
