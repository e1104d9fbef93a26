"""What a run that has been trained is used for, with the same words in every task:

python -m <package> predict RUN IMAGE...|FOLDER [--out DIR]
python -m <package> evaluate RUN --data.root DIR

A task says what it makes of an image; here are the words, the run's configuration and weights, the images and the bar.
"""

import argparse
import dataclasses
import importlib
import json
import logging
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar, cast

import tyro

from engine import cli
from engine.after import resume_command
from engine.config import check, from_dict, read_config_file
from engine.cores import allowed_cores
from engine.data.options import ImageOptions
from engine.errors import ConfigError, DataError

_HELP = """
       python -m {package} predict RUN IMAGE...|FOLDER [--out DIR]
                                              {results} for images of yours
       python -m {package} evaluate RUN --data.root DIR
                                              the metrics of a run on another data set"""

log = logging.getLogger("mim")
Config = TypeVar("Config")
Item = TypeVar("Item")
Options = TypeVar("Options", bound=ImageOptions)


@dataclass(frozen=True)
class Image:
    """An image to predict, and the name under which its results are written: a relative path without suffix."""

    path: Path
    name: str


@dataclass(frozen=True)
class Predict:
    """What `predict` was asked for."""

    run: Path
    images: list[Image]
    out: Path
    pictures: bool
    more: Mapping[str, str] = field(default_factory=dict)
    reading: Mapping[str, Any] = field(default_factory=dict)
    """What was said about image files in place of what the run says: fields of ImageOptions."""

    @property
    def options(self) -> ImageOptions:
        """What was said, beside what holds where nothing was."""
        return ImageOptions(**self.reading)

    def as_asked(self, options: Options) -> Options:
        """How the run reads images, with what was said otherwise."""
        said = {name: value for name, value in self.reading.items() if name in ("exif", "max_pixels")}
        return dataclasses.replace(options, **said)


@dataclass(frozen=True)
class Evaluate:
    """What `evaluate` was asked for: the run's configuration, with the data group as the command line has it."""

    run: Path
    config: Any


@dataclass(frozen=True, kw_only=True)
class Words:
    """What `python -m <package>` knows beside its recipes.

    `predict` and `evaluate` are functions of <package>.use, imported once the command line is a good one.

    Args:
        results: what predict makes of an image, for the help.
        config: class of the package's configurations.
        alone: for evaluate, the configuration of a file that belongs to no run; None if there must be a run.
        options: of predict beside those of every task, with their help.
        further: other words, and what each does with what follows it.
        help: lines about further words and commands.
        prepare: called before anything of the package is imported that takes seconds to import.
        train: instead of that of <package>.train.
    """

    results: str
    config: type[Any]
    alone: Callable[[], Any] | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    further: Mapping[str, Callable[[list[str]], None]] = field(default_factory=dict)
    help: str = ""
    prepare: Callable[[], None] | None = None
    train: Callable[..., Any] | None = None

    @property
    def known(self) -> tuple[str, ...]:
        """The words that are no recipes."""
        return "predict", "evaluate", *self.further


