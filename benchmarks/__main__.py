"""`python -m benchmarks run | demo-data | throughput | gpu-check`."""

import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro

from benchmarks import cost
from benchmarks.pipeline import failure, run_stages
from benchmarks.plan import METHODS, Request, data_sets, make_stages
from benchmarks.scenes.demo_data import write_demo_data
from benchmarks.speed import throughput
from benchmarks.speed.gpu.check import GpuCheck, run_check
from engine.cli import guard
from engine.data.images import index_images, require_batch


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """Pre-train and fine-tune a model with every method beside training from scratch; print the table.

    Finished runs are skipped and interrupted ones continued, so the same command can be given again at any time.
    """

    model: str
    """A published name (r50, convnext_t, vit_b, ...) or any timm model."""
    methods: tuple[str, ...] = METHODS
    """Rows of the table."""
    tasks: tuple[Literal["classification", "detection", "segmentation"], ...] | None = None
    """What the models are fine-tuned for; by default every task that has data (in the demo, all three)."""
    profile: Literal["demo", "paper"] = "demo"
    """demo: generated scenes, minutes on two CPU cores. paper: the published recipes on ImageNet."""
    seeds: int = 1
    """Fine-tuning runs per method."""
    pretrain_seeds: int = 1
    """Pre-training runs per method; fine-tuning seed i starts from number i modulo this."""
    runs_dir: Path = Path("runs")
    """Folder of run folders; the table is written into it too."""
    data: Path = Path("data/demo")
    """Where the demo's generated scenes are, or are written."""
    imagenet: Path | None = None
    """ImageNet, or any image folder with train/ and val/ class folders."""
    coco: Path | None = None
    """COCO 2017, to fine-tune for detection too."""
    ade20k: Path | None = None
    """ADEChallengeData2016, to fine-tune for segmentation too."""
    finetune: str | None = None
    """Classification recipe instead of the model family's own."""
    framework: Literal["detectron2", "torchvision"] | None = None
    """Detection framework instead of the recipes' (paper: detectron2, demo: torchvision)."""
    num_workers: int | None = None
    """Loader processes per device, instead of the recipes'."""
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


def benchmark(options: Run) -> int:
    """Run the graph and print its table; returns the exit code."""
    # Only here: tables need SciPy and more, which a machine that is to measure steps need not have.
    from results.runs.collect import collect
    from results.tables.rows import benchmark_table, print_table, write_table

    num_devices = max(torch.cuda.device_count(), 1)
    data = data_sets(options.profile, options.data, imagenet=options.imagenet, coco=options.coco, ade20k=options.ade20k)
    request = Request(
        model=options.model,
        methods=options.methods,
        profile=options.profile,
        seeds=options.seeds,
        pretrain_seeds=options.pretrain_seeds,
        runs_dir=options.runs_dir,
        data=data,
        tasks=options.tasks,
        finetune=options.finetune,
        framework=options.framework,
        num_devices=num_devices if options.profile == "paper" else 1,
        num_workers=options.num_workers,
    )
    stages = make_stages(request)
    if options.profile == "paper":
        print(f"{len(stages)} runs under {options.runs_dir}:")
        images = index_images(data["classification"] / "train", labelled=False)
        print(cost.describe(stages, request.num_devices, len(images)), flush=True)
    if options.dry_run:
        print("\n".join(f"{stage.name}  needs {', '.join(stage.needs) or 'nothing'}" for stage in stages))
        return 0
    if options.profile == "paper":  # before hours are spent on the stages that come first
        require_batch(images, max(s.config.batch_size for s in stages if s.package in ("pretrain", "classification")))
    if options.imagenet is None:
        write_demo_data(options.data)
    parallel = options.parallel or (1 if torch.cuda.is_available() else min(os.cpu_count() or 1, 4))
    outcome = run_stages(stages, options.runs_dir, num_devices=request.num_devices, parallel=parallel)
    for stage in stages:
        if outcome.states[stage.name] in ("failed", "blocked"):
            reason = failure(stage, options.runs_dir) if outcome.states[stage.name] == "failed" else "its start failed"
            print(f"{stage.name} {outcome.states[stage.name]}: {reason}", file=sys.stderr)
    if outcome.exit_code == 75:
        print("stopped; give the same command again to continue", file=sys.stderr)
        return outcome.exit_code
    rows, rejected = collect([stage.folder(options.runs_dir) for stage in stages])
    table = benchmark_table(rows)
    print_table(table, rejected)
    paths = write_table(table, options.runs_dir / f"{options.profile}-{options.model}", rejected)
    print("written: " + ", ".join(str(path) for path in paths))
    return outcome.exit_code


def main(argv: Sequence[str] | None = None) -> int:
    """Parse and run; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    with guard(debug):
        commands = (
            Annotated[Run, tyro.conf.subcommand("run")]
            | Annotated[DemoData, tyro.conf.subcommand("demo-data")]
            | Annotated[throughput.Throughput, tyro.conf.subcommand("throughput")]
            | Annotated[GpuCheck, tyro.conf.subcommand("gpu-check")]
        )
        config = (tyro.conf.OmitSubcommandPrefixes, tyro.conf.FlagCreatePairsOff)
        options = tyro.cli(commands, args=arguments, prog="python -m benchmarks", config=config)
        if isinstance(options, Run):
            return benchmark(options)
        if isinstance(options, GpuCheck):
            return run_check(options)
        if isinstance(options, throughput.Throughput):
            throughput.run_throughput(options)
            return 0
        write_demo_data(options.directory, num_train=options.num_train, num_val=options.num_val, seed=options.seed)
        return 0


if __name__ == "__main__":
    sys.exit(main())
