"""What lies under a folder: the files taken as images, with their sizes, and what looks like an image and is not."""

import os
import stat
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from engine.data.files import UnreadableImageError, kind_of_file, open_file
from engine.errors import DataError

SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".avif"),
)
"""Of files taken as images, in upper or lower case."""

_OTHER_IMAGES = (
    *(".heic", ".heif", ".jxl", ".svg", ".psd", ".tga", ".ico", ".pcx", ".exr", ".hdr", ".eps", ".xcf", ".dds"),
    *(".dcm", ".nii", ".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2", ".pfm", ".jpx", ".jls"),
)
_FIRST_BYTES = (
    *(b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"II*\0", b"MM\0*", b"8BPS", b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51"),
    *(b"\xff\x0a", b"\0\0\0\x0cJXL ", b"v/1\x01"),
)
_TEXTS = (".txt", ".json", ".jsonl", ".csv", ".tsv", ".xml", ".yaml", ".yml", ".md", ".html", ".log", ".py", ".mat")
_NUM_LOOKED_INTO = 2000  # files of other suffixes, so that a folder with a text beside every image starts soon
_NUM_THREADS = 8  # a network file system answers many size requests at once
_NUM_NAMED = 5  # how many offending names a message lists


@dataclass
class Found:
    """What a scan found; paths are relative to its root, with forward slashes.

    Args:
        images: path -> bytes; 0 for what is no regular file.
        others: files of no image suffix.
        hidden: images whose name begins with a dot.
        folders: folders named like an image.
    """

    images: dict[str, int] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)

    def add(self, more: "Found") -> None:
        """Take over what another part of the tree holds."""
        self.images.update(more.images)
        self.others += more.others
        self.hidden += more.hidden
        self.folders += more.folders


def scan(root: str | Path, suffixes: tuple[str, ...] = SUFFIXES) -> tuple[Found, tuple[str, ...]]:
    """Everything under a folder, and the names of the folders directly in it. Hidden folders are not entered.

    Raises:
        DataError: a folder is missing or cannot be listed, or a link leads back to a folder above it.
    """
    here = _identity(str(root))
    found, folders = _sort(_list(root), "", suffixes)
    with ThreadPoolExecutor(_NUM_THREADS) as pool:
        for part in pool.map(lambda name: _walk(f"{root}/{name}", f"{name}/", frozenset((here,)), suffixes), folders):
            found.add(part)
    return found, tuple(sorted(folders))


def accepted_suffixes(suffixes: tuple[str, ...] = SUFFIXES) -> str:
    """The suffixes, for messages."""
    return f"{' '.join(suffixes)} (upper or lower case)"


def some(names: Iterable[str]) -> str:
    """The first five of many names, and how many more there are."""
    listed = list(names)
    more = len(listed) - _NUM_NAMED
    return ", ".join(listed[:_NUM_NAMED]) + (f" and {more:,} more" if more > 0 else "")


def left_out(root: str | Path, found: Found, limit: int | None = _NUM_LOOKED_INTO) -> dict[str, list[str]]:
    """What looks like an image and was not taken: why -> paths.

    Args:
        root: the folder that was scanned.
        found: what `scan` returned.
        limit: of the files of other suffixes, how many are looked into; None for all.
    """
    by_reason: dict[str, list[str]] = {}
    unknown = []
    for path in found.others:
        if path.lower().endswith(_OTHER_IMAGES):
            by_reason.setdefault(f"{Path(path).suffix.lower()}, which is not read", []).append(path)
        else:
            unknown.append(path)
    unknown.sort(key=lambda path: (path.lower().endswith(_TEXTS), path))
    bytes_say = [path for path in unknown[:limit] if _begins_like_an_image(f"{root}/{path}")]
    empty = [path for path in found.folders if not any(image.startswith(f"{path}/") for image in found.images)]
    for reason, paths in (
        ("an image by its first bytes, but not by its suffix", bytes_say),
        ("hidden: the name begins with a dot", found.hidden),
        ("a folder, named like an image", empty),
    ):
        if paths:
            by_reason[reason] = paths
    return {reason: sorted(by_reason[reason]) for reason in sorted(by_reason)}


