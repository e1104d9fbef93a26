"""`python -m benchmarks.speed.gpu.part NAME FOLDER SECONDS`: one part of the check, in this process."""

import importlib
import json
import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch

from benchmarks.speed.gpu.rows import Record
from engine.distributed import pick_device
from engine.run.environment import cpu_name, environment
from engine.training.state import set_backends

TINY = "test_resnet"  # timm's, for trying the parts on a CPU


@dataclass(frozen=True)
class Part:
    """What a part is given.

    Args:
        record: gets the findings.
        folder: for its files; removed afterwards.
        seconds: until it is killed.
        device: cuda, or cpu for trying it small.
    """

    record: Record
    folder: Path
    seconds: float
    device: torch.device
    started: float = field(default_factory=time.monotonic)

    @property
    def small(self) -> bool:
        """Whether this only shows that the part runs: on a CPU."""
        return self.device.type == "cpu"

    @property
    def models(self) -> tuple[str, ...]:
        """The networks to check, most wanted first."""
        return (TINY,) if self.small else ("r50", "vit_b", "convnext_t")

    @property
    def image_size(self) -> int:
        """Side of the images in pixels."""
        return 64 if self.small else 224

    def left(self) -> float:
        """Seconds until it is killed."""
        return self.seconds - (time.monotonic() - self.started)


def main(name: str, folder: Path, seconds: float) -> None:
    """Run it."""
    device = pick_device()
    set_backends("bfloat16", device)  # as runs have them
    part = Part(Record(name, folder / "rows.jsonl"), folder, seconds, device)
    if name == "numbers":
        _machine(part)
    importlib.import_module(f"benchmarks.speed.gpu.{name}").run(part)


def _machine(part: Part) -> None:
    """Where all this happens, as its first lines."""
    where = environment(part.device)
    part.record.add("device", where["device"])
    part.record.add("processor", f"{os.cpu_count()} x {cpu_name()}")
    part.record.add("python", where["python"])
    part.record.add("versions", json.dumps(where["versions"]))
    if not part.small:
        part.record.add("CUDA, cuDNN", f"{torch.version.cuda}, {torch.backends.cudnn.version()}")  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]))
