"""`python -m benchmarks study NAME`: a study from its pictures to its table, resumable."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from benchmarks.plan import METHODS, Stage
from engine.cores import allowed_cores
from engine.errors import ConfigError

WEIGHTS = ("checkpoints", "classifier.safetensors", "timm")
"""What of a finished run nothing in a study needs; of fine-tuned runs backbone.safetensors neither."""
Name = Literal["digits", "digits-short", "scenes", "clipart", "clipart-long"]


@dataclass(frozen=True, kw_only=True)
class StudyOptions:
    """Repeat a study on real pictures: every network from scratch and after every method that takes it, on shares of
    the labels, over seeds; then the table with paired intervals. Finished runs are skipped, interrupted ones continued.

    digits: scikit-learn's handwritten digits (1,797 pictures of 32 x 32), resnet18, convnext_atto, vit_tiny; 1, 5, 10
    and 100 % of the labels, 5 seeds; hours on two CPU cores, minutes on a GPU. digits-short: resnet18 on the same, by
    the demo recipes, 10 % of the labels and 36 steps; minutes on two cores. scenes: the demo's generated scenes,
    resnet18 by the demo recipes, 10 and 100 %, 5 seeds; half an hour on two cores. clipart: Debian's openclipart-png
    (64 x 64, 13 classes), resnet18 by the demo recipes, 10 and 100 %, 3 seeds; an hour on two cores. clipart-long: the
    same pictures by the recipes for small pictures; for a GPU. docs/studies.md holds what came out.
    """

    name: Annotated[tyro.conf.Positional[Name], tyro.conf.arg(metavar="NAME")]
    """Which study."""
    data: Path | None = None
    """Where the pictures are, or are written; data/NAME by default."""
    source: Path | None = None
    """Clip art: the unpacked pictures, instead of /usr/share/openclipart/png."""
    runs_dir: Path | None = None
    """Folder of run folders; runs/NAME by default."""
    models: tuple[str, ...] | None = None
    """Networks instead of the study's: resnet18, r50, convnext_atto, vit_tiny, or others that fit the size."""
    methods: tuple[str, ...] | None = None
    """scratch and methods, instead of all."""
    labels: tuple[float, ...] | None = None
    """Shares of the labelled images (0.1 1), instead of the study's."""
    seeds: int | None = None
    """Runs of each kind, each after a pre-training of its own, instead of the study's number."""
    pretrain_epochs: int | None = None
    """Another length of pre-training."""
    finetune_epochs: int | None = None
    """Another length of fine-tuning."""
    workers: int | None = None
    """Processes, each carrying out one run after another; by default the cores over `threads`, on a GPU 8."""
    threads: int = 1
    """Cores of each process; small networks gain more from more processes."""
    device: Literal["cpu", "cuda"] | None = None
    """Where to compute; a GPU by default, if there is one."""
    keep_weights: bool = False
    """Keep checkpoints and fine-tuned weights of finished runs: half a gigabyte for each of hundreds."""
    data_only: bool = False
    """Write the pictures, and stop."""
    dry_run: bool = False
    """Print what would run, and stop."""


def study(options: StudyOptions) -> int:
    """Run the command; returns the exit code.

    Raises:
        ConfigError: an option makes no sense, or a run folder holds something else.
        DataError: the pictures are not there.
    """
    from benchmarks.study.catalogue import STUDIES
    from benchmarks.study.plan import Part, make_stages

    chosen, data = STUDIES[options.name], options.data or Path("data") / (STUDIES[options.name].data or options.name)
    runs_dir = options.runs_dir or Path("runs") / options.name
    if options.threads < 1 or (options.workers is not None and options.workers < 1):
        raise ConfigError(f"workers {options.workers}, threads {options.threads}; allowed: 1 or more")
    part = Part(
        models=options.models or chosen.models,
        methods=options.methods or METHODS,
        labels=options.labels or chosen.labels,
        seeds=chosen.seeds if options.seeds is None else options.seeds,
        pretrain_epochs=options.pretrain_epochs,
        finetune_epochs=options.finetune_epochs,
    )
    if not options.data_only:
        stages = make_stages(chosen, part, data, runs_dir)
        if options.dry_run:
            print("\n".join(f"{stage.name}  needs {', '.join(stage.needs) or 'nothing'}" for stage in stages))
            return 0
    if not (data / "train").is_dir() or options.source is not None or options.data_only:
        chosen.write(data, options.source or chosen.source)
    if options.data_only:
        print(f"{data}: {chosen.title}")
        return 0
    print(f"{chosen.title}; {len(stages)} runs under {runs_dir}", flush=True)
    return _run(options, stages, runs_dir)


def _run(options: StudyOptions, stages: list[Stage], runs_dir: Path) -> int:
    import torch

    from benchmarks.pipeline import run_stages
    from benchmarks.workers import Workers

    if options.device is not None:
        os.environ["MIM_DEVICE"] = options.device
    on_gpu = os.environ.get("MIM_DEVICE", "cuda") == "cuda" and torch.cuda.is_available()
    workers = options.workers or (8 if on_gpu else max(allowed_cores() // options.threads, 1))

    def finished(stage: Stage) -> None:
        if not options.keep_weights:
            remove_weights(stage, stage.folder(runs_dir))

    outcome = run_stages(stages, runs_dir, children=Workers(workers, options.threads), finished=finished)
    try:
        from benchmarks.run import report
    except ImportError as error:  # a machine for computing, with what runs need alone
        print(f"no table, for {error.name} is not installed: python -m results labels {runs_dir} where it is")
        return outcome.exit_code
    return report(stages, outcome, runs_dir, options.name, "study")


def remove_weights(stage: Stage, folder: Path) -> None:
    """Delete from a finished run's folder the weights that nothing in a study needs any more."""
    for name in (*WEIGHTS, *(() if stage.package == "pretrain" else ("backbone.safetensors",))):
        path = folder / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
