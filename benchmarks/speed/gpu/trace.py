"""Where the time of a run goes: waiting for the loader, kernels against gaps between them, synchronisations."""

import collections
import dataclasses
import json
import os
import statistics
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.autograd import DeviceType  # type: ignore[attr-defined]

from benchmarks.speed.gpu.part import Part
from benchmarks.speed.loader import write_photos
from benchmarks.speed.step import build_optimizer
from engine.data.order import SamplePlan
from engine.loop import run_loop
from engine.run.open import open_run
from engine.task import loop_settings
from pretrain.build import build_model
from pretrain.config import PretrainConfig
from pretrain.recipes import for_model
from pretrain.train import compute_losses, train

WARM_UP, PROFILED = 8, 4
SYNCHRONISING = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")


def run(part: Part) -> None:
    """A whole run with its loader, then the loop alone under the profiler."""
    with part.record.attempt("loader"):
        _loader(part)
    for model in part.models[:2]:  # a CNN and a Transformer
        with part.record.attempt(f"profile {model}"):
            _profile(part, model)


def linked_photos(folder: Path, num_images: int, num_different: int) -> Path:
    """A folder of so many JPEGs of 500x375 pixels, each of the different ones under several names."""
    write_photos(folder, min(num_different, num_images))
    originals = sorted(folder.iterdir())
    for i in range(len(originals), num_images):
        os.link(originals[i % len(originals)], folder / f"{i:05d}.jpg")
    return folder


def short_config(part: Part, model: str, batch_size: int, root: Path) -> PretrainConfig:
    """The published A2MIM configuration as a run of few steps and no panels or checkpoints on the way."""
    config = for_model(model, "a2mim")
    return dataclasses.replace(
        config,
        epochs=4 if part.small else 15,
        batch_size=batch_size,
        image_size=part.image_size,
        checkpoint_every=10**6,
        log_every=1 if part.small else 5,
        visualize_every_epochs=0,
        data=dataclasses.replace(config.data, root=str(root), num_workers=1 if part.small else 16),
        schedule=dataclasses.replace(config.schedule, kind="cosine", warmup_epochs=0, milestones=()),
    )


def timings(run_dir: Path) -> list[dict[str, Any]]:
    """The windows of timing.jsonl after the first two, in which caches and loaders fill."""
    rows = [json.loads(line) for line in (run_dir / "timing.jsonl").read_text().splitlines()]
    return [row for row in rows if "images_per_second" in row][2:]


def _loader(part: Part) -> None:
    num_images, batch_size = (8, 2) if part.small else (1024, 256)
    model = part.models[0]
    root = linked_photos(part.folder / "photos", num_images, 4 if part.small else 128)
    config = short_config(part, model, batch_size, root)
    train(config, part.folder / "run")
    rows = timings(part.folder / "run")
    name = f"a2mim {model}, batch {batch_size}, {config.data.num_workers} loader workers"
    part.record.add(name, statistics.median(row["images_per_second"] for row in rows), "images/s")
    part.record.add(f"{name}: data_wait", statistics.median(row["data_wait"] for row in rows), "of the time")


