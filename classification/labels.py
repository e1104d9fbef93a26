"""Few labels: which of the training images a run uses, as a share of each class or by a list.

The choice is stored in the run folder (labels.txt, one path a line below train/), so that it can be looked at and given
to another run with `--data.label-list`.
"""

import hashlib
import logging
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from backbones import WeightsFileError
from backbones.weights.download import download
from backbones.weights.released import cache_folder, cached, where
from classification.config import ClassificationConfig
from engine.data.exclude import read_list, write_list
from engine.data.index import ImageIndex
from engine.data.scan import some
from engine.errors import DataError

LIST_NAME = "labels.txt"


@dataclass(frozen=True)
class PublishedList:
    """A list of images that papers trained on."""

    what: str
    url: str
    sha256: str

    @property
    def file(self) -> str:
        """Its name in the cache."""
        return f"{self.sha256[:8]}-{self.url.rpartition('/')[2]}"


_SIMCLR = "https://raw.githubusercontent.com/google-research/simclr/master/imagenet_subsets"
PUBLISHED_LISTS = {
    "simclr-1": PublishedList(
        "SimCLR's 1 % of ImageNet (12,811 images)",
        f"{_SIMCLR}/1percent.txt",
        "71e82a48ba78252683ae334c4d019ebd5c6e855b9599c1389fbe83eb9549cf17",
    ),
    "simclr-10": PublishedList(
        "SimCLR's 10 % of ImageNet (128,116 images)",
        f"{_SIMCLR}/10percent.txt",
        "6d09de11e7bdaf5b1f3b1f249b6183695f97310cdd20f0c03e7235b6b9392091",
    ),
}
"""What data.label_list takes by name."""

_FRACTION_STREAM = 0xF2AC  # separates the draw of a subset from the order of samples, which has the same seed

log = logging.getLogger("mim")


def labelled_part(index: ImageIndex, config: ClassificationConfig) -> ImageIndex:
    """The training images that a run uses: those of data.label_list, data.train_fraction of each class, or all.

    Raises:
        DataError: the list cannot be read, or names images that are not there.
    """
    if config.data.label_list:
        return listed_subset(index, find_list(config.data.label_list))
    return stratified_subset(index, config.data.train_fraction, config.seed)


def find_list(given: str) -> Path:
    """The file of a list: the given one, or a published one by its name, from the cache of released files or fetched
    into it (MIM_CACHE and MIM_RELEASED_URL say where, as for weights) and compared with its sha256.

    Raises:
        DataError: the published list cannot be had, or the file in the cache is another one.
    """
    published = PUBLISHED_LISTS.get(given)
    if published is None or Path(given).exists():
        return Path(given)
    path = cache_folder() / published.file

    def wrong(file: Path) -> str:
        found = hashlib.sha256(file.read_bytes()).hexdigest()
        return "" if found == published.sha256 else f"{published.what}: its sha256 is {found[:8]}"

    try:
        return cached(path, lambda: download(where(published.file, published.url), path, wrong), wrong)
    except WeightsFileError as error:
        by_hand = f"Put {published.url} at {path}, or give a file of your own"
        raise DataError(f"--data.label-list {given}: {error} {by_hand}") from error


def stratified_subset(index: ImageIndex, fraction: float, seed: int) -> ImageIndex:
    """The same part of every class, at least one image each: a function of (seed, class, fraction) alone.

    A smaller fraction with the same seed is a part of a larger one.
    """
    if fraction == 1:
        return index
    assert index.labels is not None
    kept: list[int] = []
    for label in range(len(index.classes)):
        members = np.flatnonzero(index.labels == label)
        source = np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, _FRACTION_STREAM, label))))
        kept += source.permutation(members)[: max(1, round(fraction * len(members)))].tolist()
    return index.subset(kept)


def listed_subset(index: ImageIndex, list_path: Path) -> ImageIndex:
    """The images that a file lists, one a line: a path (below train/, below a folder above it, or absolute), or a file
    name alone where only one image has it, as in SimCLR's lists.

    Raises:
        DataError: the list cannot be read or names no image, or a line names none or several.
    """
    listed = list(dict.fromkeys(read_list(list_path)))
    if not listed:
        raise DataError(f"{list_path}: the list of labelled images is empty")
    by_path = {path: position for position, path in enumerate(index.paths)}
    by_name: dict[str, list[int]] = defaultdict(list)
    for path, position in by_path.items():
        by_name[path.rpartition("/")[2]].append(position)
    above = f"{index.root.absolute()}/"
    kept: set[int] = set()
    unknown: list[str] = []
    ambiguous: list[str] = []
    for line in listed:
        path = line.removeprefix("./").removeprefix(above).removeprefix(f"{index.root.name}/")
        found = [by_path[path]] if path in by_path else by_name.get(path, [])
        kept.update(found[:1])
        if len(found) != 1:
            (ambiguous if found else unknown).append(line)
    for lines, what in ((unknown, "name no image under"), (ambiguous, "name several images under")):
        if lines:
            raise DataError(
                f"{list_path}: {len(lines):,} of {len(listed):,} lines {what} {index.root}: {some(lines)}. A line is a "
                "path below that folder, or the name of a file that is there once"
            )
    digest = hashlib.sha256(list_path.read_bytes()).hexdigest()
    for published in PUBLISHED_LISTS.values():
        if published.sha256 == digest:
            log.info("%s: %s", list_path, published.what)
    part = index.subset(kept)
    assert part.labels is not None
    empty = [name for label, name in enumerate(index.classes) if label not in set(part.labels.tolist())]
    if empty:
        log.warning("%s: no image of %d of %d classes: %s", list_path, len(empty), len(index.classes), some(empty))
    return part


def record_part(part: ImageIndex, whole: ImageIndex, config: ClassificationConfig, run_dir: Path) -> None:
    """Store which images a run uses, and say what fewer images mean for its length.

    Raises:
        CheckpointError: the list cannot be written.
    """
    path = run_dir / LIST_NAME
    if not (path.exists() and (run_dir / "data.json").exists()):  # else it resumes, and is held to what it used
        write_list(path, part.paths)
    steps, all_steps = (config.epochs * (len(index) // config.batch_size) for index in (part, whole))
    log.info("train: %s of %s images, listed in %s", f"{len(part):,}", f"{len(whole):,}", path)
    if config.data.full_epochs:
        text = "%s steps in %d epochs, as many as all images make: each comes %.3g times an epoch%s"
        once = f" (--data.full-epochs False: once, {steps:,} steps)" if steps else ""
        log.info(text, f"{all_steps:,}", config.epochs, len(whole) / len(part), once)
    else:
        more = f" (--epochs {config.epochs * all_steps // steps} for as many)" if 0 < steps < all_steps else ""
        log.info("%s steps in %d epochs, all images make %s%s", f"{steps:,}", config.epochs, f"{all_steps:,}", more)
