"""Measuring from Python: a fine-tuned run on a data set, and what a frozen encoder is worth."""

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine import config, use
from engine.config import read_config_file
from engine.errors import ConfigError
from mim_benchmark.runs import FinishedRun, as_path, as_reference, gathered, prepare, put, show_log
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
        return _own_task(as_path("source", source), data)
    if data is None:
        raise ConfigError("evaluate needs data=, the folder that holds train/ and val/")
    from evaluation.command import Asked
    from evaluation.run import measure_all

    chosen, folder = _of_protocol(protocol, data, fields), Path(runs_dir)
    (folder,) = measure_all(Asked(protocol, (as_reference(source),), chosen, folder, folder / "features"))
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
    metrics: dict[str, float] = importlib.import_module(f"{package}.use").evaluate(command)
    return metrics


def _of_protocol(protocol: str, data: str | Path, fields: Mapping[str, Any]) -> Any:
    """A protocol's configuration with what is given otherwise."""
    from evaluation.protocols import PROTOCOLS

    if protocol not in PROTOCOLS:
        raise ConfigError(f"there is no protocol {protocol!r}: {', '.join(PROTOCOLS)}")
    default = PROTOCOLS[protocol].config()
    content = config.to_dict(default)
    for name, value in {**gathered(fields, None), "data.root": str(data)}.items():
        put(content, name, value)
    return config.from_dict(type(default), content)
