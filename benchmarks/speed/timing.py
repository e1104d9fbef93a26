"""Two ways of doing the same work, timed alternately: on a shared machine only ratios of close neighbours mean much."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

Timing = Callable[[], float]
"""Do the work once; returns seconds per image."""

MIN_SECONDS = 0.2  # of one timing: well above a clock's and a scheduler's grain


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One way of doing the work.

    Args:
        name: for the table.
        run: see Timing.
        resident_bytes: GPU memory it holds between runs, which counts as its own and not as its rival's.
    """

    name: str
    run: Timing
    resident_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What alternating timings of a and b gave.

    Args:
        measure: the question.
        a: name of the first contender.
        b: name of the second one, the reference.
        seconds_a: per image, one for each pair.
        seconds_b: as seconds_a.
        peak_bytes_a: most GPU memory in use during a's runs; None on a CPU.
        peak_bytes_b: as peak_bytes_a.
    """

    measure: str
    a: str
    b: str
    seconds_a: tuple[float, ...]
    seconds_b: tuple[float, ...]
    peak_bytes_a: int | None = None
    peak_bytes_b: int | None = None

    @property
    def speed_ratios(self) -> list[float]:
        """Images/s of a over images/s of b, for each pair."""
        return [b / a for a, b in zip(self.seconds_a, self.seconds_b, strict=True)]

    def row(self) -> dict[str, Any]:
        """A line of the table: medians, and quartiles of the ratio. extra_time is a's time over b's, less 1."""
        ratios = self.speed_ratios
        low, middle, high = quartiles(ratios)
        return {
            "measure": self.measure,
            "a": self.a,
            "b": self.b,
            "images_per_second_a": 1 / statistics.median(self.seconds_a),
            "images_per_second_b": 1 / statistics.median(self.seconds_b),
            "speed_a_over_b": middle,
            "quartile_1": low,
            "quartile_3": high,
            "extra_time": statistics.median(1 / ratio for ratio in ratios) - 1,
            "pairs": len(ratios),
            "peak_bytes_a": self.peak_bytes_a,
            "peak_bytes_b": self.peak_bytes_b,
        }


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """First quartile, median, third quartile, interpolated linearly; of one value, three times that value."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def compare(measure: str, a: Contender, b: Contender, *, pairs: int) -> Comparison:
    """Run a and b alternately, `pairs` times each after one run of each to warm up; the order within a pair alternates.

    A drift of the machine (clock, neighbours) then falls on both, and its direction cancels.
    """
    seconds: dict[str, list[float]] = {"a": [], "b": []}
    peaks: dict[str, int | None] = {"a": None, "b": None}
    contenders = {"a": (a, b), "b": (b, a)}
    for pair in range(-1, pairs):
        for key in ("ab", "ba")[pair % 2]:
            mine, rival = contenders[key]
            if torch.cuda.is_available():
                torch.cuda.reset_peak_memory_stats()
            elapsed = mine.run()
            if torch.cuda.is_available():
                peaks[key] = max(peaks[key] or 0, torch.cuda.max_memory_allocated() - rival.resident_bytes)
            if pair >= 0:
                seconds[key].append(elapsed)
    return Comparison(
        measure=measure,
        a=a.name,
        b=b.name,
        seconds_a=tuple(seconds["a"]),
        seconds_b=tuple(seconds["b"]),
        peak_bytes_a=peaks["a"],
        peak_bytes_b=peaks["b"],
    )


def timing(work: Callable[[], None], *, num_images: int, device: torch.device) -> Timing:
    """Time `work` on `num_images` images, repeated as often as a first run says that MIN_SECONDS need."""
    repeats = 0

    def run() -> float:
        nonlocal repeats
        if not repeats:
            work()  # compiles, tunes and allocates
            repeats = max(1, round(MIN_SECONDS / seconds_of(work, 1, device)))
        return seconds_of(work, repeats, device) / (repeats * num_images)

    return run


def seconds_of(work: Callable[[], Any], repeats: int, device: torch.device) -> float:
    """Seconds that `work` takes when done `repeats` times, the device's part of it included."""
    _wait(device)
    started = time.perf_counter()
    for _ in range(repeats):
        work()
    _wait(device)
    return time.perf_counter() - started


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
