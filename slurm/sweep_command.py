"""`launch SWEEP`, which imports every task package."""

import dataclasses
import difflib
import inspect
import textwrap
from collections.abc import Sequence
from pathlib import Path

from benchmarks.plan import Stage, lay_out
from engine.errors import ConfigError
from slurm import scheduler
from slurm.arrays import JobRun, plan
from slurm.commands import How, parse_options, wanted_states
from slurm.estimate import estimate
from slurm.launch import (
    Target,
    announce,
    check_batches,
    choose,
    list_in_sweep,
    look,
    one_at_a_time,
    queued_jobs,
    require_slurm,
    start,
)
from slurm.local import line_up
from slurm.resources import Resources
from slurm.sweeps import SWEEPS, expand, write_data


@dataclasses.dataclass(frozen=True, kw_only=True)
class LaunchHow(How):
    """What a launch is told beside the runs themselves."""

    runs_dir: Path = Path("runs")
    """Folder of run folders. All nodes must see it."""


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
    defaults = {"sweep": SWEEPS[name](), "resources": Resources(), "how": LaunchHow()}
    options = parse_options(defaults, rest, f"python -m slurm launch {name}", SWEEPS[name])
    sweep, resources, how = options.sweep, options.resources, options.how
    stages = expand(sweep, how.runs_dir, num_tasks=resources.num_tasks)
    check_batches({stage.name: stage.config for stage in stages}, resources, local=how.local)
    if how.dry_run:
        return _describe(stages, resources, how)
    require_slurm(how.local)
    write_data(sweep)
    with one_at_a_time(how.runs_dir):
        lay_out(stages, how.runs_dir)
        runs = _runs(stages, how)
        list_in_sweep(runs, name)
        states = look(runs)
        choice = choose(runs, states, wanted_states(how), local=how.local)
        announce(choice, name, how.runs_dir)
        if not how.local:
            return start(choice.start, states, resources, Target(how.runs_dir, name))
        line_up(choice.start)
    return start(choice.start, states, resources, Target(how.runs_dir, name, local=True))


def _runs(stages: Sequence[Stage], how: LaunchHow) -> list[JobRun]:
    return [
        JobRun(stage.folder(how.runs_dir), stage.package, needs=stage.needs, num_workers=stage.config.data.num_workers)
        for stage in stages
    ]


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


def _describe(stages: Sequence[Stage], resources: Resources, how: LaunchHow) -> int:
    """Print the arrays of a launch, what each waits for, and its cost; writes nothing."""
    runs = _runs(stages, how)
    states = look(runs)
    choice = choose(runs, states, wanted_states(how), local=how.local)
    queued = queued_jobs(states)
    arrays = plan(choice.start, queued=queued, limit=_array_limit())
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
    print(estimate([stage for stage in stages if stage.name in names], resources.num_tasks))
    return 0


def _array_limit() -> int:
    try:
        return scheduler.max_array_size()
    except ConfigError:  # no Slurm here, or one that does not answer: the plan is as good with its default
        return scheduler.DEFAULT_MAX_ARRAY_SIZE
