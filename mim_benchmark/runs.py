"""Training from Python: a recipe, a data set and a run folder, and what the run leaves."""

import base64
import dataclasses
import difflib
import html
import importlib
import inspect
import json
import logging
import sys
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
    return _train("pretrain", recipe, data, run_dir, resume, {**fields, **(settings or {})})


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
    return _train(task, recipe, data, run_dir, resume, {**fields, **(settings or {})})


def configuration(package: str, recipe: str, data: str | Path, values: Settings) -> Any:
    """A recipe's configuration with what is given otherwise.

    Raises:
        ConfigError: the recipe or a field does not exist, or a value is of the wrong type.
    """
    recipes: Mapping[str, Any] = importlib.import_module(f"{package}.recipes").RECIPES
    if recipe not in recipes:
        raise ConfigError(f"{package} has no recipe {recipe!r}; there are {', '.join(recipes)}")
    parameters = inspect.signature(recipes[recipe]).parameters
    given = {name: str(value) for name, value in values.items() if name in parameters}
    if "data_root" in parameters:
        given["data_root"] = str(data)
    default = recipes[recipe](**given)
    content = config.to_dict(default)
    content["data"]["root"] = str(data)
    for name, value in values.items():
        if name not in parameters:
            _put(content, name, value)
    changed = fit_into_length(default, config.from_dict(type(default), content))
    config.check(changed)
    return changed


def _put(content: dict[str, Any], name: str, value: Any) -> None:
    known = config.flatten(content)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=2, cutoff=0.3) or list(known)[:2]
        raise ConfigError(f"there is no setting {name}; nearest: {', '.join(near)}")
    *groups, last = name.split(".")
    for group in groups:
        content = content[group]
    content[last] = _plain(value)


def _plain(value: Any) -> Any:
    """As config.json holds it: lists for tuples, text for paths and runs."""
    if isinstance(value, FinishedRun | Path):
        return str(Path(value))
    return json.loads(json.dumps(value)) if isinstance(value, tuple) else value


def _train(
    package: str, recipe: str, data: str | Path, run_dir: str | Path, resume: bool, values: Settings
) -> FinishedRun:
    show_log()
    chosen = configuration(package, recipe, data, values)
    prepare(package)
    train = importlib.import_module(f"{package}.train").train
    return FinishedRun(Path(run_dir), train(chosen, Path(run_dir), recipe=recipe, resume=resume))


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
