"""Taking a run folder: whether it may be started or continued, and the record of it."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from engine import config
from engine.errors import CheckpointError, ConfigError, DivergedError
from engine.run import checkpoint, lock, storage
from engine.run.environment import environment
from engine.run.folder import Run

# What may change between a start and a resume; everything else would make it another run.
FREE_TO_CHANGE = {
    "data.num_workers",
    "data.unreadable",
    "checkpoint_every",
    "log_every",
    "visualize_every_epochs",
    "epochs",
    "iterations",
}
# A folder with no more than this never trained: it was prepared, or refused for its data, and may start afresh.
BEFORE_THE_FIRST_STEP = {
    "config.json", "environment.json", "error.json", "run.lock", "output.log", "data.json", "slurm.jsonl"
}  # fmt: skip


def never_started(run_dir: Path) -> bool:
    """Whether a folder is new, prepared, or was left before its first step."""
    names = [p.name for p in run_dir.iterdir()] if run_dir.is_dir() else []
    return all(name in BEFORE_THE_FIRST_STEP or name.endswith(".partial") for name in names)


def claim(run: Run, resume: bool, accept_divergence: bool) -> bool:
    """Take the folder; returns whether it holds a run to continue.

    Raises:
        ConfigError: it is in use, not empty, or of another configuration.
        DivergedError: it diverged.
        CheckpointError: it cannot be written.
    """
    continuing = resume and (run.dir / "config.json").is_file()
    if not never_started(run.dir) and not resume:
        raise ConfigError(f"{run.dir} is not empty: use --resume to continue it or choose another folder")
    if not never_started(run.dir) and not continuing:
        raise ConfigError(f"{run.dir} holds no run to resume (no config.json in it): choose another folder")
    try:
        run.dir.mkdir(parents=True, exist_ok=True)
        lock.take(run.dir)
    except OSError as error:
        raise CheckpointError(f"{run.dir}: cannot be written ({error.strerror})") from error
    try:
        if never_started(run.dir):
            (run.dir / "data.json").unlink(missing_ok=True)
        changed = compare_config(run) if continuing else {}
        if continuing:  # a run keeps the name it was started under, whatever else gives the same configuration
            run.recipe = str(config.read_config_file(run.dir / "config.json").get("recipe", run.recipe))
        _refuse_divergence(run, accept_divergence)
        with storage.storage_errors(run.dir):
            _record_start(run, continuing, changed)
        checkpoint.remove_partial(run.dir)
    except BaseException:
        lock.release(run.dir)
        raise
    return continuing


def compare_config(run: Run) -> dict[str, Any]:
    """What changed since the folder's run was started, as {setting: [old, new]}.

    Raises:
        ConfigError: something changed that would make it another run.
    """
    stored = config.read_config_file(run.dir / "config.json")
    changed = config.differences(
        {"package": stored.get("package"), **stored.get("config", {})}, {"package": run.package, **run.config}
    )
    forbidden = {name: pair for name, pair in changed.items() if name not in FREE_TO_CHANGE}
    if forbidden:
        lines = "".join(f"\n  {name}: {old!r} -> {new!r}" for name, (old, new) in forbidden.items())
        raise ConfigError(
            f"{run.dir} was started with another configuration:{lines}\nresume it as it was, or choose another folder"
        )
    return {name: list(pair) for name, pair in changed.items()}


def _refuse_divergence(run: Run, accept_divergence: bool) -> None:
    path = run.dir / "error.json"
    if not path.is_file() or accept_divergence:
        return
    error = json.loads(path.read_text())
    if error.get("exit_code") == DivergedError.exit_code:
        raise DivergedError(
            f"{run.dir} diverged: {error['message']}\nresuming would repeat it: start a new run with a lower rate, "
            "or continue anyway with --accept-divergence"
        )


def _record_start(run: Run, continuing: bool, changed: dict[str, Any]) -> None:
    path = run.dir / "environment.json"
    now = {"started": datetime.now(UTC).isoformat(timespec="seconds"), **environment(run.device, run.packages)}
    if continuing and path.is_file():
        record = json.loads(path.read_text())
        record.setdefault("resumes", []).append({**now, "changed": changed})
    else:
        record = now
    storage.write_json(path, record)
    if not continuing or changed:
        storage.write_json(
            run.dir / "config.json", {"package": run.package, "recipe": run.recipe, "config": run.config}
        )
