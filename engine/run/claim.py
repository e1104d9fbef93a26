"""Taking a run folder: whether a run may begin or go on in it. Nothing is written before everything is checked."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine import config
from engine.errors import CheckpointError, ConfigError, DivergedError
from engine.run import checkpoint, lock, storage
from engine.run.folder import Run

# What may change between a start and a resume; everything else would make it another run. A data set may be moved:
# Run.pin_data insists that it is the same one.
FREE_TO_CHANGE = {
    "data.root",
    "data.num_workers",
    "data.unreadable",
    "data.max_unreadable",
    "data.max_pixels",
    "data.exclude",
    "data.label_list",
    "checkpoint_every",
    "log_every",
    "visualize_every_epochs",
    "monitor.data",
}
LENGTHS = {"epochs", "iterations"}  # may grow where the schedule has no end
# What those who start runs leave in a folder, and what a run leaves that was refused before it began.
OF_THE_LAUNCHER = {"run.lock", "output.log", "slurm.jsonl"}
OF_A_START = {
    "config.json", "environment.json", "error.json", "data.json", "initialisation.json", "unreadable.txt",
    "metrics.jsonl", "timing.jsonl", "checkpoints", "tensorboard", "wandb", "panels", "diverged",
}  # fmt: skip


@dataclass
class Claim:
    """What a taken folder holds: see Run for the fields."""

    resumed: bool
    recipe: str
    changed: dict[str, list[Any]] = field(default_factory=dict)
    known_hashes: set[str] = field(default_factory=set)


def never_started(run_dir: Path) -> bool:
    """Whether a folder is new or prepared, or holds a run that was left before its first step."""
    names = {p.name for p in run_dir.iterdir() if not p.name.endswith(".partial")} if run_dir.is_dir() else set()
    if "config.json" not in names:
        return names <= OF_THE_LAUNCHER | {"environment.json", "error.json", "data.json"}
    return not _took_a_step(run_dir, names)


def _took_a_step(run_dir: Path, names: set[str]) -> bool:
    if "finished.json" in names or any(name.endswith(".safetensors") for name in names):
        return True
    if checkpoint.last_step(run_dir) > 0:
        return True
    try:
        if not _is_file(run_dir / "metrics.jsonl"):
            return True
        lines = (run_dir / "metrics.jsonl").read_bytes().splitlines()
        return any(json.loads(line)["step"] != 0 for line in lines)
    except FileNotFoundError:
        return False
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return True


def _is_file(path: Path) -> bool:
    """Whether a path can be read without waiting for ever, as for the other end of a pipe."""
    return path.is_file() or not path.exists()


def claim(run: Run, config_type: type, resume: bool, accept_divergence: bool) -> Claim:
    """Take the folder, and begin the run there unless it holds one to continue.

    Raises:
        ConfigError: it is in use, not empty, or of another configuration.
        DivergedError: it diverged.
        CheckpointError: it cannot be written, or files in it are links to elsewhere.
    """
    is_new, has_config = never_started(run.dir), (run.dir / "config.json").is_file()
    if not is_new and not resume:
        raise ConfigError(f"{run.dir} is not empty: use --resume to continue it or choose another folder")
    if not is_new and not has_config:
        raise ConfigError(f"{run.dir} holds no run to resume (no config.json in it): choose another folder")
    try:
        run.dir.mkdir(parents=True, exist_ok=True)
        lock.take(run.dir)
    except OSError as error:
        raise CheckpointError(f"{run.dir}: cannot be written ({error.strerror})") from error
    try:
        claimed = Claim(resumed=not is_new, recipe=run.recipe)
        if resume and has_config:
            claimed.recipe, claimed.changed, claimed.known_hashes = compare_config(run, config_type)
        if resume or _same_config(run, config_type):
            _refuse_divergence(run.dir, accept_divergence)
        _refuse_links(run.dir)
        _refuse_pipes(run.dir)
        if is_new:
            run.recipe = claimed.recipe
            _clear(run.dir)
            run.start()
        else:
            _check_length(run, claimed.changed)
            with storage.storage_errors(run.dir):
                checkpoint.remove_partial(run.dir)
            checkpoint.prune(run.dir)
    except BaseException:
        lock.release(run.dir)
        raise
    return claimed


def compare_config(run: Run, config_type: type) -> tuple[str, dict[str, list[Any]], set[str]]:
    """The recipe a folder's run was started under, what changed since as {setting: [old, new]}, and under which hashes
    it may have finished. The comparison is in the words of this version.

    Raises:
        ConfigError: something changed that would make it another run.
    """
    path = run.dir / "config.json"
    stored = config.read_config_file(path)
    if stored["package"] != run.package:
        raise _another(run, {"package": [stored["package"], run.package]})
    try:
        old = config.to_dict(config.from_dict(config_type, stored["config"]))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    changed = {name: list(pair) for name, pair in config.differences(old, run.config).items()}
    forbidden = {name: pair for name, pair in changed.items() if not _is_free(name, pair, run.config)}
    if forbidden:
        raise _another(run, forbidden)
    # a run keeps the name it was started under, whatever else gives the same configuration
    unchanged = set() if changed else {config.config_hash(json.loads(path.read_bytes())["config"])}
    return stored["recipe"], changed, unchanged


def _is_free(name: str, pair: list[Any], values: dict[str, Any]) -> bool:
    return name in FREE_TO_CHANGE or (name in LENGTHS and values.get("schedule", {}).get("kind") == "constant")


def _another(run: Run, changed: dict[str, list[Any]]) -> ConfigError:
    lines = "".join(f"\n  {name}: {old!r} -> {new!r}" for name, (old, new) in changed.items())
    why = ""
    if not LENGTHS.isdisjoint(changed):
        kind = run.config.get("schedule", {}).get("kind", "its")
        why = f"\n(the {kind} schedule ends with the run: at another length every step has another learning rate)"
    return ConfigError(
        f"{run.dir} was started with another configuration:{lines}{why}\nresume it as it was, or choose another folder"
    )


def _same_config(run: Run, config_type: type) -> bool:
    if not (run.dir / "config.json").is_file():
        return False
    try:
        return not compare_config(run, config_type)[1]
    except ConfigError:
        return False


def _check_length(run: Run, changed: dict[str, list[Any]]) -> None:
    """Refuse to end a run before the step that it has reached."""
    name = next(iter(LENGTHS & changed.keys()), None)
    if name is None or changed[name][1] > changed[name][0]:
        return
    old, new = changed[name]
    try:
        steps = storage.read_object(run.dir / "environment.json")["effective"]["steps"] * new // old
    except (OSError, ValueError, KeyError, TypeError):
        steps = 0  # not known, so that it cannot be checked
    if checkpoint.last_step(run.dir) > steps:
        raise ConfigError(
            f"{run.dir} has taken {checkpoint.last_step(run.dir)} steps, {new} {name} end at {steps}: "
            f"resume it with more {name}, or start a new run"
        )


def _refuse_pipes(run_dir: Path) -> None:
    for name in ("metrics.jsonl", "timing.jsonl"):
        if not _is_file(run_dir / name):
            raise CheckpointError(f"{run_dir / name} is no regular file, so nothing can be written into it: remove it")


def _refuse_links(run_dir: Path) -> None:
    for name in ("checkpoints", "metrics.jsonl", "timing.jsonl"):
        path = run_dir / name
        if path.is_symlink():
            raise CheckpointError(
                f"{path} is a link (to {path.readlink()}): a run does not write through links inside its folder. Put "
                "the real one here, or make the run folder itself the link"
            )


def _clear(run_dir: Path) -> None:
    """Remove what a run left that was stopped before its first step; files of others stay."""
    with storage.storage_errors(run_dir):
        checkpoint.remove_partial(run_dir)
        for name in sorted(OF_A_START - {"config.json"}):  # which start() replaces: a run is never without one
            storage.remove(run_dir / name)


def _refuse_divergence(run_dir: Path, accept_divergence: bool) -> None:
    try:
        error = storage.read_object(run_dir / "error.json")
    except (OSError, ValueError):  # absent or torn: whether it diverges again will show
        return
    if error.get("exit_code") == DivergedError.exit_code and not accept_divergence:
        raise DivergedError(
            f"{run_dir} diverged: {error.get('message')}\nresuming would repeat it: start a new run with a lower rate, "
            "or continue anyway with --accept-divergence"
        )
