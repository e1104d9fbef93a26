"""The run folder of a running task: what it is asked to do, what it measures, how it finishes.

config.json  environment.json  metrics.jsonl  timing.jsonl  finished.json
metrics.jsonl is a pure function of the configuration; wall-clock numbers stand in timing.jsonl, so that an interrupted
and an undisturbed run can be compared byte for byte.
"""

import errno
import json
import logging
import math
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from engine import config
from engine.data.content import check_same, identify, look_into, remarks
from engine.data.index import ImageIndex
from engine.run import storage
from engine.run.environment import peak_memory_bytes

log = logging.getLogger("mim")


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
    packages: tuple[str, ...] = ()
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
            DataError: files were added, removed, resized or replaced since the run started; its order cannot be
                continued.
        """
        content = look_into(index)
        path = self.dir / "data.json"
        known = json.loads(path.read_text()) if path.is_file() else {}
        if name in known:
            check_same(index, content, known[name])
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
        path = self.dir / "environment.json"
        known = json.loads(path.read_text())
        storage.write_json(path, {**known, "effective": {**known.get("effective", {}), **values}})

    def finish(self, metrics: dict[str, float], **more: Any) -> None:
        """Write finished.json, the last thing a run writes."""
        if not self.main:
            return
        timings = _read_lines(self.dir / "timing.jsonl")
        rates = sorted(row["images_per_second"] for row in timings if "images_per_second" in row)
        summary = {
            "task": self.package,
            "recipe": self.recipe,
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
