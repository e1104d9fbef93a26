"""The two commands that start runs: `launch SWEEP` and `run PACKAGE ...`. They import the task packages."""

import dataclasses
import difflib
import importlib
import importlib.util
import inspect
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from benchmarks import cost
from benchmarks.plan import Stage, lay_out
from engine.cli import parse
from engine.errors import ConfigError
from engine.run import prepare
from slurm import scheduler
from slurm.arrays import Run, plan
from slurm.launch import (
    Target,
    check_batches,
    choose,
    list_in_sweep,
    look,
    one_at_a_time,
    queued_jobs,
    require_slurm,
    start,
)
from slurm.resources import Resources
from slurm.sweeps import SWEEPS, Sweep, expand, write_data

FLAGS = (tyro.conf.FlagCreatePairsOff, tyro.conf.OmitArgPrefixes)

DEMO_IMAGES = 800


@dataclasses.dataclass(frozen=True, kw_only=True)
class How:
    """What a start is told beside the runs themselves."""

    runs_dir: Path = Path("runs")
    """Folder of run folders. All nodes must see it."""
    dry_run: bool = False
    """Print the jobs, what they wait for and the estimated GPU-hours; write nothing."""
    local: bool = False
    """Run the same jobs on this machine, without Slurm, one after another."""
    retry: bool = False
    """Start failed runs too."""


