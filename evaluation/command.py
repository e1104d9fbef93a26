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
    name, rest = arguments[0], arguments[1:]
    if name not in PROTOCOLS:
        near = difflib.get_close_matches(name, PROTOCOLS, n=3, cutoff=0.3) or list(PROTOCOLS)[:3]
        raise ConfigError(f"evaluation has no protocol {name!r}; nearest: {', '.join(near)} (--help lists all)")
    kind = PROTOCOLS[name].config
    default = kind()
    cli.refuse_unknown_flags(default, rest, beside=_BESIDE)
    taken = [argument.partition("=")[0].lstrip("-") for argument in rest if argument.startswith("--")]
    if wrong := _OF_THE_COMMAND & set(taken):
        raise ConfigError(f"--{wrong.pop()} is filled in for each encoder: name encoders as RUN_DIR, FILE, timm:NAME")
    # What is there is continued anyway; a run that was stopped says --resume, as every command of the suite.
    values = cli.with_values(default, [argument for argument in rest if argument != "--resume"])
    options: Any = tyro.cli(_options(kind), args=values, prog=f"python -m evaluation {name}", config=_FLAGS)
    if not options.encoders:
        raise ConfigError(
            f"no encoder given: python -m evaluation {name} RUN_DIR|FILE|released:NAME|timm:NAME|random:NAME ..."
        )
    cache = options.cache_dir or options.runs_dir / "features"
    fields = {field.name: getattr(options.config, field.name) for field in dataclasses.fields(kind)}
    return Asked(name, options.encoders, kind(**fields), options.runs_dir, cache)


def _options(kind: type[Any]) -> type:
    """What the command line is parsed into: encoders, folders, and the configuration without the command's own."""
    shown = dataclasses.make_dataclass(
        kind.__name__,
        [(name, tyro.conf.Suppress[str], dataclasses.field(default="")) for name in sorted(_OF_THE_COMMAND)],
        bases=(kind,),
        frozen=True,
        kw_only=True,
    )
    encoders = Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="ENCODER...", help=_ENCODER)]
    options = dataclasses.make_dataclass(
        "Options",
        [
            ("encoders", encoders, dataclasses.field(default=())),
            (
                "runs_dir",
                Annotated[Path, tyro.conf.arg(help=_RUNS)],
                dataclasses.field(default=Path("runs/evaluation")),
            ),
            ("cache_dir", Annotated[Path | None, tyro.conf.arg(help=_CACHE)], dataclasses.field(default=None)),
            ("config", Annotated[shown, tyro.conf.arg(name="")], dataclasses.field(default=shown())),
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
        "",
        textwrap.fill(f"ENCODER: {_ENCODER}", 100),
        "",
        "protocols:",
    ]
    for name, protocol in PROTOCOLS.items():
        lines += [f"  {name}", textwrap.indent(inspect.getdoc(protocol.config) or "", "      "), ""]
    return "\n".join(lines)
