"""`python -m benchmarks throughput`: what a step and an image cost here, as ratios of alternating timings."""

import dataclasses
import json
import os
import re
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from backbones import build_backbone
from benchmarks.speed.loader import loader_speed, write_photos
from benchmarks.speed.options import Throughput
from benchmarks.speed.step import StepSettings, method_steps, precision_steps
from benchmarks.speed.timing import Comparison
from engine.allocator import keep_freed_memory
from engine.errors import ConfigError
from engine.run.environment import cpu_name, environment


def run_throughput(options: Throughput) -> pd.DataFrame:
    """Measure, print each line as it comes, and write both files.

    Returns:
        One row for each comparison, columns as in `Comparison.row`.

    Raises:
        ConfigError: a setting makes no measurement possible.
    """
    device = _device(options)
    _check(options)
    if device.type == "cpu":
        keep_freed_memory()
    started = datetime.now(UTC)
    comparisons = []
    for comparison in _measure(options, device):
        comparisons.append(comparison)
        print(_sentence(comparison), flush=True)
    rows = [comparison.row() for comparison in comparisons]
    frame = pd.DataFrame(rows)
    record = {
        "date": started.isoformat(timespec="seconds"),
        **environment(device),
        "cpu": cpu_name(),
        "num_cores": os.cpu_count(),
        "load_average": os.getloadavg(),
        "options": json.loads(json.dumps(dataclasses.asdict(options), default=str)),
        "rows": rows,
        "timings": [dataclasses.asdict(comparison) for comparison in comparisons],
    }
    _write(options.output, started, device, frame, record)
    return frame


def _device(options: Throughput) -> torch.device:
    if options.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device cuda: there is no GPU here that this torch can use; available: cpu")
    use_gpu = torch.cuda.is_available() and options.device != "cpu"
    return torch.device("cuda" if use_gpu else "cpu")


def _check(options: Throughput) -> None:
    if options.pairs < 1:
        raise ConfigError(f"--pairs is {options.pairs}; allowed: 1 or more")
    if options.image_size % 32:
        near = max(options.image_size // 32 * 32, 32)
        raise ConfigError(f"--image-size is {options.image_size}; allowed: a multiple of 32, such as {near}")
    if options.batch_size is not None and options.batch_size < 2:
        raise ConfigError(f"--batch-size is {options.batch_size}; allowed: 2 or more")


def _measure(options: Throughput, device: torch.device) -> Iterator[Comparison]:
    if "loader" in options.only:
        yield from _measure_loader(options)
    for model in options.models:
        settings = _step_settings(options, model, device)
        if "steps" in options.only:
            yield from method_steps(model, settings)
        if "precision" in options.only:
            yield from precision_steps(model, settings)


def _step_settings(options: Throughput, model: str, device: torch.device) -> StepSettings:
    if device.type == "cuda":
        batch_size, precision = 128, "bfloat16"
    else:
        is_cnn = build_backbone(model, image_size=options.image_size).is_cnn
        batch_size, precision = (16 if is_cnn else 8), "float32"
    return StepSettings(
        device=device,
        batch_size=options.batch_size or batch_size,
        image_size=options.image_size,
        precision=options.precision or precision,
        pairs=options.pairs,
    )


def _measure_loader(options: Throughput) -> Iterator[Comparison]:
    size, scale, pairs = options.image_size, options.crop_scale, options.pairs
    if options.data is not None:
        yield from loader_speed(options.data, image_size=size, scale=scale, pairs=pairs)
        return
    with tempfile.TemporaryDirectory() as folder:
        write_photos(Path(folder), options.num_images)
        yield from loader_speed(Path(folder), image_size=size, scale=scale, pairs=pairs)


def _sentence(comparison: Comparison) -> str:
    row = comparison.row()
    return (
        f"{row['measure']}: {row['a']} {row['images_per_second_a']:.4g} images/s, {row['b']} "
        f"{row['images_per_second_b']:.4g}; ratio {row['speed_a_over_b']:.3f} "
        f"({row['quartile_1']:.3f} to {row['quartile_3']:.3f})"
    )


def table(frame: pd.DataFrame) -> str:
    """The rows as Markdown: speeds, their ratio with quartiles, extra time in per cent, peak memory in GB on a GPU."""
    shown = pd.DataFrame(
        {
            "measure": frame["measure"],
            "A": frame["a"],
            "B": frame["b"],
            "A images/s": frame["images_per_second_a"].map("{:.4g}".format),
            "B images/s": frame["images_per_second_b"].map("{:.4g}".format),
            "speed A / B": frame["speed_a_over_b"].map("{:.3f}".format),
            "quartiles": [
                f"{low:.3f} to {high:.3f}" for low, high in zip(frame.quartile_1, frame.quartile_3, strict=True)
            ],
            "time of A over B": frame["extra_time"].map("{:+.1%}".format),
        }
    )
    if frame["peak_bytes_a"].notna().any():
        for name, column in (("A GB", "peak_bytes_a"), ("B GB", "peak_bytes_b")):
            shown[name] = (frame[column] / 1e9).map("{:.2f}".format)
    text: str = shown.to_markdown(index=False, disable_numparse=True)
    return text


def _write(folder: Path, started: datetime, device: torch.device, frame: pd.DataFrame, record: dict[str, Any]) -> None:
    machine = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()
    slug = re.sub(r"[^a-z0-9]+", "-", machine.lower()).strip("-")
    folder.mkdir(parents=True, exist_ok=True)
    base = folder / f"{started:%Y%m%d-%H%M%S}-{slug}"
    frame.to_csv(base.with_suffix(".csv"), index=False)
    base.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")
    print(f"\n{table(frame)}\n\nwritten: {base}.csv, {base}.json")