def launch(arguments: list[str]) -> int:
    """`launch SWEEP [OPTIONS]`: start every run of a sweep that is neither finished nor running.

    Raises:
        ConfigError: the sweep does not exist, an option is wrong, a run folder holds another configuration, or there is
            no Slurm.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_list_sweeps())
        return 0 if arguments else 2
    name, rest = arguments[0], arguments[1:]
    if name not in SWEEPS:
        near = difflib.get_close_matches(name, SWEEPS, n=3, cutoff=0.3) or list(SWEEPS)
        raise ConfigError(f"no sweep {name!r}; nearest: {', '.join(near)} (python -m slurm launch lists all)")
    sweep, resources, how = _parse(SWEEPS[name](), rest, f"python -m slurm launch {name}", SWEEPS[name])
    if not how.dry_run:
        require_slurm(how.local)
    stages = expand(sweep, how.runs_dir, num_tasks=resources.num_tasks)
    check_batches({stage.name: stage.config for stage in stages}, resources, local=how.local)
    if how.dry_run:
        return _describe(stages, resources, how)
    write_data(sweep)
    with one_at_a_time(how.runs_dir):
        lay_out(stages, how.runs_dir)
        runs = _runs(stages, how)
        list_in_sweep(runs, name)
        states = look(runs)
        choice = choose(runs, states, _wanted(how))
        print(f"{name}: {choice.describe()}", flush=True)
        if choice.failed:
            print(f"start failed ones with --retry, or: python -m slurm retry {name} --runs-dir {how.runs_dir}")
        if not how.local:
            return start(choice.start, states, resources, Target(how.runs_dir, name))
    return start(choice.start, states, resources, Target(how.runs_dir, name, local=True))


def run(arguments: list[str]) -> int:
    """`run [OPTIONS] PACKAGE RECIPE --run-dir DIR ...`: start one run, given as after `python -m`.

    Raises:
        ConfigError: as launch; or no task package is named.
    """
    places = [i for i, argument in enumerate(arguments) if _is_task_package(argument)]
    if not places and "--help" not in arguments and "-h" not in arguments:
        raise ConfigError(
            "run needs a task package and what follows it: "
            "python -m slurm run --gpus-per-node 8 pretrain a2mim-r50-300e --run-dir runs/a2mim --data.root DIR"
        )
    mine, theirs = arguments[: places[0]] if places else arguments, arguments[places[0] :] if places else []
    _, resources, how = _parse(None, mine, "python -m slurm run", run)
    package = theirs[0]
    command = parse(package, importlib.import_module(f"{package}.recipes").RECIPES, theirs[1:])
    folder, runs_dir = command.run_dir, command.run_dir.parent
    check_batches({folder.name: command.config}, resources, local=how.local)
    one = Run(folder, package, num_workers=command.config.data.num_workers)
    if how.dry_run:
        print(f"{folder}: {command.recipe} as one job of {resources.num_tasks} processes, at once")
        return 0
    require_slurm(how.local)
    with one_at_a_time(runs_dir):
        prepare(folder, command.config, package=package, recipe=command.recipe)
        states = look([one])
        choice = choose([one], states, _wanted(how))
        print(f"{folder.name}: {choice.describe()}", flush=True)
        if not how.local:
            return start(choice.start, states, resources, Target(runs_dir, folder.name))
    return start(choice.start, states, resources, Target(runs_dir, folder.name, local=True))


def _wanted(how: How) -> set[str]:
    return {"new", "cancelled", "stopped"} | ({"failed"} if how.retry else set())


def _runs(stages: Sequence[Stage], how: How) -> list[Run]:
    return [
        Run(stage.folder(how.runs_dir), stage.package, needs=stage.needs, num_workers=stage.config.data.num_workers)
        for stage in stages
    ]


def _parse(sweep: Sweep | None, arguments: list[str], prog: str, documented: Any) -> tuple[Any, Resources, How]:
    """The command line as (sweep or None, resources, how): one flat list of flags."""
    fields: list[Any] = [
        ("resources", Annotated[Resources, tyro.conf.arg(name="")], Resources()),
        ("how", Annotated[How, tyro.conf.arg(name="")], How()),
    ]
    if sweep is not None:
        fields.insert(0, ("sweep", Annotated[Sweep, tyro.conf.arg(name="")], sweep))
    cls = dataclasses.make_dataclass("Options", fields, frozen=True)
    cls.__doc__ = inspect.getdoc(documented)
    options: Any = tyro.cli(cls, args=arguments, prog=prog, config=FLAGS)
    return getattr(options, "sweep", None), options.resources, options.how


def _is_task_package(name: str) -> bool:
    if not name.replace(".", "").replace("_", "").isalnum():
        return False
    try:
        return all(importlib.util.find_spec(f"{name}.{module}") for module in ("train", "recipes"))
    except (ImportError, ValueError):
        return False


def _list_sweeps() -> str:
    lines = [
        "usage: python -m slurm launch SWEEP [OPTIONS]",
        "       python -m slurm launch SWEEP --help    every option, with its default",
        "",
        "sweeps:",
    ]
    for name, recipe in SWEEPS.items():
        lines += [f"  {name}", textwrap.indent(inspect.getdoc(recipe) or "", "      "), ""]
    return "\n".join(lines)


def _describe(stages: Sequence[Stage], resources: Resources, how: How) -> int:
    """Print the arrays of a launch, what each waits for, and its cost; writes nothing."""
    runs = _runs(stages, how)
    states = look(runs)
    choice = choose(runs, states, _wanted(how))
    queued = queued_jobs(states)
    arrays = plan(choice.start, queued=queued, limit=_array_limit(how))
    for k, array in enumerate(arrays):
        waits = "starts at once"
        if array.follows is not None:
            waits = f"each after its run of job {array.follows}"
        elif array.parents or array.jobs:
            parents = [arrays[parent.array].runs[parent.place].name for parent in array.parents]
            waits = f"after {', '.join([*parents, *(f'Slurm job {job}' for job in array.jobs)])}"
        print(f"job {k}: {array.package}, {len(array.runs)} runs, {waits}")
        for each in array.runs:
            print(f"    {each.name}" + f"  after {', '.join(each.needs)}" * bool(each.needs))
    print(choice.describe())
    print(f"each on {resources.nodes} nodes x {resources.gpus_per_node} GPUs, {resources.time:g} hours at a time")
    names = {run.name for run in choice.start}
    wanted = [stage for stage in stages if stage.name in names]
    if wanted:
        print(cost.describe(wanted, resources.num_tasks, _num_images(wanted)))
    return 0


def _array_limit(how: How) -> int:
    if how.local or not scheduler.available():
        return scheduler.DEFAULT_MAX_ARRAY_SIZE
    return scheduler.max_array_size()


def _num_images(stages: Sequence[Stage]) -> int:
    """Of the demo's scenes if they are written, else of ImageNet: counting a million files takes minutes."""
    first = next((stage for stage in stages if stage.package in ("pretrain", "classification")), None)
    if first is None or first.recipe != "demo":
        return cost.IMAGENET_IMAGES
    return sum(1 for _ in Path(first.config.data.root, "train").glob("*/*")) or DEMO_IMAGES