def main(package: str, recipes: Mapping[str, cli.Recipe], words: Words, arguments: Sequence[str]) -> NoReturn:
    """Run a recipe, or do what a word says with a finished run; leaves with the exit code.

    Args:
        package: the task's.
        recipes: name -> function.
        words: what there is beside them.
        arguments: the command line without the program's name.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        with cli.guard():  # the reader of a pipe may have seen enough
            head, _, listed = cli.describe(package, recipes).partition("\n\n")
            print(f"{head}{_HELP.format(package=package, results=words.results)}{words.help}\n\n{listed}", flush=True)
        sys.exit(0 if arguments else 2)
    word, rest = arguments[0], [argument for argument in arguments[1:] if argument != "--debug"]
    if word not in words.known:
        cli.main(package, recipes, words.train, list(arguments))
    with cli.guard("--debug" in arguments):
        if words.prepare is not None:
            words.prepare()
        if word == "predict":
            predicted = predict_command(package, rest, words.options)
            importlib.import_module(f"{package}.use").predict(predicted)
        elif word == "evaluate":
            evaluated = evaluate_command(package, rest, words.config, words.alone and words.alone())
            print(json.dumps(importlib.import_module(f"{package}.use").evaluate(evaluated)))
        else:
            words.further[word](rest)
    sys.exit(0)


_READING: Mapping[str, Mapping[str, Any]] = {
    "exif": {"choices": ["ignore", "apply", "stop"], "help": "what to do with a photo's orientation"},
    "max_pixels": {"type": int, "metavar": "N", "help": "largest picture accepted, width times height"},
    "exclude": {"metavar": "FILE", "help": "a list of images to leave out, as engine.verify --list writes it"},
    "unreadable": {
        "choices": ["stop", "skip"],
        "help": "images that cannot be read are left out and named: as an error at the end (stop), or not (skip)",
    },
    "max_unreadable": {
        "type": float,
        "metavar": "N",
        "help": "how many skip may leave out: below 1 a share of the images (0.001), from 1 on a number",
    },
}


def predict_command(package: str, arguments: Sequence[str], more: Mapping[str, str] | None = None) -> Predict:
    """Parse what follows `predict`.

    Args:
        package: the task's.
        arguments: after the word.
        more: further options of the task with their help, each with a value.

    Raises:
        ConfigError: a number is outside its range.
        DataError: an image or a folder is missing, or a folder holds no images.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {package} predict", description="What a run makes of images.")
    parser.add_argument("run", type=Path, help="folder of the run")
    parser.add_argument(
        "images", type=Path, nargs="+", metavar="IMAGE", help="images, and folders of them at any depth"
    )
    parser.add_argument("--out", type=Path, default=Path("predictions"), help="folder for the results (predictions)")
    parser.add_argument("--no-pictures", action="store_true", help="do not draw the predictions as well")
    for name, text in (more or {}).items():
        parser.add_argument(f"--{name}", help=text)
    group = parser.add_argument_group("image files", "as in a run, and by default as in this one")
    for name, settings in _READING.items():
        spelt = dict.fromkeys((f"--data.{name.replace('_', '-')}", f"--data.{name}"))
        group.add_argument(*spelt, dest=name, **settings)
    options = parser.parse_args(list(arguments))
    given = {name: str(value) for name in more or {} if (value := getattr(options, name.replace("-", "_"))) is not None}
    reading = {name: value for name in _READING if (value := getattr(options, name)) is not None}
    check(ImageOptions(**reading))
    images = find_images(options.images, ImageOptions(**reading))
    return Predict(options.run, images, options.out, not options.no_pictures, given, reading)


def evaluate_command(package: str, arguments: Sequence[str], cls: type[Any], alone: Any = None) -> Evaluate:
    """Parse what follows `evaluate`: RUN, and any option of the data group in place of the run's own. Where RUN is a
    file or released:NAME, `alone` is the configuration, if there is one.

    Raises:
        ConfigError: RUN holds no run of this package, or an option is unknown or out of range.
    """
    if not arguments or arguments[0].startswith("-"):
        print(f"usage: python -m {package} evaluate RUN [--data.root DIR] [--data.<option> VALUE ...]")
        sys.exit(0 if arguments and arguments[0] in ("-h", "--help") else 2)
    run, rest = Path(arguments[0]), list(arguments[1:])
    by_itself = run.is_file() or str(run).startswith("released:")
    config = alone if alone is not None and by_itself else stored_config(run, package, cls)
    words = f"The metrics of {run} on the validation part of a data set; by default its own."
    default = dataclasses.replace(config.data, num_workers=min(config.data.num_workers, allowed_cores()))
    data = data_options(default, rest, f"python -m {package} evaluate RUN", words)
    config = dataclasses.replace(config, data=data)
    check(config)
    return Evaluate(run, config)


def data_options(default: Config, arguments: Sequence[str], prog: str, words: str) -> Config:
    """Parse options of the data group alone, spelt as in the command of a run.

    Args:
        default: the group, whose values stand where an option is not given.
        arguments: `--data.<option> VALUE ...`.
        prog: the command, and `words` what it does, for its help.

    Raises:
        ConfigError: an option is unknown.
    """
    options = dataclasses.make_dataclass(
        "Options", [("data", Annotated[type(default), tyro.conf.arg(name="data")], default)], frozen=True
    )
    options.__doc__ = words
    given = list(arguments)
    cli.refuse_unknown_flags(options(), given, beside=())
    asked: Any = tyro.cli(
        options, args=cli.with_values(options(), given), prog=prog, config=(tyro.conf.FlagConversionOff,)
    )
    return cast(Config, asked.data)


