"""The run folder of a running task: what it is asked to do, what it measures, how it finishes.

config.json  environment.json  metrics.jsonl  timing.jsonl  finished.json
metrics.jsonl is a pure function of the configuration; wall-clock numbers stand in timing.jsonl, so that an interrupted
and an undisturbed run can be compared byte for byte.
"""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar, cast

import torch

from engine import config
from engine.data.content import check_same, identify, look_into, remarks
from engine.data.index import ImageIndex
from engine.distributed import gather_objects
from engine.errors import CheckpointError, DataError
from engine.run import storage
from engine.run.environment import environment, peak_memory_bytes
from engine.run.metrics import JsonLines, make_durable, missing_evaluations

log = logging.getLogger("mim")
T = TypeVar("T")


@dataclass
class Run:
    """A claimed run folder. Ranks other than the main one hold one too, and write nothing.

    `changed` is what a continued run is given otherwise than it was started with, as {setting: [old, new]};
    `known_hashes` are those of its configuration, in the words of this version and in those of its config.json.
    """

    dir: Path
    package: str
    recipe: str
    config: dict[str, Any]
    device: torch.device
    resumed: bool
    main: bool = True
    packages: tuple[str, ...] = ()
    changed: dict[str, list[Any]] = field(default_factory=dict)
    known_hashes: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Nothing is opened yet."""
        self._metrics = JsonLines(self.metrics_path)
        self._timing = JsonLines(self.dir / "timing.jsonl")
        self._notes: dict[str, Any] = {}

    @property
    def metrics_path(self) -> Path:
        """metrics.jsonl, one JSON object per log step or evaluation."""
        return self.dir / "metrics.jsonl"

    def on_main(self, action: Callable[[], T]) -> T:
        """Do something on the main rank; every rank gets its result, or fails with its error."""
        outcome: Any = None
        if self.main:
            try:
                outcome = (True, action())
            except Exception as error:
                outcome = (False, error)
        good, value = gather_objects(outcome)[0]
        if not good:
            raise value
        return cast(T, value)

    def log(self, split: str, step: int, epoch: float, values: dict[str, float]) -> None:
        """Add a line to metrics.jsonl: step, epoch, split ("train" or "val") and the values. One that the storage does
        not take now waits, in its place; no checkpoint is written and no run finishes without it."""
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}  # NaN is not JSON
        if self.main:
            self._metrics.append({"step": step, "epoch": round(epoch, 6), "split": split, **finite})

    def time(self, step: int, values: dict[str, float]) -> None:
        """Add a line to timing.jsonl: images/s, data wait, seconds since the last line. One may be lost."""
        if self.main:
            self._timing.append({"step": step, "time": time.time(), **values}, keep=False)

    def metrics_offset(self) -> int:
        """Length of metrics.jsonl in bytes, with the lines that wait to be written."""
        return self._metrics.size()

    def flush_metrics(self) -> None:
        """Write the lines of metrics.jsonl that wait.

        Raises:
            CheckpointError: the storage still refuses them.
        """
        if self.main:
            with storage.storage_errors(self.dir):
                self._metrics.flush()

    def read_metrics(self, split: str) -> list[dict[str, Any]]:
        """The lines of one split, in order.

        Raises:
            CheckpointError: some could not be written.
        """
        self.flush_metrics()
        return [row for row in self._metrics.rows() if row.get("split") == split]

    def require_evaluations(self, steps: list[int]) -> None:
        """Insist that metrics.jsonl holds the evaluation after each of these steps.

        Raises:
            CheckpointError: it does not.
        """
        lost = missing_evaluations(self.read_metrics("val"), steps) if self.main else []
        if lost:
            raise CheckpointError(
                f"{self.metrics_path} lacks the evaluation after step {lost[0]} ({len(lost)} of {len(steps)} are "
                "missing): its results would be wrong. Train again in a new folder"
            )

    def start(self) -> None:
        """Record that a run begins in this folder."""
        record = {"started": datetime.now(UTC).isoformat(timespec="seconds"), **environment(self.device, self.packages)}
        with storage.storage_errors(self.dir):
            storage.write_json(self.dir / "environment.json", record)
            self._write_config()

    def continue_from(self, step: int, metrics_offset: int) -> None:
        """Record that the run goes on from a checkpoint: everything has been checked by now. The lines written after
        the checkpoint are dropped, they are about to be written again.

        environment.json's `resumes` gets one entry: when and where (as at the start), from which step, and what changed
        since the start or the last resume.
        """
        if not self.main:
            return
        now = {"started": datetime.now(UTC).isoformat(timespec="seconds"), **environment(self.device, self.packages)}
        record = self._environment()
        before = record.get("resumes")
        entry = {**now, "step": step, "changed": self.changed}
        record["resumes"] = [*before, entry] if isinstance(before, list) else [entry]
        record["effective"] = self._notes or record.get("effective", {})
        with storage.storage_errors(self.dir):
            storage.remove(self.dir / "finished.json")
            storage.write_json(self.dir / "environment.json", record)
            self._write_config()
            self._metrics.rewind(metrics_offset)

    def _write_config(self) -> None:
        storage.write_json(self.dir / "config.json", config.file_content(self.package, self.recipe, self.config))

    def _environment(self) -> dict[str, Any]:
        path = self.dir / "environment.json"
        try:
            return storage.read_object(path)
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:  # a run can do without what stood there
            log.warning("%s cannot be read (%s): it is written anew", path, error)
            return {}

    def pin_data(self, name: str, index: ImageIndex) -> None:
        """Remember a data set at the start, and insist on the same one when resuming, wherever it is now.

        Raises:
            DataError: files were added, removed, resized or replaced since the run started; its order cannot be
                continued.
            CheckpointError: data.json, which says which data set that was, cannot be read.
        """
        content = look_into(index)
        path = self.dir / "data.json"
        try:
            known = storage.read_object(path)
            pinned: Any = known.get(name)
            if name in known and not {"num_images", "digest"} <= pinned.keys():
                raise ValueError(f"{name}: {pinned!r}")
        except FileNotFoundError:
            known, pinned = {}, None
        except (OSError, ValueError, AttributeError) as error:
            raise CheckpointError(
                f"{path} does not say which data set the run was started with ({error}): put it back as it was, or "
                "start a new run"
            ) from error
        if pinned is not None:
            check_same(index, content, {"content": None, **pinned})
        elif "data.root" in self.changed:
            raise DataError(
                f"{index.root}: {path} does not say which files the run was started with, so that a data set elsewhere "
                f"cannot be known to be the same: resume with --data.root {self.changed['data.root'][0]}"
            )
        elif self.main:
            known[name] = identify(index, content)
            storage.write_json(path, known)
            for remark in remarks(index, content):
                log.warning("%s", remark)

    def note(self, **values: Any) -> None:
        """Print what follows from configuration and machine together, and store it in environment.json."""
        if not self.main:
            return
        log.info("%s", "  ".join(f"{name.replace('_', ' ')} {value}" for name, value in values.items()))
        self._notes |= values
        if not self.resumed:  # else continue_from stores them, once everything is checked
            record = self._environment()
            storage.write_json(self.dir / "environment.json", {**record, "effective": self._notes})

    def finish(self, metrics: dict[str, float], **more: Any) -> None:
        """Write finished.json, the last thing a run writes. It knows the hashes of the files that others start from or
        count with, and its own.

        Raises:
            CheckpointError: the storage refuses it, or lines of metrics.jsonl.
        """
        if not self.main:
            return
        self.flush_metrics()
        timings = self._timing.rows()
        rates = sorted(_numbers(timings, "images_per_second"))
        with storage.storage_errors(self.dir):
            make_durable(self.metrics_path, self.metrics_offset())
            summary = {
                "task": self.package,
                "recipe": self.recipe,
                "metrics": metrics,
                "config_hash": config.config_hash(self.config),
                "seconds": round(sum(_numbers(timings, "seconds")), 3),
                "peak_memory_bytes": peak_memory_bytes(self.device),
                "images_per_second": rates[len(rates) // 2] if rates else None,
                **more,
                "files": {path.name: storage.sha256_of(path) for path in self._lasting_files()},
            }
            (self.dir / "error.json").unlink(missing_ok=True)
            storage.write_json(self.dir / "finished.json", storage.sealed(summary))

    def _lasting_files(self) -> list[Path]:
        """Weights, and the small files that say what they are worth."""
        small = [self.dir / name for name in ("classes.json", "categories.json", "data.json", "initialisation.json")]
        return [*sorted(self.dir.glob("[!.]*.safetensors")), *(path for path in small if path.is_file())]

    def finished(self) -> dict[str, float] | None:
        """The metrics of a run that is already finished with this configuration."""
        path = self.dir / "finished.json"
        try:
            summary = storage.read_object(path)
            if "files" in summary and not storage.is_sealed(summary):
                raise ValueError("it was changed, its sha256 differs")
            metrics = {str(name): float(value) for name, value in summary["metrics"].items()}
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            log.warning("%s cannot be believed (%s): going on from the last checkpoint", path, error)
            return None
        hashes = {config.config_hash(self.config), *self.known_hashes}
        return metrics if summary.get("config_hash") in hashes else None


def _numbers(rows: list[dict[str, Any]], name: str) -> list[float]:
    return [row[name] for row in rows if isinstance(row.get(name), int | float)]