def describe_left_out(left: dict[str, list[str]]) -> str:
    """One line for people about the result of `left_out`; "" if there is nothing to say."""
    total = sum(map(len, left.values()))
    if not total:
        return ""
    parts = "; ".join(f"{len(paths):,} ({reason}): {some(paths)}" for reason, paths in left.items())
    start = "1 file looks like an image and is" if total == 1 else f"{total:,} files look like images and are"
    return f"{start} left out: {parts}"


def why_no_file(path: str) -> str:
    """What is wrong with a path whose size was found to be 0."""
    try:
        return kind_of_file(os.stat(path).st_mode) or "0 bytes"  # noqa: PTH116
    except FileNotFoundError:
        return "a link to nothing"
    except OSError as error:
        return "a link that leads to itself" if os.path.islink(path) else str(error.strerror)  # noqa: PTH114


def _list(folder: str | Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except FileNotFoundError as error:
        raise DataError(f"{folder}: no such folder; expected one with images ({accepted_suffixes()})") from error
    except NotADirectoryError as error:
        raise DataError(f"{folder}: not a folder; expected one with images ({accepted_suffixes()})") from error
    except (OSError, ValueError) as error:  # ValueError: a path with a zero byte
        raise DataError(f"{folder}: cannot be listed ({getattr(error, 'strerror', None) or error})") from error


def _sort(entries: list[os.DirEntry[str]], prefix: str, suffixes: tuple[str, ...]) -> tuple[Found, list[str]]:
    """The entries of one folder by what they are, and the names of the folders among them."""
    found, folders = Found(), []
    for entry in entries:
        name, path = entry.name, prefix + entry.name
        named_like_an_image = name.lower().endswith(suffixes)
        if name.startswith("."):
            if named_like_an_image and not name.startswith("._"):  # those are what macOS keeps beside a file
                found.hidden.append(path)
        elif _is_folder(entry):
            folders.append(name)
            if named_like_an_image:
                found.folders.append(path)
        elif named_like_an_image:
            found.images[path] = _size(entry)
        else:
            found.others.append(path)
    return found, folders


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _size(entry: os.DirEntry[str]) -> int:
    try:
        status = entry.stat()
    except OSError:
        return 0  # a link to nowhere counts as an empty file, and is reported with its reason
    return status.st_size if stat.S_ISREG(status.st_mode) else 0


def _walk(folder: str, prefix: str, above: frozenset[tuple[int, int]], suffixes: tuple[str, ...]) -> Found:
    """Everything in a folder and all below it. `above` are the folders on the way, to notice a link that leads back."""
    whole = Found()
    waiting = [(folder, prefix, above)]
    while waiting:
        folder, prefix, above = waiting.pop()
        here = _identity(folder)
        if here in above:
            raise DataError(f"{folder}: this link leads back to a folder above it; remove it")
        found, folders = _sort(_list(folder), prefix, suffixes)
        whole.add(found)
        waiting += [(f"{folder}/{name}", f"{prefix}{name}/", above | {here}) for name in folders]
    return whole


def _identity(folder: str) -> tuple[int, int]:
    try:
        status = os.stat(folder)  # noqa: PTH116
    except (OSError, ValueError):
        return (-1, -1)  # listing it says what is wrong
    return status.st_dev, status.st_ino


def _begins_like_an_image(path: str) -> bool:
    try:
        with open_file(path) as descriptor:
            head = os.read(descriptor, 16)
    except (OSError, UnreadableImageError):
        return False
    webp = head[:4] == b"RIFF" and head[8:12] == b"WEBP"
    bitmap = head[:2] == b"BM" and head[6:10] == bytes(4)
    return head.startswith(_FIRST_BYTES) or webp or bitmap or head[4:12] in (b"ftypavif", b"ftypheic", b"ftypheix")
