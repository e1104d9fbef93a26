"""`python -m benchmarks prepare NAME SOURCE DIR`: from a shipped archive to image folders, checked."""

import contextlib
import difflib
import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from backbones.small import LARGEST
from benchmarks.prepare.archives import archive_errors
from benchmarks.prepare.catalogue import DATA_SETS, DataSet
from benchmarks.prepare.download import download
from benchmarks.prepare.writer import only_writer, write_pictures
from classification.labels import stratified_subset
from engine.data.exclude import write_list
from engine.data.index import index_images
from engine.data.survey import survey
from engine.errors import ConfigError, DataError, StopRequested
from engine.run.storage import storage_errors, write_atomic
from engine.training.stop import StopFlag

STATE = "prepared.json"
LABEL_SHARES = {"1percent.txt": 0.01, "10percent.txt": 0.1}


@dataclass(frozen=True, kw_only=True)
class Prepare:
    """Turn a data set as it is shipped into image folders: train/<class>/ and val/<class>/ (the test part of those that
    have no val), unlabelled/ for STL-10, and labels/ with lists of 1 % and 10 % of the training images for
    --data.label-list. Archives are checked against their published hashes, images are counted. The same command goes
    on where an interrupted one stopped.

    Names: @@.
    """

    name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NAME")]
    """Which data set."""
    source: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="SOURCE")]
    """Its archive, a folder that holds its archives, or the unpacked folder."""
    directory: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DIR")]
    """Where the image folders go: new, empty, or left by this command."""
    download: bool = False
    """Fetch archives that are missing in the folder SOURCE. Nothing is fetched without it."""
    unchecked: bool = False
    """Accept another archive than the published one, and other numbers of images and classes."""
    copy: bool = False
    """Copy images of an unpacked SOURCE instead of linking to them."""


Prepare.__doc__ = (Prepare.__doc__ or "").replace("@@", ", ".join(DATA_SETS))


def prepare(options: Prepare) -> None:
    """Run the command.

    Raises:
        ConfigError: an unknown name, or a folder that holds something else.
        DataError: the source is not there, not what it should be, or damaged.
        CheckpointError: the folder cannot be written.
    """
    if options.name not in DATA_SETS:
        near = difflib.get_close_matches(options.name, DATA_SETS, n=3, cutoff=0.3) or sorted(DATA_SETS)
        raise ConfigError(f"prepare knows no data set {options.name!r}; nearest: {', '.join(near)}")
    data_set, before = DATA_SETS[options.name], _earlier_state(options)
    was_there = options.directory.exists()
    try:
        with StopFlag(at_once=True):
            if options.download:
                _download(data_set, options.source)
            sources = _sources(data_set, options)
            archives = _check_hashes(data_set, sources, options, before.get("archives", {}))
            with only_writer(options.directory):
                _write(data_set, sources, options, archives)
    except StopRequested as error:
        raise StopRequested("stopped; the same command goes on from here") from error
    finally:
        _leave_nothing(options.directory, was_there)


def _leave_nothing(directory: Path, was_there: bool) -> None:
    """Take back a beginning of which no picture came, so that another name or archive may be tried in the folder."""
    if directory.is_dir() and [path.name for path in directory.iterdir()] == [STATE]:
        (directory / STATE).unlink(missing_ok=True)
    if not was_there:
        with contextlib.suppress(OSError):  # it is not empty
            directory.rmdir()


def _write(data_set: DataSet, sources: Sequence[Path], options: Prepare, archives: dict[str, Any]) -> None:
    state = {"name": options.name, "source": str(options.source), "archives": archives, "complete": False}
    _store(options.directory, state)
    counts = write_pictures(
        options.directory, data_set.pictures(sources), total=sum(data_set.counts.values()), copy=options.copy
    )
    differences = _differences(data_set, counts, options.directory)
    if differences and not options.unchecked:
        raise DataError(
            f"{', '.join(map(str, sources))}: not all of {data_set.title}: {'; '.join(differences)}. "
            "--unchecked accepts it as it is"
        )
    lists = _write_label_lists(options.directory)
    _store(options.directory, {**state, "counts": dict(counts), "differences": differences, "complete": True})
    _report(options, counts, differences, lists)


