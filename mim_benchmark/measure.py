"""Measuring from Python: a fine-tuned run on a data set, and what a frozen encoder is worth."""

import importlib
import json
import os
from pathlib import Path
from typing import Any

from engine import use
from engine.config import read_config_file
from engine.errors import ConfigError
from mim_benchmark.runs import FinishedRun, prepare, show_log
from suite_tasks import find

Source = str | Path | FinishedRun


def evaluate(
    source: Source,
    *,
    data: str | Path | None = None,
    protocol: str | None = None,
    runs_dir: str | Path = "runs/evaluation",
    **fields: Any,
) -> dict[str, float]:
    """The metrics of a fine-tuned run on a data set, or with a protocol those of a frozen encoder.

    Args:
        source: a run or its folder; with a protocol, anything that `load_encoder` takes.
        data: folder of the data set; of a fine-tuned run by default its own.
        protocol: None for the run's own task, or one of `python -m evaluation --help`: "knn", ...
        runs_dir: where a protocol keeps its run folders and cached features.
        fields: of the protocol's configuration, such as image_size=96.

    Raises:
        SuiteError: what `python -m <task> evaluate`, or `python -m evaluation`, would have ended with.
    """
    show_log()
    if protocol is None:
        if fields:
            raise ConfigError(f'{", ".join(fields)}: of a protocol; say which, as in protocol="knn"')
        return _own_task(Path(source), data)
    if data is None:
        raise ConfigError("evaluate needs data=, the folder that holds train/ and val/")
    flags = [word for name, value in fields.items() for word in _flag(name, value)]
    from evaluation.command import parse
    from evaluation.run import measure_all

    reference = os.fspath(source)
    asked = parse([protocol, reference, "--data.root", str(data), "--runs-dir", str(runs_dir), *flags])
    (folder,) = measure_all(asked)
    metrics: dict[str, float] = json.loads((folder / "finished.json").read_text())["metrics"]
    return metrics


def _own_task(run: Path, data: str | Path | None) -> dict[str, float]:
    package = str(read_config_file(run / "config.json")["package"])
    if find(package).kind != "finetuning":
        raise ConfigError(f'{run} holds a {package} run, which has no metric of its own: say protocol="knn"')
    prepare(package)
    configuration: Any = importlib.import_module(f"{package}.recipes").RECIPES["own"]()
    command = use.evaluate_command(
        package, [str(run), *([] if data is None else ["--data.root", str(data)])], type(configuration)
    )
    module = importlib.import_module(f"{package}.{'evaluate' if package == 'detection' else 'use'}")
    metrics: dict[str, float] = module.evaluate(command)
    return metrics


def _flag(name: str, value: Any) -> list[str]:
    values = value if isinstance(value, tuple | list) else (value,)
    return [f"--{name.replace('_', '-')}", *map(str, values)]
