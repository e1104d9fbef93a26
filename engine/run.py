"""The run folder: who may write it, what it was asked to do, what it measured and how it ended.

config.json  environment.json  metrics.jsonl  timing.jsonl  finished.json | error.json     (run.lock while it runs)
metrics.jsonl is a pure function of the configuration; wall-clock numbers stand in timing.jsonl, so that an interrupted
and an undisturbed run can be compared byte for byte.
"""

import errno
import json
import logging
import math
import os
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from engine import checkpoint, config, distributed, lock, storage
from engine.environment import environment, peak_memory_bytes
from engine.errors import CheckpointError, ConfigError, DivergedError
from engine.index import ImageIndex, check_unchanged

log = logging.getLogger("mim")
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


@dataclass
class Run:
    """A claimed run folder. Ranks other than the main one hold one too, and write nothing."""

    dir: Path
    package: str
    recipe: str
    config: dict[str, Any]
    device: torch.device
    resumed: bool
    main: bool = True
    _warned_at: dict[str, float] = field(default_factory=dict)

    @property
    def metrics_path(self) -> Path:
        """metrics.jsonl, one JSON object per log step or evaluation."""
        return self.dir / "metrics.jsonl"

    def log(self, split: str, step: int, epoch: float, values: dict[str, float]) -> None:
        """Append a line to metrics.jsonl: step, epoch, split ("train" or "val") and the values."""
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}  # NaN is not JSON
        self._append(self.metrics_path, {"step": step, "epoch": round(epoch, 6), "split": split, **finite})

    def time(self, step: int, values: dict[str, float]) -> None:
        """Append a line to timing.jsonl: images/s, data wait, seconds since the last line."""
        self._append(self.dir / "timing.jsonl", {"step": step, "time": time.time(), **values})

    def _append(self, path: Path, row: dict[str, Any]) -> None:
        if not self.main:
            return
        line = (json.dumps(row, allow_nan=False) + "\n").encode()
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            try:
                _write_whole(handle, line)
            finally:
                os.close(handle)
        except OSError as error:
            # A full disk must not end a run that can still train: say so once a minute and go on.
            if time.monotonic() - self._warned_at.get(path.name, -60.0) >= 60:
                self._warned_at[path.name] = time.monotonic()
                log.warning("cannot append to %s: %s", path, error.strerror)

    def metrics_offset(self) -> int:
        """Length of metrics.jsonl in bytes."""
        return self.metrics_path.stat().st_size if self.metrics_path.exists() else 0

    def rewind_metrics(self, offset: int) -> None:
        """Drop the lines written after a checkpoint, which are about to be written again."""
        if self.main and self.metrics_path.exists() and self.metrics_path.stat().st_size > offset:
            os.truncate(self.metrics_path, offset)

    def read_metrics(self, split: str) -> list[dict[str, Any]]:
        """The lines of one split, in order."""
        if not self.metrics_path.exists():
            return []
        rows = [json.loads(line) for line in self.metrics_path.read_text().splitlines()]
        return [row for row in rows if row["split"] == split]

    def pin_data(self, name: str, index: ImageIndex) -> None:
        """Remember a data set at the start, and insist on the same one when resuming.

        Raises:
            DataError: files were added, removed or resized since the run started; its order cannot be continued.
        """
        path = self.dir / "data.json"
        known = json.loads(path.read_text()) if path.is_file() else {}
        if name in known:
            check_unchanged(index, known[name]["num_images"], known[name]["digest"])
        elif self.main:
            known[name] = {"num_images": len(index), "digest": index.digest}
            storage.write_json(path, known)

    def note(self, **values: Any) -> None:
        """Print what follows from configuration and machine together, and store it in environment.json."""
        if not self.main:
            return
        log.info("%s", "  ".join(f"{name.replace('_', ' ')} {value}" for name, value in values.items()))
        path = self.dir / "environment.json"
        storage.write_json(path, {**json.loads(path.read_text()), "effective": values})

    def finish(self, metrics: dict[str, float], **more: Any) -> None:
        """Write finished.json, the last thing a run writes."""
        if not self.main:
            return
        timings = _read_lines(self.dir / "timing.jsonl")
        rates = sorted(row["images_per_second"] for row in timings if "images_per_second" in row)
        summary = {
            "task": self.package,
            "metrics": metrics,
            "config_hash": config.config_hash(self.config),
            "seconds": round(sum(row.get("seconds", 0.0) for row in timings), 3),
            "peak_memory_bytes": peak_memory_bytes(self.device),
            "images_per_second": rates[len(rates) // 2] if rates else None,
            **more,
        }
        with storage.storage_errors(self.dir):
            (self.dir / "error.json").unlink(missing_ok=True)
            storage.write_json(self.dir / "finished.json", summary)

    def finished(self) -> dict[str, float] | None:
        """The metrics of a run that is already finished with this configuration."""
        path = self.dir / "finished.json"
        if not path.is_file():
            return None
        summary = json.loads(path.read_text())
        return dict(summary["metrics"]) if summary["config_hash"] == config.config_hash(self.config) else None


def _write_whole(handle: int, line: bytes) -> None:
    written = os.write(handle, line)
    if written != len(line):  # the disk filled up inside the line: take the half line back
        os.ftruncate(handle, os.fstat(handle).st_size - written)
        raise OSError(errno.ENOSPC, "no space left for the whole line")


def _read_lines(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    rows = []
    for line in path.read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:  # torn by a kill in the middle of the write
            continue
    return rows


@contextmanager
def open_run(
    run_dir: Path,
    config_object: Any,
    *,
    package: str,
    recipe: str,
    resume: bool = False,
    accept_divergence: bool = False,
) -> Iterator[Run]:
    """Claim a run folder for the duration of the block and record how the block ended.

    Args:
        run_dir: the folder; must be new or empty unless `resume`.
        config_object: the resolved configuration, a dataclass.
        package: "pretrain", "classification", "detection" or "segmentation".
        recipe: name of the recipe.
        resume: continue what the folder holds.
        accept_divergence: continue a run that stopped because it diverged.

    Raises:
        ConfigError: the configuration has problems, the folder is in use or not empty, or `resume` with another
            configuration.
        DivergedError: `resume` of a diverged run.
        CheckpointError: the folder cannot be written.
    """
    config.check(config_object)
    device = distributed.pick_device()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with distributed.process_group(device):
        values = config.to_dict(config_object)
        run = Run(run_dir, package, recipe, values, device, resumed=False, main=distributed.is_main())
        _same_on_all_ranks(run)
        claimed = _on_main(run, lambda: _claim(run, resume, accept_divergence))
        run.resumed = bool(claimed)
        try:
            yield run
        except BaseException as error:
            if run.main:
                _record_error(run, error)
            raise
        finally:
            if run.main:
                lock.release(run_dir)


def _on_main(run: Run, action: Any) -> Any:
    """Do something on the main rank; if it fails there, fail on every rank with the same error."""
    outcome: Any = None
    if run.main:
        try:
            outcome = (True, action())
        except Exception as error:
            outcome = (False, error)
    good, value = distributed.gather_objects(outcome)[0]
    if not good:
        raise value
    return value


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
    if not _never_started(run_dir) and not _compare_config(run):
        return
    with storage.storage_errors(run_dir.parent):
        run_dir.mkdir(parents=True, exist_ok=True)
        storage.write_json(run_dir / "config.json", {"package": package, "recipe": recipe, "config": values})


def _never_started(run_dir: Path) -> bool:
    names = [p.name for p in run_dir.iterdir()] if run_dir.is_dir() else []
    return all(name in BEFORE_THE_FIRST_STEP or name.endswith(".partial") for name in names)


def _claim(run: Run, resume: bool, accept_divergence: bool) -> bool:
    """Take the folder; returns whether it held a run to continue."""
    never_started = _never_started(run.dir)
    continuing = resume and (run.dir / "config.json").is_file()
    if not never_started and not resume:
        raise ConfigError(f"{run.dir} is not empty: use --resume to continue it or choose another folder")
    if not never_started and not continuing:
        raise ConfigError(f"{run.dir} holds no run to resume (no config.json in it): choose another folder")
    try:
        run.dir.mkdir(parents=True, exist_ok=True)
        lock.take(run.dir)
    except OSError as error:
        raise CheckpointError(f"{run.dir}: cannot be written ({error.strerror})") from error
    try:
        if never_started:
            (run.dir / "data.json").unlink(missing_ok=True)
        changed = _compare_config(run) if continuing else {}
        _refuse_divergence(run, accept_divergence)
        with storage.storage_errors(run.dir):
            _record_start(run, continuing, changed)
        checkpoint.remove_partial(run.dir)
    except BaseException:
        lock.release(run.dir)
        raise
    return continuing


def _compare_config(run: Run) -> dict[str, Any]:
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
    now = {"started": datetime.now(UTC).isoformat(timespec="seconds"), **environment(run.device)}
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