class Watched:
    """Batches that are ready in pinned memory, and a profiler that is on for the steps between two of them."""

    def __init__(self, part: Part, config: PretrainConfig, last: int) -> None:
        side = config.image_size // config.mask.cell_size
        shape = (config.batch_size, config.image_size, config.image_size, 3)
        images = torch.randint(0, 256, shape, dtype=torch.uint8).permute(0, 3, 1, 2)
        mask = (torch.rand(config.batch_size, side, side) < 0.6).to(torch.uint8)
        self.batch = {"image": images, "mask": mask}
        if not part.small:
            self.batch = {name: tensor.pin_memory() for name, tensor in self.batch.items()}
        self.last, self.on_gpu = last, not part.small
        activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
        self.profiler = torch.profiler.profile(activities=activities if self.on_gpu else activities[:1])
        self.caught: list[warnings.WarningMessage] = []

    def __call__(self, first: int) -> Iterator[list[Any]]:
        """For engine.loop: profiled between the first and the second mark, synchronisations watched until the third."""
        for _ in range(WARM_UP):
            yield [self.batch]
        self._wait()
        self.profiler.start()
        for _ in range(PROFILED):
            yield [self.batch]
        self._wait()
        self.profiler.stop()
        with warnings.catch_warnings(record=True) as self.caught:
            warnings.simplefilter("always")
            self._watch("warn")
            for _ in range(PROFILED):
                yield [self.batch]
            self._watch("default")
        for _ in range(self.last - WARM_UP - 2 * PROFILED):
            yield [self.batch]

    def _wait(self) -> None:
        if self.on_gpu:
            torch.cuda.synchronize()

    def _watch(self, mode: str) -> None:
        if self.on_gpu:
            torch.cuda.set_sync_debug_mode(mode)


def _profile(part: Part, model: str) -> None:
    batch_size = 2 if part.small else 256
    last = WARM_UP + 2 * PROFILED + 1
    config = dataclasses.replace(short_config(part, model, batch_size, part.folder), epochs=1, log_every=last)
    watched = Watched(part, config, last)
    with open_run(part.folder / f"profile-{model}", config, package="pretrain", recipe="any") as claimed:
        torch.manual_seed(0)
        net = build_model(config)
        run_loop(
            claimed,
            net,
            optimizer=build_optimizer(config, net),
            batches=watched,
            loss=compute_losses,
            settings=loop_settings(
                config, SamplePlan(last * batch_size, batch_size, 0), channels_last=net.encoder.is_cnn
            ),
        )
    _summary(part, f"a2mim {model}, batch {batch_size}", watched)


def _summary(part: Part, name: str, watched: Watched) -> None:
    events: Any = watched.profiler.events()  # type: ignore[no-untyped-call]
    kernels = [e for e in events if e.device_type == DeviceType.CUDA]
    syncs = collections.Counter(e.name for e in events if e.name in SYNCHRONISING)
    part.record.add(f"{name}: operations on the CPU in a step", len(events) / PROFILED)
    if kernels:
        busy, window = busy_time(kernels)
        part.record.add(f"{name}: kernels of the loop's time", busy / window, note=f"{len(kernels) // PROFILED} a step")
        part.record.add(f"{name}: a step", window / PROFILED / 1e3, "ms")
        for row in _top(watched.profiler):
            part.record.add(f"{name}: kernel", row[1], "of kernel time", note=row[0][:120])
    note = ", ".join(f"{count / PROFILED:.2g} {kind}" for kind, count in syncs.items())
    part.record.add(f"{name}: calls that wait, in a step", sum(syncs.values()) / PROFILED, note=note)
    places = collections.Counter(
        f"{Path(w.filename).name}:{w.lineno}" for w in watched.caught if "synchron" in str(w.message)
    )
    note = ", ".join(f"{place} {count / PROFILED:.2g}" for place, count in places.most_common(6))
    part.record.add(
        f"{name}: operations that wait for the device, in a step", sum(places.values()) / PROFILED, note=note
    )


def busy_time(kernels: list[Any]) -> tuple[float, float]:
    """Microseconds in which at least one kernel or copy ran, and from the first one's start to the last one's end."""
    spans = sorted((e.time_range.start, e.time_range.end) for e in kernels)
    busy, reached = 0.0, spans[0][0]
    for start, end in spans:
        busy += max(end - max(start, reached), 0)
        reached = max(reached, end)
    return busy, reached - spans[0][0]


def _top(profiler: torch.profiler.profile, count: int = 8) -> list[tuple[str, float]]:
    rows = [(e.key, e.self_device_time_total) for e in profiler.key_averages() if e.device_type != DeviceType.CPU]
    total = sum(time for _, time in rows)
    return [(name, time / total) for name, time in sorted(rows, key=lambda row: -row[1])[:count]]
