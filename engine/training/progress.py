"""What a person watches: a bar on a terminal, plain lines otherwise, TensorBoard, and W&B if asked for.

MIM_TRACKERS chooses the last two ("tensorboard" by default; "tensorboard,wandb"; "" for none): where curves are shown
does not change a run, so it is not in its configuration.
"""

import hashlib
import importlib
import importlib.util
import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn
from rich.progress import Task as BarTask
from rich.text import Text

from engine.errors import ConfigError
from engine.run.folder import Run

log = logging.getLogger("mim")
_FIRST = "reading images, first step"  # what a run does while its bar stands at the start


def trackers() -> list[str]:
    """What MIM_TRACKERS asks for.

    Raises:
        ConfigError: one is unknown or not installed.
    """
    names = [name.strip() for name in os.environ.get("MIM_TRACKERS", "tensorboard").split(",") if name.strip()]
    unknown = [name for name in names if name not in _TRACKERS]
    if unknown:
        raise ConfigError(
            f"MIM_TRACKERS={','.join(names)}: no tracker {unknown[0]!r}; there are {', '.join(_TRACKERS)}"
        )
    if "wandb" in names and importlib.util.find_spec("wandb") is None:
        raise ConfigError("MIM_TRACKERS asks for wandb, which is not installed: pip install -e '.[tracking]'")
    return names


@dataclass
class Stopwatch:
    """Where the time of the current log window went."""

    started: float = field(default_factory=time.perf_counter)
    data_wait: float = 0.0
    images: int = 0
    steps: int = 0

    def lap(self, remaining_steps: int) -> dict[str, float]:
        """The window's numbers; starts the next window."""
        seconds = time.perf_counter() - self.started
        row = {
            "seconds": round(seconds, 4),
            "images_per_second": round(self.images / seconds, 3),
            "data_wait": round(self.data_wait / seconds, 4),
            "eta_seconds": round(remaining_steps * seconds / max(self.steps, 1), 1),
        }
        self.started, self.data_wait, self.images, self.steps = time.perf_counter(), 0.0, 0, 0
        return row


class Monitor:
    """Shows a run to a person; only the main rank's shows anything."""

    def __init__(self, run: Run, total_steps: int, first_step: int, steps_per_epoch: float = 0) -> None:
        self._run, self._total, self._first, self._per_epoch = run, total_steps, first_step, steps_per_epoch
        self._bar: Progress | None = None
        self._writers: dict[str, Any] = {}
        self._failed: set[str] = set()
        self._in_notebook = False
        self._written = 0.0

    def __enter__(self) -> "Monitor":
        if not self._run.main:
            return self
        self._in_notebook = not sys.stderr.isatty() and "ipykernel" in sys.modules
        if sys.stderr.isatty() or self._in_notebook:
            columns = (TextColumn("{task.description}"), BarColumn(bar_width=20), _Where(self._per_epoch), _Times())
            self._bar = Progress(*columns, TextColumn(" {task.fields[note]}"), console=Console(stderr=True))
            if not self._in_notebook:  # which cannot move a cursor: there one line is written over itself
                self._bar.start()
            first = self._first
            self._bar.add_task(
                self._run.dir.name, total=self._total, completed=first, first=first, note="", phase=_FIRST
            )
        for name in trackers():
            with self._decorative(name):
                self._writers[name] = _TRACKERS[name](self._run, self._first)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar and self._in_notebook:
            self._write_line(at_once=True)
            print(file=sys.stderr)
        elif self._bar:
            self._bar.stop()
        for name in self._writers.keys() - self._failed:
            with self._decorative(name):
                self._writers[name].close()

    @contextmanager
    def _decorative(self, name: str) -> Iterator[None]:
        """A tracker that fails is said once and left out from there on: metrics.jsonl has everything it showed."""
        try:
            yield
        except Exception as error:
            self._failed.add(name)
            log.warning("going on without %s: %s: %s", name, type(error).__name__, error)

    def step(self, step: int) -> None:
        """Move the bar."""
        if self._bar:
            self._bar.update(self._bar.task_ids[0], completed=step, phase="")
            self._write_line()

    def _write_line(self, *, at_once: bool = False) -> None:
        """In a notebook, the bar in words over the last one, twice a second."""
        if self._bar is None or not self._in_notebook or (not at_once and time.monotonic() < self._written + 0.5):
            return
        self._written = time.monotonic()
        task = self._bar.tasks[0]
        words = (task.description, _Where(self._per_epoch).render(task), _Times().render(task), task.fields["note"])
        print("\r" + "  ".join(map(str, words)).ljust(120), end="", file=sys.stderr, flush=True)

    def phase(self, what: str) -> None:
        """Say what is done beside training, "" for training itself."""
        if self._bar:
            self._bar.update(self._bar.task_ids[0], phase=what)
            self._write_line(at_once=bool(what))

    def show(self, split: str, step: int, values: dict[str, float]) -> None:
        """Show a line of metrics."""
        if not self._run.main:
            return
        note = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
        if self._bar and split == "train":
            short = f"loss {values['loss']:.4g}  {values['images_per_second']:.0f} images/s"
            self._bar.update(self._bar.task_ids[0], note=f"{short}  data wait {values['data_wait']:.0%}")
        elif self._bar:
            print("\n" * self._in_notebook, end="", file=sys.stderr)
            self._bar.console.print(f"step {step}/{self._total} {split}: {note}", highlight=False)
        else:
            log.info("step %d/%d %s: %s", step, self._total, split, note)
        for name in self._writers.keys() - self._failed:
            with self._decorative(name):
                self._writers[name].write(split, step, values)