def _earlier_state(options: Prepare) -> dict[str, Any]:
    """What an earlier call left in the folder.

    Raises:
        ConfigError: the folder holds something else.
    """
    directory, path = options.directory, options.directory / STATE
    if not path.is_file():
        if directory.exists() and not directory.is_dir():
            raise ConfigError(f"{directory} is no folder: choose another name")
        if directory.exists() and any(directory.iterdir()):
            raise ConfigError(f"{directory} is not empty, and prepare did not begin it: choose another folder")
        return {}
    try:
        state = dict(json.loads(path.read_text()))
        found = state["name"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: not what prepare wrote ({error}): choose another folder") from error
    if found != options.name:
        raise ConfigError(f"{directory} holds {found}: choose another folder for {options.name}")
    return state


def _store(directory: Path, state: dict[str, Any]) -> None:
    with storage_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
        write_atomic(directory / STATE, json.dumps(state, indent=2) + "\n")


def _download(data_set: DataSet, folder: Path) -> None:
    if not data_set.urls:
        raise ConfigError(f"{data_set.title} cannot be downloaded without an account: get it from {data_set.page}")
    if folder.is_file():
        return
    for name, url in data_set.urls.items():
        if not (folder / name).is_file():
            download(url, folder / name)


def _sources(data_set: DataSet, options: Prepare) -> list[Path]:
    """The archives to read, or the folder that holds what was in them."""
    source = options.source
    if not source.exists():
        where = f"; --download fetches it into the folder {source}" if data_set.urls else ""
        raise DataError(f"{source}: no such file or folder. {data_set.title} comes from {data_set.page}{where}")
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise DataError(f"{source}: neither a file nor a folder")
    archives = [source / name for name in data_set.files if (source / name).is_file()]
    return [*archives, source] if data_set.also_folder or not archives else archives


def _check_hashes(
    data_set: DataSet, sources: Sequence[Path], options: Prepare, known: dict[str, Any]
) -> dict[str, Any]:
    """Compare archives with the published hashes; one that was compared before is known by size and time.

    Args:
        data_set: with the hashes.
        sources: archives, and perhaps a folder, which has none.
        options: of the command.
        known: what the call before found: path -> [size, time, md5].

    Returns:
        The same for these sources.

    Raises:
        DataError: an archive is another one.
    """
    found = {}
    for source in sources:
        named = [data_set.files[source.name]] if source.name in data_set.files else list(data_set.files.values())
        published = {md5 for md5 in named if md5}  # a renamed archive may be any of them
        if source.is_dir() or not published:
            continue
        place, status = str(source.absolute()), source.stat()
        entry = [status.st_size, status.st_mtime_ns]
        before = known.get(place) or []
        md5 = before[2] if before[:2] == entry else _md5(source)
        found[place] = [*entry, md5]
        if md5 not in published:
            text = f"{source}: its md5 is {md5}, of {data_set.title} {' or '.join(sorted(published))} is published"
            if not options.unchecked:
                raise DataError(f"{text}: another file, or not all of it. --unchecked takes it all the same")
            print(f"{text}; taken all the same")
    return found


def _md5(source: Path) -> str:
    with archive_errors(source), source.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def _differences(data_set: DataSet, counts: Counter[str], directory: Path) -> list[str]:
    """What is otherwise than it should be, in words."""
    found = [
        f"{split} has {counts[split]:,} images instead of {number:,}"
        for split, number in data_set.counts.items()
        if counts[split] != number
    ]
    for split in ("train", "val"):
        folder = directory / split
        number = sum(path.is_dir() for path in folder.iterdir()) if folder.is_dir() else 0
        if number != data_set.num_classes:
            found.append(f"{split} has {number:,} classes instead of {data_set.num_classes:,}")
    return found


def _write_label_lists(directory: Path) -> list[Path]:
    """The same shares of every class as `--data.train-fraction` draws with seed 0."""
    index = index_images(directory / "train", labelled=True)
    paths = []
    for name, share in LABEL_SHARES.items():
        paths.append(directory / "labels" / name)
        with storage_errors(directory):
            paths[-1].parent.mkdir(exist_ok=True)
        write_list(paths[-1], stratified_subset(index, share, seed=0).paths)
    return paths


def _report(options: Prepare, counts: Counter[str], differences: Sequence[str], lists: Sequence[Path]) -> None:
    directory = options.directory
    numbers = ", ".join(f"{number:,} in {split}/" for split, number in counts.items())
    print(f"{directory}: {DATA_SETS[options.name].title}, {numbers}" + ("" if differences else ", as published"))
    for difference in differences:
        print(f"  {difference}")
    print(f"label lists: {', '.join(map(str, lists))}")
    root = directory / "unlabelled" if counts["unlabelled"] else directory
    small = survey(index_images(directory / "train", labelled=False)).short_side <= LARGEST
    recipe, profile = ("small", "PROFILE=small ") if small else ("demo", "")
    print(f"next: python -m pretrain {recipe} --run-dir runs/{options.name} --data.root {root}")
    print(f"      make benchmark MODEL=resnet18 {profile}IMAGENET={directory}")
