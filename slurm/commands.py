"""`run PACKAGE ...`, and the options that it shares with `launch`. Imports the one task package that it is told."""

import dataclasses
import importlib
import importlib.util
import inspect
from typing import Annotated, Any

import tyro

from engine.cli import Command, parse
from engine.errors import ConfigError
from engine.run.open import prepare
from slurm.arrays import JobRun
from slurm.launch import Target, announce, check_batches, choose, look, one_at_a_time, require_slurm, start
from slurm.local import line_up
from slurm.resources import Resources

FLAGS = (tyro.conf.FlagCreatePairsOff, tyro.conf.OmitArgPrefixes)


@dataclasses.dataclass(frozen=True, kw_only=True)
class How:
    """What a start is told beside the runs themselves."""

    dry_run: bool = False
    """Print the jobs, what they wait for and the estimated GPU-hours; write nothing."""
    local: bool = False
    """Run the same jobs on this machine, without Slurm, one after another."""
    retry: bool = False
    """Start failed runs too."""


def run(arguments: list[str]) -> int:
    """`run [OPTIONS] PACKAGE RECIPE --run-dir DIR ...`: start one run, given as after `python -m`.

    Raises:
        ConfigError: as launch; or no task package is named.
    """
    places = [i for i, argument in enumerate(arguments) if _is_task_package(argument)]
    if not places and "--help" not in arguments and "-h" not in arguments:
        raise ConfigError(
            "run needs a task package and what follows it: "
            "python -m slurm run --gpus-per-node 8 pretrain demo --run-dir runs/demo --data.root DIR"
        )
    mine, theirs = arguments[: places[0]] if places else arguments, arguments[places[0] :] if places else []
    options = parse_options({"resources": Resources(), "how": How()}, mine, "python -m slurm run", run)
    resources, how = options.resources, options.how
    package = theirs[0]
    command = parse(package, importlib.import_module(f"{package}.recipes").RECIPES, theirs[1:])
    folder, runs_dir = command.run_dir, command.run_dir.parent
    check_batches({folder.name: command.config}, resources, local=how.local)
    one = JobRun(folder, package, num_workers=command.config.data.num_workers)
    if how.dry_run:
        return _describe(one, command, resources, how)
    require_slurm(how.local)
    with one_at_a_time(runs_dir):
        prepare(folder, command.config, package=package, recipe=command.recipe)
        states = look([one])
        choice = choose([one], states, wanted_states(how))
        announce(choice, folder.name, runs_dir)
        if not how.local:
            return start(choice.start, states, resources, Target(runs_dir, folder.name))
        line_up(choice.start)
    return start(choice.start, states, resources, Target(runs_dir, folder.name, local=True))


def _describe(one: JobRun, command: Command, resources: Resources, how: How) -> int:
    """Print the job and its cost; writes nothing."""
    choice = choose([one], look([one]), wanted_states(how))
    print(f"{one.folder}: {command.recipe} as one job of {resources.num_tasks} processes, starts at once")
    print(choice.describe())
    if choice.start and hasattr(command.config, "model"):
        from benchmarks.plan import Stage  # imports every task package
        from slurm.estimate import estimate

        print(estimate([Stage(one.name, one.package, command.recipe, command.config)], resources.num_tasks))
    return 0


def wanted_states(how: How) -> set[str]:
    """From which states runs are started."""
    return {"new", "cancelled", "stopped"} | ({"failed"} if how.retry else set())


def parse_options(defaults: dict[str, Any], arguments: list[str], prog: str, documented: Any) -> Any:
    """The command line as an object with one attribute for each group of options; the flags are one flat list.

    Args:
        defaults: attribute -> dataclass instance, the group's default.
        arguments: the flags.
        prog: the command, for the help text.
        documented: whose docstring the help text shows.
    """
    fields = [(name, Annotated[type(group), tyro.conf.arg(name="")], group) for name, group in defaults.items()]
    cls = dataclasses.make_dataclass("Options", fields, frozen=True)
    cls.__doc__ = inspect.getdoc(documented)
    return tyro.cli(cls, args=arguments, prog=prog, config=FLAGS)


def _is_task_package(name: str) -> bool:
    if not name.replace(".", "").replace("_", "").isalnum():
        return False
    try:
        return all(importlib.util.find_spec(f"{name}.{module}") for module in ("train", "recipes"))
    except (ImportError, ValueError):
        return False