def stored_config(run: Path, package: str, cls: type[Config]) -> Config:
    """The configuration of a run folder.

    Raises:
        ConfigError: it holds no run, or one of another package.
    """
    if not (run / "config.json").exists():
        raise ConfigError(f"{run} {'holds no run (no config.json)' if run.is_dir() else 'is no folder of a run'}")
    stored = read_config_file(run / "config.json")
    if stored.get("package") == "pretrain" != package:
        raise ConfigError(
            f"{run} holds a pretrain run, not one of {package}: its encoder is a start of one (python -m {package} own "
            f"--init {run} ...)"
        )
    if stored.get("package") != package:
        raise ConfigError(f"{run} holds a {stored.get('package')} run, not one of {package}")
    return from_dict(cls, stored["config"])


def not_finished(package: str, run: Path, lacking: str) -> ConfigError:
    """The error about a run that has not written yet what is needed of it."""
    return ConfigError(
        f"{run} holds no {lacking}, which a {package} run writes when it finishes; this one goes on with: "
        f"{resume_command(package, run)}"
    )


def find_images(paths: Iterable[Path], options: ImageOptions | None = None) -> list[Image]:
    """The images that are given, and those in the folders that are given, but for those that `options` exclude.

    Raises:
        DataError: one is missing, or a folder holds no images.
    """
    from engine.data.exclude import match, read_list
    from engine.data.images import index_images  # imports torch, which --help does without
    from engine.data.scan import describe_left_out

    options = options or ImageOptions()
    excluded = read_list(options.exclude) if options.exclude else []
    found: list[tuple[Path, str]] = []
    for path in paths:
        if path.is_dir():
            index = index_images(path, labelled=False, options=options, unreadable="skip")
            if index.left_out:
                log.warning("%s: %s", path, describe_left_out(index.left_out))
            found += [(path / name, name) for name in index.paths]
        elif path.exists() or path.is_symlink():
            found += [] if match(path.parent, excluded, [path.name]) else [(path, path.name)]
        else:
            raise DataError(f"{path}: no such image or folder")
    found = list(dict.fromkeys(found))
    if not found:
        raise DataError(f"{options.exclude} excludes all images that are given")
    if len({name for _, name in found}) < len(found):  # in folders of their own: names that tell them apart
        base = os.path.commonpath([path.absolute().parent for path, _ in found])
        found = [(path, str(path.absolute().relative_to(base))) for path, _ in found]
    stems = Counter(str(Path(name).with_suffix("")) for _, name in found)
    names = [
        name if stems[str(Path(name).with_suffix(""))] > 1 else str(Path(name).with_suffix("")) for _, name in found
    ]
    return [Image(path, name) for (path, _), name in zip(found, names, strict=True)]


def counted(number: int, what: str) -> str:
    """A number of things: "1 pair", "2 pairs"."""
    return f"{number:,} {what}{'s' * (number != 1)}"


def each(items: Sequence[Item], what: str) -> Iterator[Item]:
    """The items one by one, with a bar on a terminal."""
    from rich.console import Console
    from rich.progress import track

    yield from track(items, description=what, console=Console(stderr=True), disable=not sys.stderr.isatty())


def predict_each(images: Sequence[Image], predict: Callable[[Image], None], options: ImageOptions | None = None) -> int:
    """Predict images one by one; those that cannot be read are left out and named. Returns how many were predicted.

    Raises:
        DataError: images could not be read, more than `options` accept; the others have been predicted.
    """
    options = options or ImageOptions()
    unreadable = []
    for image in each(images, "predict"):
        try:
            predict(image)
        except DataError as error:
            log.warning("%s", error)
            unreadable.append(error)
    what = f"{len(unreadable):,} of {counted(len(images), 'image')} could not be read"
    skips = options.unreadable == "skip"
    if unreadable and not (skips and options.accepts_unreadable(len(unreadable), len(images))):
        limit = f", more than --data.max-unreadable {options.max_unreadable:g}" * skips
        raise DataError(f"{what}{limit}, the first: {unreadable[0]}") from unreadable[0]
    if unreadable:
        log.warning("%s and were left out", what)
    return len(images) - len(unreadable)
