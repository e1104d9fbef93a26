"""`python -m analysis NAME --init A [B ...] --data.root DIR ...`: the words of the command line. Needs no torch."""

import dataclasses
import difflib
import inspect
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from analysis.config import ANALYSES, AnalysisConfig
from engine import cli
from engine.config import check, from_dict, read_config_file
from engine.errors import ConfigError


@dataclass(frozen=True)
class Asked:
    """A parsed command.

    Args:
        name: of the analysis.
        config: its settings.
        encoders: (label, reference) of each; the label is "" where none was given.
        out: folder of run folders and figures.
    """

    name: str
    config: AnalysisConfig
    encoders: list[tuple[str, str]]
    out: Path


def parse(arguments: list[str]) -> Asked:
    """Parse a command line; prints help or tyro's error and leaves (0 or 2) where the user asked for or earned it.

    Raises:
        ConfigError: there is no such analysis or option, or the settings cannot be run.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        print(describe())
        sys.exit(0 if arguments else 2)
    name, default, stored = _default(arguments[0])
    rest = arguments[1:]
    init: Any = (stored,) if stored else ()
    cli.refuse_unknown_flags(default, rest, beside=("init", "labels", "out"))
    cls = dataclasses.make_dataclass(
        "Options",
        [
            ("init", Annotated[tuple[str, ...], tyro.conf.arg(help=_INIT)], init or tyro.MISSING),
            ("config", Annotated[type(default), tyro.conf.arg(name="")], dataclasses.field(default=default)),
            ("labels", Annotated[tuple[str, ...], tyro.conf.arg(help=_LABELS)], ()),
            ("out", Annotated[Path, tyro.conf.arg(help=_OUT)], Path("runs/analysis") / name),
        ],
        frozen=True,
    )
    cls.__doc__ = inspect.getdoc(ANALYSES[name])
    flags = (tyro.conf.FlagConversionOff, tyro.conf.OmitSubcommandPrefixes)
    options: Any = tyro.cli(cls, args=cli.with_values(default, rest), prog=f"python -m analysis {name}", config=flags)
    check(options.config)
    return Asked(name, options.config, _encoders(options.init, options.labels), options.out)


_INIT = (
    "Encoders: run folders of pre-training or fine-tuning, files of weights, MODEL=FILE, timm:NAME, released:NAME, "
    "random:NAME (no training)."
)
_LABELS = "What figures call them, in the same order; by default by their folders or files."
_OUT = "Folder of the run folders, one for each encoder, and of the figure with all of them and its CSV."


def _default(word: str) -> tuple[str, AnalysisConfig, str]:
    """Name and settings before overrides, and the encoder of a stored configuration."""
    if word.endswith(".json"):
        stored = read_config_file(Path(word))
        name = stored.get("recipe")
        if stored.get("package") != "analysis" or name not in ANALYSES:
            raise ConfigError(f"{word} is a {stored.get('package')} configuration of recipe {name}, no analysis")
        config: Any = from_dict(ANALYSES[name], stored["config"])
        return name, dataclasses.replace(config, init="", model="", digest=""), config.init
    if word not in ANALYSES:
        near = difflib.get_close_matches(word, ANALYSES, n=2, cutoff=0.3) or list(ANALYSES)
        raise ConfigError(f"there is no analysis {word!r}; nearest: {', '.join(near)} (--help lists all)")
    return word, ANALYSES[word](), ""


def _encoders(references: Sequence[str], labels: Sequence[str]) -> list[tuple[str, str]]:
    if labels and len(labels) != len(references):
        raise ConfigError(f"{len(labels)} --labels for {len(references)} encoders: give one for each, or none")
    twice = {label for label in labels if list(labels).count(label) > 1}
    if twice:
        raise ConfigError(f"--labels: {min(twice)} stands for two encoders")
    pairs = list(zip(labels or [""] * len(references), references, strict=True))
    return list(dict.fromkeys(pairs))


def describe() -> str:
    """The list of analyses with their docstrings."""
    lines = [
        "usage: python -m analysis NAME --init A [B ...] --data.root DIR [--labels A B] [--out DIR] [--<field> ...]",
        "       python -m analysis NAME --help    every option of an analysis, with its default",
        "",
        "An interrupted analysis goes on by the same command; the same weights are not measured twice.",
        "",
        "analyses:",
    ]
    for name, config in ANALYSES.items():
        lines += [f"  {name}", textwrap.indent(inspect.getdoc(config) or "", "      "), ""]
    return "\n".join(lines)
