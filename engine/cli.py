"""`python -m <package> RECIPE ...`: from recipes, typed functions returning a frozen dataclass, to a command."""

import contextlib
import dataclasses
import difflib
import importlib
import inspect
import io
import json
import logging
import os
import re
import sys
import textwrap
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import tyro

from engine import config
from engine.after import launched, python_module, resume_command
from engine.errors import ConfigError, StopRequested
from engine.shorten import fit_into_length
from engine.training.stop import StopFlag, stop_with_launcher

Recipe = Callable[..., Any]
_KEEP = "What a finished run keeps of its last checkpoint: its weights, or all, with which it can be made longer."


def main(
    package: str,
    recipes: Mapping[str, Recipe],
    train: Callable[..., Any] | None = None,
    argv: Sequence[str] | None = None,
) -> NoReturn:
    """Run one recipe of a task package and leave with the exit code of what happened (docs/run-folder.md lists them).

    Args:
        package: its name, as in `python -m <package>`.
        recipes: name -> function; the function's parameters become flags, and so does every field of what it returns.
        train: (config, run_dir, *, recipe, resume, accept_divergence) -> metrics, and keep_all where the user asks for
            it; by default that of <package>.train, which is imported, with all that takes seconds to import, once the
            command line is a good one.
        argv: command line without the program's name.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    with guard(debug):
        given = [a for a in arguments if a != "--debug"]
        command = parse(package, recipes, given)
        with StopFlag(at_once=True, go_on=lambda: _command_to_go_on(package, command.run_dir, given)) as stop:
            stop_with_launcher()
            try:
                if sys.stderr.isatty():
                    print(f"starting {package} {command.recipe} in {command.run_dir}", file=sys.stderr, flush=True)
                run = train or importlib.import_module(f"{package}.train").train
                metrics = run(
                    command.config,
                    command.run_dir,
                    recipe=command.recipe,
                    resume=command.resume,
                    accept_divergence=command.accept_divergence,
                    **({"keep_all": True} if command.keep_all else {}),
                )
            except Exception as error:
                if stop.asked and not hasattr(error, "exit_code"):  # what was interrupted made another error of it
                    raise stop.requested() from error
                raise
            if metrics:
                print(json.dumps(metrics), flush=True)
            stop.ignore()
    sys.exit(0)


def _command_to_go_on(package: str, run_dir: Path, given: Sequence[str]) -> str:
    """After a stop outside the loop: of a folder that the run has not claimed yet the command as it was given."""
    if (run_dir / "config.json").is_file():
        return resume_command(package, run_dir)
    return launched(python_module(package, *given))


@contextlib.contextmanager
def guard(debug: bool = False) -> Any:
    """Turn the suite's errors into one `error: ...` line and an exit code; other errors keep their traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that cannot show a character shows its number
            stream.reconfigure(errors="backslashreplace")
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        yield
    except BrokenPipeError:  # the reader of a pipe, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:
        shown = _explained(error)
        code = getattr(shown, "exit_code", None)
        if code is None or debug:
            traceback.print_exc()
        if not isinstance(shown, StopRequested):
            print(f"error: {shown}", file=sys.stderr)
        elif os.environ.get("RANK", "0") == "0":  # all ranks stop alike: it is said once
            print(shown, file=sys.stderr)
        sys.exit(1 if code is None else code)
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        sys.exit(130)


def _explained(error: Exception) -> BaseException:
    if hasattr(error, "exit_code"):
        return error
    from engine.explain import explain  # imports torch, for seconds

    return explain(error)


@dataclasses.dataclass(frozen=True)
class Command:
    """A parsed command line."""

    recipe: str
    config: Any
    run_dir: Path
    resume: bool
    accept_divergence: bool
    keep_all: bool = False


