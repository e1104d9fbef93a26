"""Where the weights of a run came from: the run folder that `init` names, or what the weights said of themselves."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from engine.config import config_hash
from results.methods import CONTROL
from results.metrics import PRETRAINING
from results.runs.runfiles import UnusableRun, is_count, is_file, optional_number, read_json, read_optional

if TYPE_CHECKING:
    from results.runs.runfolder import FinishedRun


@dataclass(frozen=True)
class Start:
    """Where the weights of a run came from.

    Args:
        method: as the method calls itself; "scratch" without pre-training; "<method>+classification" after a
            classification run; "<method> from <method>" for a pre-training that went on from another's weights; "file
            <name>" for weights that do not say how they were made.
        title: how people write the method, where a run folder says so; else "".
        order: its place among methods, where a run folder says so.
        recipe: of the run they came from; "" if there is none or it is not known. So for the others.
        epochs: of that run.
        seed: of that run, or of a network without training.
        seconds: of that run and those before it.
        unreadable: images skipped in that run and those before it.
        dataset: of that run, as FinishedRun's.
        settings: of that run, flattened; {} if it is not known.
        remark: of that run and those before it, as FinishedRun's.
    """

    method: str
    title: str = ""
    order: int | None = None
    recipe: str = ""
    epochs: int | None = None
    seed: int | None = None
    seconds: float = 0.0
    unreadable: int = 0
    dataset: str = ""
    settings: dict[str, Any] | None = None
    remark: str = ""


def start_of(
    run_dir: Path,
    task: str,
    config: Mapping[str, Any],
    told: Mapping[str, Any],
    read_run: Callable[[Path], "FinishedRun"],
    elsewhere: Mapping[str, Path] = MappingProxyType({}),
) -> Start:
    """What the run started from: the run folder `init` names if it is there, else what the weights said of themselves.

    Args:
        run_dir: of the run.
        task: of the run.
        config: of the run.
        told: of the method by the run's own finished.json: its `title` and `order`; {} where it says nothing.
        read_run: reads another run folder.
        elsewhere: run folders by the hash of their configurations, one of which is meant where none is at its place.

    Raises:
        UnusableRun: that run is unfinished or is not the one the weights were loaded from, or nothing tells the method.
    """
    init = str(config.get("init", "none"))
    before = None if init == "none" else _start_at(run_dir, init, read_run, elsewhere)
    if task in PRETRAINING:
        own = Start(str(config.get("method", "")), *_title_and_order(told.get("title"), told.get("order")))
        return own if before is None else _gone_on(own, before)
    return before or Start(CONTROL)


def _gone_on(own: Start, before: Start) -> Start:
    """The start of a pre-training that went on from other weights: a method of its own, as it owes to both."""
    method = f"{own.method} from {before.method}"
    return replace(before, method=method, title=own.title, order=own.order)


def _start_at(
    run_dir: Path, init: str, read_run: Callable[[Path], "FinishedRun"], elsewhere: Mapping[str, Path]
) -> Start:
    """What the weights that `init` names say of themselves, or the run folder that they are of.

    Raises:
        UnusableRun: as start_of.
    """
    record = read_optional(run_dir / "initialisation.json")
    description = record.get("description") or {}
    if not isinstance(description, dict):
        raise UnusableRun(f"initialisation.json: description is {description!r}, not an object")
    # Weights that were loaded but name no configuration are not of this suite, whatever folder here has their name.
    known_to_be_foreign = bool(record) and "config_hash" not in description
    loaded_hash = description.get("config_hash")
    origin = None if known_to_be_foreign else _origin(run_dir, init, loaded_hash) or elsewhere.get(str(loaded_hash))
    if origin is not None:
        return _start_at_run(origin, loaded_hash, read_run)
    if "method" in description:
        epochs = optional_number(description, "epochs", where="initialisation.json")
        seed = description.get("seed")
        return Start(
            str(description["method"]),
            *_title_and_order(description.get("method_title"), description.get("method_order")),
            epochs=None if epochs is None else int(epochs),
            seed=seed if is_count(seed) else _seed_of_untrained(init),
        )
    if not record:
        raise UnusableRun(f"the run it started from, {init}, is not here, so its method is not known")
    return Start(f"file {Path(init).name}")


def _title_and_order(title: Any, order: Any) -> tuple[str, int | None]:
    return title if isinstance(title, str) else "", order if is_count(order) else None


def _seed_of_untrained(init: str) -> int | None:
    """The seed of a network without training, which is named random:NAME or random:NAME@SEED; None of any other."""
    kind, _, name = init.partition(":")
    seed = name.partition("@")[2] or "0"
    return int(seed) if kind == "random" and seed.isdecimal() else None


def _origin(run_dir: Path, init: str, loaded_hash: str | None) -> Path | None:
    """The run folder that `init` means: as given, or beside this one, where it is after a move of all runs, or in the
    folder of runs that it names beside this one's.

    Where there are several the one that the weights were loaded from: another run may have the same name here.
    """
    given = Path(init)
    beside = run_dir.parent
    there_too = beside.parent / given.parent.name / given.name
    named = (given, given.parent, beside / given.name, beside / given.parent.name, there_too)
    itself = run_dir.resolve()
    there = [folder for folder in named if is_file(folder / "config.json") and folder.resolve() != itself]
    same = [folder for folder in there if _is(folder, loaded_hash)] if len(there) > 1 else []
    return next(iter(same or there), None)


def _is(folder: Path, wanted_hash: str | None) -> bool:
    try:
        return config_hash(read_json(folder / "config.json").get("config", {})) == wanted_hash
    except UnusableRun:
        return False


def _start_at_run(origin: Path, loaded_hash: str | None, read_run: Callable[[Path], "FinishedRun"]) -> Start:
    try:
        before = read_run(origin)
    except UnusableRun as error:
        raise UnusableRun(f"the run it started from, {origin}, cannot be used: {error}") from error
    if loaded_hash not in (None, before.config_hash):
        raise UnusableRun(f"{origin} is not the run it started from: the configuration is another one")
    pretraining = before.task in PRETRAINING
    return Start(
        before.start.method if pretraining else f"{before.start.method}+{before.task}",
        before.start.title if pretraining else "",
        before.start.order,
        recipe=before.recipe,
        epochs=before.config.get("epochs"),
        seed=before.config.get("seed"),
        seconds=before.seconds + before.start.seconds,
        unreadable=before.unreadable + before.start.unreadable,
        dataset=before.facts.name,
        settings={**before.settings, "data": before.facts.key, **_settings_before(before.start)},
        remark=f"its start: {remark}" if (remark := before.remark or before.start.remark) else "",
    )


def _settings_before(start: Start) -> dict[str, Any]:
    """What tells the weights that a run began at from others of the same method, among the settings of that run."""
    known = start.settings or ({} if start.epochs is None else {"epochs": start.epochs})
    return {f"start.{name}": value for name, value in known.items()}
