"""`python -m benchmarks run`: the graph of a model's runs, from the data to the table."""

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from benchmarks import cost, estimate
from benchmarks.axes import request_of
from benchmarks.meaning import meaning
from benchmarks.pipeline import Outcome, failure, run_stages
from benchmarks.plan import DEMO_DATA, PRETRAINING, Request, Stage, images_of, make_stages
from benchmarks.probes import report as report_probes
from benchmarks.scenes.demo_data import write_demo_data
from engine.cores import allowed_cores
from engine.data.images import index_images, require_batch
from engine.data.split import image_root
from results.runs.collect import collect
from results.tables.rows import benchmark_table, print_headlines, print_table, write_table
from suite_tasks import find

if TYPE_CHECKING:
    from benchmarks.__main__ import Benchmark

log = logging.getLogger("mim")


def benchmark(options: "Benchmark") -> int:
    """Run the graph and print its table; returns the exit code."""
    num_devices = max(torch.cuda.device_count(), 1)
    request = request_of(
        options, options.model, runs_dir=options.runs_dir, finetune=options.finetune, num_devices=num_devices
    )
    with _said_once():
        stages = make_stages(request)
    parallel = options.parallel or (1 if torch.cuda.is_available() else min(allowed_cores(), 4))
    if options.profile != "demo":
        print(_what_comes(stages, request), flush=True)
    if options.profile in ("own", "small") and (told := estimate.tell(stages, options.runs_dir, parallel)):
        print(told, flush=True)
    if options.dry_run:
        print("\n".join(f"{stage.name}  needs {', '.join(stage.needs) or 'nothing'}" for stage in stages))
        return 0
    if options.profile in ("paper", "small"):  # before hours are spent on the stages that come first
        images = index_images(image_root(images_of(request)), labelled=False, unreadable="skip")
        require_batch(images, max(s.config.batch_size for s in stages if find(s.package).data == PRETRAINING.data))
    if options.profile == "demo" and options.imagenet is None:
        write_demo_data(options.data or DEMO_DATA)
    outcome = run_stages(stages, options.runs_dir, num_devices=request.num_devices, parallel=parallel)
    name = f"{options.profile}-{options.model}"
    usual = ("knn", "logistic") if options.profile == "own" or len(request.labels) > 1 else ()
    probes = usual if options.probes is None else options.probes
    if probes and outcome.exit_code == 0:
        report_probes(stages, options.runs_dir, name, probes)
    return report(stages, outcome, options.runs_dir, name, options.profile)


@contextmanager
def _said_once() -> Iterator[None]:
    """Say what several runs say alike only once."""
    said: set[str] = set()

    def is_new(record: logging.LogRecord) -> bool:
        text = record.getMessage()
        return text not in said and not said.add(text)  # type: ignore[func-returns-value]

    log.addFilter(is_new)
    try:
        yield
    finally:
        log.removeFilter(is_new)


def _what_comes(stages: Sequence[Stage], request: Request) -> str:
    """The runs, how long they are, and what they cost."""
    if request.profile == "own":
        return estimate.outline(stages, request.runs_dir)
    images = index_images(image_root(images_of(request)), labelled=False, unreadable="skip")
    head = f"{len(stages)} runs under {request.runs_dir}:"
    return "\n".join([head, cost.describe(list(stages), request.num_devices, len(images))])


def report(stages: Sequence[Stage], outcome: Outcome, runs_dir: Path, name: str, profile: str) -> int:
    """Say how a graph of runs ended, print its table and write it to `runs_dir`/`name`, and say what it means.

    Returns:
        The exit code.
    """
    for stage in stages:
        if outcome.states[stage.name] in ("failed", "blocked"):
            reason = failure(stage, runs_dir) if outcome.states[stage.name] == "failed" else "its start failed"
            print(f"{stage.name} {outcome.states[stage.name]}: {reason}", file=sys.stderr)
    if outcome.exit_code == 75:
        print("stopped; give the same command again to continue", file=sys.stderr)
        return outcome.exit_code
    rows, rejected = collect([stage.folder(runs_dir) for stage in stages])
    table = benchmark_table(rows)
    print_table(table, rejected)
    paths = write_table(table, runs_dir / name, rejected)
    print("written: " + ", ".join(str(path) for path in paths))
    print_headlines(table)
    print(meaning(table, profile))
    return outcome.exit_code
