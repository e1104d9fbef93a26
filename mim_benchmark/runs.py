"""Training from Python: a recipe, a data set and a run folder, and what the run leaves."""

import base64
import dataclasses
import difflib
import html
import importlib
import inspect
import logging
import sys
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from engine import config
from engine.errors import ConfigError
from engine.shorten import fit_into_length

Settings = Mapping[str, Any]
Finetuning = Literal["classification", "detection", "segmentation"]


@dataclasses.dataclass(frozen=True)
class FinishedRun:
    """A finished run. A notebook shows its metrics and its last picture."""

    dir: Path
    """The run folder."""
    metrics: dict[str, float]
    """Of its finished.json."""

    def __fspath__(self) -> str:
        """The run folder, so that a run stands wherever a path does."""
        return str(self.dir)

    @property
    def pictures(self) -> list[Path]:
        """The panels that it drew, in order."""
        return sorted(self.dir.glob("panels/*.png"))

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{html.escape(name)}</td><td>{value:.4g}</td></tr>" for name, value in self.metrics.items()
        )
        picture = ""
        if self.pictures:
            data = base64.b64encode(self.pictures[-1].read_bytes()).decode()
            picture = f'<img src="data:image/png;base64,{data}" alt="{html.escape(self.pictures[-1].name)}">'
        return f"<p><code>{html.escape(str(self.dir))}</code></p><table>{rows}</table>{picture}"


def pretrain(
    recipe: str = "own",
    *,
    data: str | Path,
    run_dir: str | Path,
    resume: bool = True,
    settings: Settings | None = None,
    **fields: Any,
) -> FinishedRun:
    """Pre-train, as `python -m pretrain RECIPE` does.

    Args:
        recipe: a name of pretrain.recipes.RECIPES.
        data: folder of images.
        run_dir: of the run; what it holds of the same run is continued.
        resume: False refuses a folder that holds a run.
        settings: any field by its full name, {"optimizer.base_learning_rate": 1e-3}.
        fields: those of the top level and the recipe's parameters: model="resnet18", method="simmim", epochs=100.

    Raises:
        SuiteError: what the command would have ended with.
    """
    return _train("pretrain", recipe, (data, run_dir), resume, gathered(fields, settings))


def finetune(
    recipe: str = "own",
    *,
    data: str | Path,
    run_dir: str | Path,
    task: Finetuning = "classification",
    resume: bool = True,
    settings: Settings | None = None,
    **fields: Any,
) -> FinishedRun:
    """Fine-tune, as `python -m classification RECIPE` (or detection, segmentation) does.

    Args:
        recipe: a name of the task's recipes.
        data: folder of the data set, as the task's `--data.root`.
        run_dir: of the run; what it holds of the same run is continued.
        task: which package.
        resume: False refuses a folder that holds a run.
        settings: any field by its full name, {"augment.flip": 0.0}.
        fields: those of the top level and the recipe's parameters: model="resnet18", init=run or a file or "none".

    Raises:
        SuiteError: what the command would have ended with.
    """
    if task not in (tasks := typing.get_args(Finetuning)):
        raise ConfigError(f"there is no task {task!r}: {', '.join(tasks)}")
    return _train(task, recipe, (data, run_dir), resume, gathered(fields, settings))


def gathered(fields: Settings, settings: Settings | None) -> Settings:
    """All values by their full names; groups may be given as such, {"augment": {"flip": 0.0}}.

    Raises:
        ConfigError: the settings are no dictionary.
    """
    if not isinstance(settings, Mapping | None):
        raise ConfigError(f'settings: expected a dictionary such as {{"augment.flip": 0.0}}, found {settings!r}')
    return config.flatten({**fields, **(settings or {})})


def as_path(name: str, value: Any) -> Path:
    """An argument that says where something is.

    Raises:
        ConfigError: it is no path.
    """
    try:
        return Path(value)
    except TypeError as error:
        raise ConfigError(f"{name}: expected a path, found {value!r}") from error


def as_reference(source: Any) -> str:
    """A run, a file or a name such as "timm:resnet18" in one word.

    Raises:
        ConfigError: it is none.
    """
    return source if isinstance(source, str) else str(as_path("source", source))


def configuration(package: str, recipe: str, data: str | Path, values: Settings) -> Any:
    """A recipe's configuration with what is given otherwise.

    Raises:
        ConfigError: the recipe or a field does not exist, or a value is of the wrong type.
    """
    recipes: Mapping[str, Any] = importlib.import_module(f"{package}.recipes").RECIPES
    if recipe not in recipes:
        raise ConfigError(f"{package} has no recipe {recipe!r}; there are {', '.join(recipes)}")
    parameters = {config.setting_of(name): name for name in inspect.signature(recipes[recipe]).parameters}
    given = {parameters[name]: str(value) for name, value in values.items() if name in parameters}
    if "data.root" in parameters:
        given["data_root"] = str(data)
    default = recipes[recipe](**given)
    content = config.to_dict(default)
    content["data"]["root"] = str(data)
    for name, value in values.items():
        if name not in parameters:
            put(content, name, value)
    changed = fit_into_length(default, config.from_dict(type(default), content))
    config.check(changed)
    return changed


def put(content: dict[str, Any], name: str, value: Any) -> None:
    """Set one field, by its full name, of a configuration as plain values.

    Raises:
        ConfigError: there is none of this name.
    """
    known = config.flatten(content)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=2, cutoff=0.3) or list(known)[:2]
        raise ConfigError(f"there is no setting {name}; nearest: {', '.join(near)}")
    *groups, last = name.split(".")
    for group in groups:
        content = content[group]
    if name == "data.classes" and isinstance(content[last], str) and isinstance(value, list | tuple):
        value = ",".join(map(str, value))  # as the command line takes it
    content[last] = _plain(value, content[last])
    if name == "init" and value is None:
        content[last] = "none"


def _plain(value: Any, before: Any) -> Any:
    """As config.json holds it: lists for tuples and for what a list alone may hold, text for paths and runs."""
    if isinstance(value, FinishedRun | Path):
        return str(Path(value))
    if isinstance(value, tuple):
        return list(value)
    return [value] if isinstance(before, list) and isinstance(value, int | float | str) else value


def _train(package: str, recipe: str, where: tuple[Any, Any], resume: bool, values: Settings) -> FinishedRun:
    show_log()
    data, run_dir = (as_path(name, value) for name, value in zip(("data", "run_dir"), where, strict=True))
    chosen = configuration(package, recipe, data, values)
    prepare(package)
    train = importlib.import_module(f"{package}.train").train
    return FinishedRun(run_dir, train(chosen, run_dir, recipe=recipe, resume=resume))


def prepare(package: str) -> None:
    """What must be imported before a task package's modules."""
    if package == "segmentation":
        from segmentation.framework import import_mmsegmentation

        import_mmsegmentation()


def show_log() -> None:
    """What commands print, a notebook or a program sees too, unless it has arranged its own logging."""
    log = logging.getLogger("mim")
    if not log.handlers and not logging.getLogger().handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(message)s"))
        log.addHandler(handler)
        log.setLevel(logging.INFO)