def parse(package: str, recipes: Mapping[str, Recipe], arguments: list[str]) -> Command:
    """Parse a command line; prints help or an error and exits (0 or 2) where the user asked for or earned it.

    Raises:
        ConfigError: the recipe does not exist.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        print(describe(package, recipes))
        sys.exit(0 if arguments else 2)
    name, rest = arguments[0], arguments[1:]
    default, label, rest = _default_config(package, recipes, name, rest)
    refuse_unknown_flags(default, rest)
    _refuse_two_sides(rest)
    cls = dataclasses.make_dataclass(
        "Options",
        [
            ("run_dir", Annotated[Path, tyro.conf.arg(help="Folder of this run, new or empty unless --resume.")]),
            ("config", Annotated[type(default), tyro.conf.arg(name="")], dataclasses.field(default=default)),
            ("resume", Annotated[bool, tyro.conf.arg(help="Continue what the run folder holds.")], False),
            ("accept_divergence", Annotated[bool, tyro.conf.arg(help="Continue a run that diverged.")], False),
            ("keep", Annotated[Literal["weights", "all"], tyro.conf.arg(help=_KEEP)], "weights"),
        ],
        frozen=True,
    )
    flags = (tyro.conf.FlagConversionOff, tyro.conf.OmitSubcommandPrefixes)
    cls.__doc__ = inspect.getdoc(recipes[name]) if name in recipes else f"The configuration in {name}."
    options: Any = tyro.cli(cls, args=with_values(default, rest), prog=f"python -m {package} {name}", config=flags)
    fitted = fit_into_length(default, options.config)
    return Command(label, fitted, options.run_dir, options.resume, options.accept_divergence, options.keep == "all")


def _refuse_two_sides(arguments: list[str]) -> None:
    """Say of a size with two sides that images are square, in every task; tyro would call the second one unknown."""
    given = re.search(r"--image[-_]size[ =](\d+(?:[ ,x]\d+)+)( |$)", " ".join(arguments))
    if given:
        raise ConfigError(f"--image-size {given[1]}: crops are square; give one side in pixels")


def refuse_unknown_flags(
    default: Any, arguments: list[str], beside: Sequence[str] = ("run-dir", "resume", "accept-divergence", "keep")
) -> None:
    """Name the flags nearest to an unknown one, by its whole name and by its last part; tyro names near misses only.

    Args:
        default: the configuration whose fields are flags.
        arguments: the command line.
        beside: flags that are no fields.

    Raises:
        ConfigError: a flag is neither.
    """
    fields = [name.replace("_", "-") for name in config.flatten(dataclasses.asdict(default))]
    valid = [*beside, "help", *fields]
    by_last_part = {name.rpartition(".")[2]: name for name in reversed(valid)}
    for argument in arguments:
        flag = argument.partition("=")[0].replace("_", "-")
        if not flag.startswith("--") or flag[2:] in valid:
            continue
        name = re.sub(r"(^|\.)lrr?$", r"\1learning-rate", flag[2:])  # what everyone calls it
        near = difflib.get_close_matches(name, valid, n=2, cutoff=0.6)
        parts = difflib.get_close_matches(name.rpartition(".")[2], by_last_part, n=2, cutoff=0.5)
        near = near + [by_last_part[part] for part in parts] or difflib.get_close_matches(name, valid, cutoff=0.0)
        nearest = ", ".join(f"--{known}" for known in dict.fromkeys(near))
        raise ConfigError(f"there is no option {flag}; nearest: {nearest} (--help lists all)")


def with_values(default: Any, arguments: list[str]) -> list[str]:
    """The command line as the parser takes it: `--resume` alone means `--resume True`, and so for every field that is
    true or false; `--data.classes cat dog`, where the field is one text, means `cat,dog`; a colour is a number where
    numbers are meant (`--data.ignore-label '#ff0000'`)."""
    fields = config.flatten(dataclasses.asdict(default))
    switches = {"resume", "accept-divergence"}
    switches |= {name.replace("_", "-") for name, value in fields.items() if isinstance(value, bool)}
    out: list[str] = []
    flag = ""
    for i, argument in enumerate(arguments):
        if argument.startswith("--"):
            flag = argument[2:].replace("-", "_")
        elif flag == "data.classes" and isinstance(fields[flag], str) and not out[-1].startswith("--"):
            out[-1] = f"{out[-1].rstrip(',')},{argument}"
            continue
        elif isinstance(fields.get(flag), tuple) and re.fullmatch(r"#[0-9a-fA-F]{6}", argument):
            argument = str(int(argument[1:], 16))
        out.append(argument)
        alone = i + 1 == len(arguments) or arguments[i + 1].startswith("--")
        if alone and argument.startswith("--") and argument[2:].replace("_", "-") in switches:
            out.append("True")
    return out


def _default_config(
    package: str, recipes: Mapping[str, Recipe], name: str, rest: list[str]
) -> tuple[Any, str, list[str]]:
    """The configuration a recipe name or a config.json stands for, before overrides."""
    if name.endswith(".json"):
        stored = config.read_config_file(Path(name))
        if stored.get("package") != package:
            raise ConfigError(f"{name} is a configuration of {stored.get('package')}, not of {package}")
        label = str(stored.get("recipe", "custom"))
        cls = type(recipes.get(label, next(iter(recipes.values())))())  # a run may be of no recipe that is here
        return config.from_dict(cls, stored["config"]), label, rest
    if name not in recipes:
        near = difflib.get_close_matches(name, recipes, n=3, cutoff=0.3) or sorted(recipes)[:3]
        raise ConfigError(f"{package} has no recipe {name!r}; nearest: {', '.join(near)} (--help lists all)")
    keywords, rest = _recipe_parameters(recipes[name], rest)
    return recipes[name](**keywords), name, rest


def _recipe_parameters(recipe: Recipe, arguments: list[str]) -> tuple[dict[str, str], list[str]]:
    """Take the flags that are parameters of the recipe function out of the command line: they choose its defaults."""
    parameters = inspect.signature(recipe).parameters
    names = {f"--{config.setting_of(name).replace('_', '-')}": name for name in parameters}
    keywords: dict[str, str] = {}
    rest: list[str] = []
    i = 0
    while i < len(arguments):
        flag, _, value = arguments[i].partition("=")
        flag = flag.replace("_", "-")
        if flag in names and (value or i + 1 < len(arguments)):
            keywords[names[flag]] = value or arguments[i + 1]
            i += 1 if value else 2
        else:
            rest.append(arguments[i])
            i += 1
    return keywords, rest


def describe(package: str, recipes: Mapping[str, Recipe]) -> str:
    """The list of recipes with their docstrings."""
    lines = [
        f"usage: python -m {package} RECIPE --run-dir DIR --data.root DIR [--resume] [--<field> VALUE ...]",
        f"       python -m {package} RECIPE --help    every field of a recipe, with its default",
        "",
        "recipes:",
    ]
    for name, recipe in recipes.items():
        lines += [f"  {name}", textwrap.indent(inspect.getdoc(recipe) or "", "      "), ""]
    return "\n".join(lines)
