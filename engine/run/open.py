"""A run from its claim to its end: `with open_run(...) as run`. Why it stopped stands in its error.json."""

import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from engine import config, distributed
from engine.after import resume_command
from engine.allocator import keep_freed_memory
from engine.errors import CheckpointError, ConfigError, DataError, RankLostError
from engine.explain import explain
from engine.run import checkpoint, lock, storage
from engine.run.claim import claim, compare_config, never_started
from engine.run.folder import Run
from engine.training.progress import trackers
from engine.training.threads import choose_threads

__all__ = ["Run", "open_run", "prepare"]

log = logging.getLogger("mim")


@contextmanager
def open_run(
    run_dir: Path,
    config_object: Any,
    *,
    package: str,
    recipe: str,
    resume: bool = False,
    accept_divergence: bool = False,
    packages: tuple[str, ...] = (),
) -> Iterator[Run]:
    """Claim a run folder for the duration of the block and record how the block ended.

    Args:
        run_dir: the folder; must be new or empty unless `resume`.
        config_object: the resolved configuration, a dataclass.
        package: "pretrain", "classification", "detection" or "segmentation".
        recipe: name of the recipe.
        resume: continue what the folder holds.
        accept_divergence: continue a run that stopped because it diverged.
        packages: what the task stands on, whose versions go to environment.json beside those of every run.

    Raises:
        ConfigError: the configuration or MIM_TRACKERS has problems, the folder is in use or not empty, or `resume` with
            another configuration.
        DivergedError: `resume` of a diverged run.
        CheckpointError: the folder cannot be written.
        MemoryExhaustedError: the block ran out of GPU memory.
    """
    config.check(config_object)
    trackers()
    device = distributed.pick_device()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        keep_freed_memory()
        choose_threads(run_dir)
    with distributed.process_group(device):
        values = config.to_dict(config_object)
        run = Run(run_dir, package, recipe, values, device, False, distributed.is_main(), packages)
        _same_on_all_ranks(run)
        claimed = run.on_main(lambda: claim(run, type(config_object), resume, accept_divergence))
        run.resumed, run.recipe = claimed.resumed, claimed.recipe
        run.changed, run.known_hashes = claimed.changed, claimed.known_hashes
        try:
            yield run
        except BaseException as error:
            explained = explain(error, values)
            if run.main:
                _record_error(run, explained)
                _say_how_to_go_on(run, explained)
            if explained is error:
                raise
            raise explained from error
        finally:
            if run.main:
                lock.release(run_dir)


def _same_on_all_ranks(run: Run) -> None:
    mine = {"run folder": str(run.dir.absolute()), "configuration": config.config_hash(run.config)[:12]}
    everyone = distributed.gather_objects(mine)
    for name in mine:
        found = sorted({str(other[name]) for other in everyone})
        if len(found) > 1:
            raise ConfigError(f"the ranks disagree on the {name}: {' and '.join(found)}: start all with one command")


def prepare(run_dir: Path, config_object: Any, *, package: str, recipe: str) -> None:
    """Write a run folder's config.json ahead of its run, which then starts with `resume`.

    This is how a graph of runs is laid out before any of them starts: `python -m <package> <run_dir>/config.json
    --run-dir <run_dir> --resume` begins, continues, or finds finished, whichever is the case.

    Raises:
        ConfigError: the configuration has problems, or the folder holds another run.
    """
    config.check(config_object)
    values = config.to_dict(config_object)
    run = Run(run_dir, package, recipe, values, torch.device("cpu"), resumed=False)
    if not _needs_config(run, type(config_object)):
        return
    with storage.storage_errors(run_dir.parent):
        run_dir.mkdir(parents=True, exist_ok=True)
        lock.take(run_dir)  # nobody starts it meanwhile
        try:
            storage.write_json(run_dir / "config.json", config.file_content(package, recipe, values))
        finally:
            lock.release(run_dir)


def _needs_config(run: Run, config_type: type) -> bool:
    """Whether `prepare` has to write; a run that has taken steps may be given what is free to change.

    Raises:
        ConfigError: the folder holds another run, or something else.
    """
    is_new = never_started(run.dir)
    if not (run.dir / "config.json").is_file():
        if not is_new:
            raise ConfigError(f"{run.dir} is not empty, and holds no run: choose another folder")
        return True
    try:
        changed = compare_config(run, config_type)[1]
    except ConfigError:
        if is_new:
            return True
        raise
    return bool(changed) and not (run.dir / "finished.json").exists()


def _say_how_to_go_on(run: Run, error: BaseException) -> None:
    """After an error that lies outside the run, in data, storage or a lost process, once steps were taken."""
    step, code = checkpoint.last_step(run.dir), getattr(error, "exit_code", 1)
    if not step or code not in (DataError.exit_code, CheckpointError.exit_code, RankLostError.exit_code):
        return
    how = "once that is mended, go on with"
    if code == DataError.exit_code:
        how = "with the files as they were at the start (--data.unreadable skip passes over bad ones), go on with"
    log.info("%d steps are saved: %s\n    %s", step, how, resume_command(run.package, run.dir))


def _record_error(run: Run, error: BaseException) -> None:
    """Say in error.json why the run stopped; a storage that refuses even that must not hide the error itself."""
    record = {
        "type": type(error).__name__,
        "message": str(error),
        "exit_code": getattr(error, "exit_code", 130 if isinstance(error, KeyboardInterrupt) else 1),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "traceback": traceback.format_exception(error),
    }
    try:
        storage.write_json(run.dir / "error.json", record)
    except OSError as failure:
        log.warning("cannot write %s: %s", run.dir / "error.json", failure.strerror)
