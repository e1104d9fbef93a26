"""The command line of `python -m evaluation`. Imports no torch."""

import dataclasses
import difflib
import inspect
import sys
import textwrap
from pathlib import Path
from typing import Annotated, Any

import tyro

from engine import cli
from engine.config import from_dict, read_config_file
from engine.errors import ConfigError
from evaluation.protocols import PROTOCOLS

_OF_THE_COMMAND = {"init", "model", "digest"}
_BESIDE = ("runs-dir", "cache-dir", "resume")
_FLAGS = (tyro.conf.FlagConversionOff, tyro.conf.OmitSubcommandPrefixes)


@dataclasses.dataclass(frozen=True)
class Asked:
    """A parsed command line."""

    protocol: str
    encoders: tuple[str, ...]
    config: Any
    runs_dir: Path
    cache_dir: Path


def parse(arguments: list[str]) -> Asked:
    """Parse a command line; prints help and exits (0 or 2) where the user asked for or earned it.

    Raises:
        ConfigError: there is no such protocol or option, or no encoder is named.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        print(describe())
        sys.exit(0 if arguments else 2)
    asked, rest = _default(arguments[0]), arguments[1:]
    name, kind = asked.protocol, type(asked.config)
    if asked.encoders and "--run-dir" in rest[:-1]:  # as a stopped run says it: it lies in the folder of run folders
        place = rest.index("--run-dir")
        asked = dataclasses.replace(asked, runs_dir=Path(rest[place + 1]).parent)
        del rest[place : place + 2]
    cli.refuse_unknown_flags(asked.config, rest, beside=_BESIDE)
    taken = [argument.partition("=")[0].lstrip("-") for argument in rest if argument.startswith("--")]
    if wrong := _OF_THE_COMMAND & set(taken):
        raise ConfigError(f"--{wrong.pop()} is filled in for each encoder: name encoders as RUN_DIR, FILE, timm:NAME")
    # What is there is continued anyway; a run that was stopped says --resume, as every command of the suite.
    values = cli.with_values(asked.config, [argument for argument in rest if argument != "--resume"])
    options: Any = tyro.cli(_options(asked), args=values, prog=f"python -m evaluation {name}", config=_FLAGS)
    if not options.encoders:
        raise ConfigError(
            f"no encoder given: python -m evaluation {name} RUN_DIR|FILE|released:NAME|timm:NAME|random:NAME ..."
        )
    cache = options.cache_dir or options.runs_dir / "features"
    fields = {field.name: getattr(options.config, field.name) for field in dataclasses.fields(kind)}
    return Asked(name, options.encoders, kind(**fields), options.runs_dir, cache)


def _default(word: str) -> Asked:
    """What a protocol's name stands for, or the config.json of a run: its settings, encoder and folder."""
    if word.endswith(".json"):
        stored = read_config_file(Path(word))
        recipe = str(stored.get("recipe"))
        name = next((name for name in PROTOCOLS if recipe == name or recipe.startswith(f"{name}-")), "")
        if stored.get("package") != "evaluation" or not name:
            raise ConfigError(f"{word} is a {stored.get('package')} configuration of recipe {recipe}, no evaluation")
        config: Any = from_dict(PROTOCOLS[name].config, stored["config"])
        cleared = dataclasses.replace(config, **dict.fromkeys(_OF_THE_COMMAND, ""))
        return Asked(name, (config.init,), cleared, Path(word).parent.parent, Path())
    if word not in PROTOCOLS:
        near = difflib.get_close_matches(word, PROTOCOLS, n=3, cutoff=0.3) or list(PROTOCOLS)[:3]
        raise ConfigError(f"evaluation has no protocol {word!r}; nearest: {', '.join(near)} (--help lists all)")
    return Asked(word, (), PROTOCOLS[word].config(), Path("runs/evaluation"), Path())


def _options(asked: Asked) -> type:
    """What the command line is parsed into: encoders, folders, and the configuration without the command's own."""
    kind = type(asked.config)
    shown = dataclasses.make_dataclass(
        kind.__name__,
        [(name, tyro.conf.Suppress[str], dataclasses.field(default="")) for name in sorted(_OF_THE_COMMAND)],
        bases=(kind,),
        frozen=True,
        kw_only=True,
    )
    settings = shown(**{field.name: getattr(asked.config, field.name) for field in dataclasses.fields(kind)})
    encoders = Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="ENCODER...", help=_ENCODER)]
    options = dataclasses.make_dataclass(
        "Options",
        [
            ("encoders", encoders, dataclasses.field(default=asked.encoders)),
            ("runs_dir", Annotated[Path, tyro.conf.arg(help=_RUNS)], dataclasses.field(default=asked.runs_dir)),
            ("cache_dir", Annotated[Path | None, tyro.conf.arg(help=_CACHE)], dataclasses.field(default=None)),
            ("config", Annotated[shown, tyro.conf.arg(name="")], dataclasses.field(default=settings)),
        ],
        frozen=True,
    )
    options.__doc__ = inspect.getdoc(kind)
    return options


_ENCODER = (
    "RUN_DIR of a pre-training or classification, FILE, MODEL=FILE, released:NAME, timm:NAME (from its cache), or "
    "random:NAME[@SEED], a network without training."
)
_RUNS = "Folder of the run folders, one for each encoder, and of the comparison."
_CACHE = "Folder of cached features; by default `features` in the runs folder."


def describe() -> str:
    """The list of protocols with their docstrings."""
    lines = [
        "usage: python -m evaluation PROTOCOL ENCODER... --data.root DIR [--<field> VALUE ...]",
        "       python -m evaluation PROTOCOL --help    every field of a protocol, with its default",
        "       python -m evaluation RUN/config.json    what a run folder of it measured, again or to its end",
        "",
        textwrap.fill(f"ENCODER: {_ENCODER}", 100),
        "",
        "protocols:",
    ]
    for name, protocol in PROTOCOLS.items():
        lines += [f"  {name}", textwrap.indent(inspect.getdoc(protocol.config) or "", "      "), ""]
    return "\n".join(lines)
