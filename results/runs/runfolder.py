"""Read one run folder and believe it only if it is finished, unchanged since, and holds possible numbers."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.config import config_hash, flatten
from results.runs.runfiles import UnusableRun, checked_metrics, optional_number, read_json, read_summary

# What does not make another experiment. Two runs that differ in nothing else are seeds of one row.
NOT_SETTINGS = {
    "seed", "init", "data.root", "data.num_workers", "checkpoint_every", "log_every", "visualize_every_epochs",
    "deterministic",
}  # fmt: skip

# What every other use of a configuration relies on; the fields that a task lacks are not looked at.
KINDS = {"model": str, "method": str, "seed": int, "epochs": int, "iterations": int, "data": dict}

# (task, training images, validation images, classes where the task records them) -> name in results/published.
DATASETS: dict[tuple[Any, ...], str] = {
    ("pretrain", 1281167, None, None): "ImageNet-1K",
    ("classification", 1281167, 50000, 1000): "ImageNet-1K",
    ("detection", 117266, 5000, None): "COCO 2017",  # training images with an object
    ("detection", 118287, 5000, None): "COCO 2017",
    ("segmentation", 20210, 2000, None): "ADE20K",
}


@dataclass(frozen=True)
class Start:
    """Where the weights of a run came from.

    Args:
        method: "scratch", "simmim", "a2mim"; "<method>+classification" after a classification run; "file <name>" for
            weights that do not say how they were made.
        recipe: of the run they came from; "" if there is none or it is not known. So for the others.
        epochs: of that run.
        seed: of that run.
        seconds: of that run and those before it.
        unreadable: images skipped in that run and those before it.
        dataset: of that run, as FinishedRun's.
        settings: of that run, flattened; {} if it is not known.
    """

    method: str
    recipe: str = ""
    epochs: int | None = None
    seed: int | None = None
    seconds: float = 0.0
    unreadable: int = 0
    dataset: str = ""
    settings: dict[str, Any] | None = None


@dataclass(frozen=True)
class FinishedRun:
    """A run with its results.

    Args:
        settings: the flattened configuration but for NOT_SETTINGS.
        data: tells image sets apart: a digest of names and sizes where the run recorded one, else their folder.
        dataset: what people call them: see `_dataset`.
        config_hash: of the whole configuration.
        framework: "torchvision", "detectron2" or "mmsegmentation"; "" where the run recorded none.
        environment: environment.json; {} without one.
    """

    run_dir: Path
    task: str
    recipe: str
    config: dict[str, Any]
    settings: dict[str, Any]
    data: str
    dataset: str
    config_hash: str
    framework: str
    environment: dict[str, Any]
    start: Start
    metrics: dict[str, float]
    seconds: float
    images_per_second: float | None
    peak_memory_bytes: float | None
    unreadable: int


def read_run(run_dir: Path, known: dict[Path, FinishedRun | None]) -> FinishedRun:
    """The finished run in a folder, of whatever task.

    Args:
        run_dir: the folder.
        known: the runs read so far, by resolved folder; many runs start from the same one. What is read is added,
            None while it is being read.

    Raises:
        UnusableRun: it is unfinished, failed, was edited, or holds a number that cannot be.
    """
    place = run_dir.resolve()
    if place in known:
        run = known[place]
        if run is None:
            raise UnusableRun("it is the start of a run that it started from")
        return run
    known[place] = None
    try:
        known[place] = run = _read(run_dir, known)
    except UnusableRun:
        del known[place]
        raise
    return run


def _read(run_dir: Path, known: dict[Path, FinishedRun | None]) -> FinishedRun:
    stored = read_json(run_dir / "config.json")
    try:
        task, recipe, config = str(stored["package"]), str(stored["recipe"]), dict(stored["config"])
    except (KeyError, TypeError, ValueError) as error:
        raise UnusableRun("config.json does not hold package, recipe and config") from error
    for name, kind in KINDS.items():
        if name in config and type(config[name]) is not kind:
            raise UnusableRun(f"config.json: {name} is {config[name]!r}, which is no {kind.__name__}")
    summary = read_summary(run_dir, config)
    for name, value in (("task", task), ("recipe", recipe)):
        if summary.get(name, value) != value:
            raise UnusableRun(f"config.json says {name} {value}, finished.json {summary[name]}")
    return FinishedRun(
        run_dir=run_dir,
        task=task,
        recipe=recipe,
        config=config,
        settings=_settings(config),
        data=_data(run_dir, config),
        dataset=_dataset(task, summary),
        config_hash=str(summary["config_hash"]),
        framework=str(summary.get("framework") or ""),
        environment=_environment(run_dir),
        start=_start(run_dir, task, config, known),
        metrics=checked_metrics(run_dir, task, summary),
        seconds=optional_number(summary, "seconds") or 0.0,
        images_per_second=optional_number(summary, "images_per_second"),
        peak_memory_bytes=optional_number(summary, "peak_memory_bytes"),
        unreadable=int(optional_number(summary, "unreadable") or 0),
    )


def _settings(config: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in flatten(config).items() if name not in NOT_SETTINGS}


def _data(run_dir: Path, config: dict[str, Any]) -> str:
    if (run_dir / "data.json").is_file():
        return config_hash(read_json(run_dir / "data.json"))[:8]
    return str(config.get("data", {}).get("root", ""))


def _dataset(task: str, summary: dict[str, Any]) -> str:
    """The published data set with as many images (and classes) as the run counted, else those counts as text."""
    names = ("num_train" if "num_train" in summary else "num_images", "num_val", "num_classes")
    counts = tuple(optional_number(summary, name) for name in names)
    numbers = " + ".join(str(count) for count in counts[:2] if count is not None)
    return DATASETS.get((task, *counts)) or (f"{numbers} images" if numbers else "")


def _environment(run_dir: Path) -> dict[str, Any]:
    # Only describes the run: without it, or without what is nonsense in it, the numbers are the same.
    try:
        values = read_json(run_dir / "environment.json")
    except UnusableRun:
        return {}
    kinds = {"device": str, "git_commit": str, "world_size": int, "effective": dict}
    return {name: value for name, value in values.items() if isinstance(value, kinds.get(name, object))}


def _start(run_dir: Path, task: str, config: dict[str, Any], known: dict[Path, FinishedRun | None]) -> Start:
    """What the run started from: the run folder `init` names if it is there, else what the weights said of themselves.

    Raises:
        UnusableRun: that run is unfinished or is not the one the weights were loaded from, or nothing tells the method.
    """
    if task == "pretrain":
        return Start(str(config.get("method", "")))
    init = str(config.get("init", "none"))
    if init == "none":
        return Start("scratch")
    record = read_json(run_dir / "initialisation.json") if (run_dir / "initialisation.json").is_file() else {}
    description = record.get("description") or {}
    if not isinstance(description, dict):
        raise UnusableRun(f"initialisation.json: description is {description!r}, not an object")
    # Weights that were loaded but name no configuration are not of this suite, whatever folder here has their name.
    known_to_be_foreign = bool(record) and "config_hash" not in description
    origin = None if known_to_be_foreign else _origin(run_dir, init, description.get("config_hash"))
    if origin is not None:
        return _start_at_run(origin, description.get("config_hash"), known)
    if "method" in description:
        epochs = optional_number(description, "epochs", where="initialisation.json")
        return Start(str(description["method"]), epochs=None if epochs is None else int(epochs))
    if not record:
        raise UnusableRun(f"the run it started from, {init}, is not here, so its method is not known")
    return Start(f"file {Path(init).name}")


def _origin(run_dir: Path, init: str, loaded_hash: str | None) -> Path | None:
    """The run folder that `init` means: as given, or beside this one, where it is after a move of all runs.

    Where there are several the one that the weights were loaded from: another run may have the same name here.
    """
    given = Path(init)
    named = (given, given.parent, run_dir.parent / given.name, run_dir.parent / given.parent.name)
    itself = run_dir.resolve()
    there = [folder for folder in named if (folder / "config.json").is_file() and folder.resolve() != itself]
    same = [folder for folder in there if _is(folder, loaded_hash)] if len(there) > 1 else []
    return next(iter(same or there), None)


def _is(folder: Path, wanted_hash: str | None) -> bool:
    try:
        return config_hash(read_json(folder / "config.json").get("config", {})) == wanted_hash
    except UnusableRun:
        return False


def _start_at_run(origin: Path, loaded_hash: str | None, known: dict[Path, FinishedRun | None]) -> Start:
    try:
        before = read_run(origin, known)
    except UnusableRun as error:
        raise UnusableRun(f"the run it started from, {origin}, cannot be used: {error}") from error
    if loaded_hash not in (None, config_hash(before.config)):
        raise UnusableRun(f"{origin} is not the run it started from: the configuration is another one")
    method = before.start.method if before.task == "pretrain" else f"{before.start.method}+{before.task}"
    return Start(
        method,
        recipe=before.recipe,
        epochs=before.config.get("epochs"),
        seed=before.config.get("seed"),
        seconds=before.seconds + before.start.seconds,
        unreadable=before.unreadable + before.start.unreadable,
        dataset=before.dataset,
        settings={**before.settings, "data": before.data},
    )