class _Where(ProgressColumn):
    """Step and epoch, each of how many."""

    def __init__(self, steps_per_epoch: float) -> None:
        super().__init__()
        self._per_epoch = steps_per_epoch

    def render(self, task: BarTask) -> Text:
        total = int(task.total or 0)
        text = f"step {int(task.completed)}/{total}"
        if self._per_epoch:
            text += f", epoch {task.completed / self._per_epoch:.1f}/{total / self._per_epoch:g}"
        return Text(text)


class _Times(ProgressColumn):
    """Time since the start of this process's part, and how long the rest will take; before its first step, what it
    waits for."""

    def render(self, task: BarTask) -> Text:
        elapsed = timedelta(seconds=int(task.elapsed or 0))
        phase = task.fields["phase"]
        if task.completed <= task.fields["first"]:
            return Text(f"{phase or _FIRST}, {elapsed} elapsed")
        left = "" if task.time_remaining is None else f", {timedelta(seconds=int(task.time_remaining))} left"
        return Text(f"{elapsed} elapsed{left}" + (f", {phase}" if phase else ""))


class _TensorBoard:
    def __init__(self, run: Run, first_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # purge_step hides what an interrupted attempt wrote beyond the step we continue from.
        self._writer = SummaryWriter(str(run.dir / "tensorboard"), purge_step=first_step)

    def write(self, split: str, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(f"{split}/{name}", value, step)

    def close(self) -> None:
        self._writer.close()


class _WandB:
    def __init__(self, run: Run, first_step: int) -> None:
        wandb = importlib.import_module("wandb")
        self._run = wandb.init(
            project=f"mim-{run.package}",
            name=run.dir.name,
            id=hashlib.sha256(str(run.dir.absolute()).encode()).hexdigest()[:16],  # a resumed run goes on in its curve
            dir=run.dir,
            config=run.config,
            resume="allow",
        )

    def write(self, split: str, step: int, values: dict[str, float]) -> None:
        self._run.log({f"{split}/{name}": value for name, value in values.items()}, step=step)

    def close(self) -> None:
        self._run.finish()


_TRACKERS = {"tensorboard": _TensorBoard, "wandb": _WandB}
