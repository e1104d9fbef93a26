"""`python -m benchmarks run | demo-data | throughput | gpu-check | prepare | study`."""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro

from benchmarks.prepare.command import Prepare, prepare
from benchmarks.speed.gpu.check import GpuCheck, run_check
from benchmarks.speed.options import Throughput
from engine.cli import guard

with guard():  # MIM_METHODS may name what is no method
    from benchmarks.axes import Axes
    from benchmarks.study.command import StudyOptions, study


@dataclasses.dataclass(frozen=True, kw_only=True)
class Benchmark(Axes):
    """Pre-train and fine-tune a model with every method beside training from scratch; print the table.

    Finished runs are skipped and interrupted ones continued, so the same command can be given again at any time.
    """

    model: str
    """A published name (r50, convnext_t, vit_b, ...) or any timm model."""
    probes: tuple[Literal["knn", "logistic"], ...] | None = None
    """What is measured of the frozen encoders beside the fine-tuning of classifiers, on the same labels, in a table of
    its own; by default both for own and where several shares are given, else nothing."""
    runs_dir: Path = Path("runs")
    """Folder of run folders; the table is written into it too."""
    finetune: str | None = None
    """Classification recipe instead of the model family's own."""
    parallel: int | None = None
    """Runs at once. By default one on GPUs, and on a CPU up to four, each with its share of the cores: small networks
    gain more from a core of their own than from several shared ones."""
    dry_run: bool = False
    """Print what would run, and stop."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DemoData:
    """Write generated scenes as an ImageNet-style folder, COCO and ADE20K; the same scenes in each."""

    directory: tyro.conf.Positional[Path]
    """New, empty, or holding exactly these scenes already."""
    num_train: int = 800
    """Training scenes."""
    num_val: int = 200
    """Validation scenes."""
    seed: int = 0
    """Of the scenes."""


def main(argv: Sequence[str] | None = None) -> int:
    """Parse and run; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    with guard(debug):
        commands = (
            Annotated[Benchmark, tyro.conf.subcommand("run")]
            | Annotated[DemoData, tyro.conf.subcommand("demo-data")]
            | Annotated[Throughput, tyro.conf.subcommand("throughput")]
            | Annotated[GpuCheck, tyro.conf.subcommand("gpu-check")]
            | Annotated[Prepare, tyro.conf.subcommand("prepare")]
            | Annotated[StudyOptions, tyro.conf.subcommand("study")]
        )
        config = (tyro.conf.OmitSubcommandPrefixes, tyro.conf.FlagCreatePairsOff)
        options = tyro.cli(commands, args=arguments, prog="python -m benchmarks", config=config)
        return _run(options)


def _run(options: Benchmark | DemoData | Throughput | GpuCheck | Prepare | StudyOptions) -> int:
    """Do what was asked; each imports here what takes seconds to import, or needs packages that others do not."""
    if isinstance(options, GpuCheck):
        return run_check(options)
    if isinstance(options, Prepare):
        prepare(options)
        return 0
    if isinstance(options, StudyOptions):
        return study(options)
    if isinstance(options, Benchmark):
        from benchmarks.run import benchmark

        return benchmark(options)
    if isinstance(options, Throughput):
        from benchmarks.speed.throughput import run_throughput

        run_throughput(options)
        return 0
    from benchmarks.scenes.demo_data import write_demo_data

    write_demo_data(options.directory, num_train=options.num_train, num_val=options.num_val, seed=options.seed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
