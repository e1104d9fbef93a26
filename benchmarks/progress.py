"""How far a run is, from its folder alone; imports nothing heavy, so that a command can ask about a thousand runs."""

import json
import os
from pathlib import Path
from typing import Any

from engine.config import config_hash


def is_finished(folder: Path) -> bool:
    """Whether a run folder holds the result of exactly its configuration."""
    try:
        summary = json.loads((folder / "finished.json").read_text())
        config = json.loads((folder / "config.json").read_text())["config"]
    except (OSError, ValueError, KeyError):
        return False
    return bool(summary.get("config_hash") == config_hash(config))


def progress(folder: Path) -> tuple[str, str, str, str]:
    """(how far, last loss, images/s, time left) of a run, from the last lines of its metrics; empty if none."""
    metrics, timing = last_line(folder / "metrics.jsonl", "loss"), last_line(folder / "timing.jsonl", "eta_seconds")
    if metrics is None:
        return "", "", "", ""
    left = f"{timing['eta_seconds'] / 60:.1f} min" if timing else ""
    rate = f"{timing['images_per_second']:.0f}" if timing else ""
    return _position(folder, metrics), f"{metrics['loss']:.4f}", rate, left


def _position(folder: Path, metrics: dict[str, Any]) -> str:
    try:
        config = json.loads((folder / "config.json").read_text())["config"]
    except (OSError, ValueError, KeyError):
        config = {}
    if "epochs" in config:
        return f"{metrics['epoch']:.1f}/{config['epochs']} epochs"
    total = config.get("iterations", config.get("steps"))
    return f"step {metrics['step']}" + (f"/{total}" if total else "")


def last_line(path: Path, key: str) -> dict[str, Any] | None:
    """The newest object of a .jsonl file that has a key, looked for in the file's last 4 kB; None if there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(os.fstat(file.fileno()).st_size - 4096, 0))
            lines = file.read().splitlines()
    except OSError:
        return None
    for line in reversed(lines):
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if key in row:
            return dict(row)
    return None
