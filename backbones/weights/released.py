"""Published files of weights by name: which there are (released.csv), and how one comes here.

The list holds every file that the A2MIM project, MMSelfSup (as OpenMixup's model zoo links it), SparK, MAE, SimMIM,
ConvNeXt V2, MaskFeat and I-JEPA published; links and numbers as their own pages print them.
"""

import contextlib
import csv
import difflib
import functools
import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from backbones.errors import BackboneError, WeightsFileError

from .download import download, only_one

PREFIX = "released:"
TABLE = Path(__file__).with_name("released.csv")
FOLDER_VARIABLE, MIRROR_VARIABLE = "MIM_CACHE", "MIM_RELEASED_URL"


@dataclass(frozen=True, kw_only=True)
class Released:
    """One line of released.csv; all text, "" where nothing is known."""

    name: str
    """As in released:NAME."""
    kind: Literal["whole", "encoder", "classifier", "log", "pictures"]
    """A whole pre-training model, its encoder alone, a fine-tuned classifier; or no weights at all."""
    what: str
    model: str
    """The network that it fits, by a published or timm name."""
    epochs: str
    """Of the pre-training."""
    top1: str
    """On ImageNet-1K, as printed for it: of a pre-training after `protocol`."""
    protocol: str
    licence: str
    digest: str
    """What the publisher prints of its hash: "md5:" or "sha256:" and the first digits."""
    file: str
    url: str
    note: str

    @property
    def is_weights(self) -> bool:
        """Whether a network can be loaded from it."""
        return self.kind in ("whole", "encoder", "classifier")

    @property
    def description(self) -> dict[str, Any]:
        """What the file's header would say if it were one of ours. Its method is no method of ours: results of our own
        pre-trainings are never averaged with those of a released file."""
        known: dict[str, Any] = {
            "method": f"{PREFIX}{self.name}",
            "method_title": f"{self.what.split(',')[0]} (released)",
        }
        if self.model:
            known["name"] = self.model
        if self.epochs:
            known["epochs"] = int(self.epochs)
        return known


@functools.cache
def released() -> Mapping[str, Released]:
    """{name: file}, in the order of the table."""
    with TABLE.open(newline="") as file:
        return {row["name"]: Released(**row) for row in csv.DictReader(file)}  # type: ignore[arg-type]


def find_released(name: str) -> Released:
    """The file called `name`, with or without "released:". Raises BackboneError with the nearest names."""
    name = name.removeprefix(PREFIX)
    if name in released():
        return released()[name]
    near = difflib.get_close_matches(name, released(), n=3, cutoff=0.4)
    hint = f"nearest: {', '.join(near)}; " if near else ""
    raise BackboneError(
        f"{PREFIX}{name}: no published file has this name; {hint}python -m backbones released lists all."
    )


def cache_folder() -> Path:
    """Where released files are kept: MIM_CACHE, else mim-benchmark in the user's cache folder."""
    if named := os.environ.get(FOLDER_VARIABLE):
        return Path(named)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mim-benchmark"
    except RuntimeError as error:
        raise WeightsFileError(f"there is no home folder for a cache: name a folder in {FOLDER_VARIABLE}.") from error


def fetch(name: str) -> Path:
    """The file of a released name on this machine: from the cache, or downloaded into it (continued where an earlier
    try stopped).

    Its hash is compared with what its publisher prints and with that of its first use, which is kept beside it.
    MIM_RELEASED_URL names a folder that serves the same files by name, for machines that reach no other.

    Raises:
        BackboneError: no released file has this name.
        WeightsFileError: it cannot be had, with the place where it would be found if it were put there; or it is
            another file than it should be.
    """
    entry = find_released(name)
    path = cache_folder() / entry.file
    return cached(path, lambda: _download(entry, path), lambda file: _wrong(entry, file, _pin(path)))


def cached(path: Path, fetch_it: Callable[[], None], wrong: Callable[[Path], str]) -> Path:
    """A file of the cache, fetched by the first of the processes that want it, and compared by all others.

    Args:
        path: where it is kept.
        fetch_it: puts it there.
        wrong: tells what a file is not, "" if nothing is wrong with it.

    Raises:
        WeightsFileError: the cache cannot be used, or the file in it is another one.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with only_one(path):
            if not path.exists():
                fetch_it()
            elif reason := wrong(path):
                raise WeightsFileError(f"{path} is not {reason}. Remove it, and it is fetched again.")
    except OSError as error:
        raise WeightsFileError(
            f"the cache folder {path.parent} cannot be used ({error.strerror}): name another in {FOLDER_VARIABLE}."
        ) from error
    return path


def fetch_weights(entry: Released) -> Path:
    """fetch, of a file that a network can be loaded from. Raises WeightsFileError for a log or pictures."""
    if not entry.is_weights:
        raise WeightsFileError(f"{PREFIX}{entry.name} holds no weights: it is {entry.what}.")
    return fetch(entry.name)


def where(file: str, url: str) -> str:
    """The address of a published file: its own, or with MIM_RELEASED_URL that of the same name there."""
    mirror = os.environ.get(MIRROR_VARIABLE)
    return f"{mirror.rstrip('/')}/{file}" if mirror else url


def _download(entry: Released, path: Path) -> None:
    url = where(entry.file, entry.url)
    by_hand = f"To use it all the same, put the file of {entry.url} at {path}."
    if url.startswith("https://drive.google.com"):
        raise WeightsFileError(f"{entry.file} lies where only a browser can fetch it. {by_hand}")
    try:
        download(url, path, lambda fresh: _wrong(entry, fresh, _pin(path)))
    except WeightsFileError as error:
        begun = path.with_name(f"{path.name}.partial").exists()
        on = " The same command continues what there is of it." if begun else ""
        raise WeightsFileError(f"{error}{on} {by_hand}") from error


def _pin(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _wrong(entry: Released, path: Path, pin: Path) -> str:
    """Which file `path` is not: the published one, by the digits of its publisher, or that of its first use, by the
    hash in `pin`; "" if it is both. At its first use the hash is written down."""
    kind, _, digits = entry.digest.partition(":")
    found = _hash(path, "sha256")
    theirs = found if kind in ("", "sha256") else _hash(path, kind)
    if not theirs.startswith(digits):
        return f"the published file: its {kind} begins with {theirs[: len(digits)]}, not {digits}"
    if not pin.exists():
        with contextlib.suppress(OSError):  # a folder that others fill is only read
            pin.write_text(f"{found}  {entry.file}\n")
        return ""
    first = "".join(pin.read_text().split()[:1])
    return (
        "" if first == found else f"that of its first use: its sha256 is {found[:8]}..., not {first[:8]}... as in {pin}"
    )


def _hash(path: Path, kind: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, kind).hexdigest()
