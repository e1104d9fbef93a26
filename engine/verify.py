"""`python -m engine.verify DIR`: decode every image of a data set before a run meets the bad ones.

With `--list FILE` the bad ones are written as a list that `--data.exclude FILE` of a run leaves out. With
`--hashes FILE` it also finds files that still decode but are not the bytes they were: the first call writes the list,
later ones compare with it. That list has the format of `sha256sum`.
"""

import argparse
import ctypes
import hashlib
import io
import signal
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import track

from engine.cli import guard
from engine.config import problems_of
from engine.cores import allowed_cores
from engine.data.decode import decode_image, opened, read_bytes
from engine.data.exclude import write_list
from engine.data.hashes import differences, read_hashes, write_hashes
from engine.data.header import pillow_header
from engine.data.images import ImageOptions, index_images
from engine.data.options import MAX_PIXELS
from engine.data.scan import describe_left_out, left_out, scan, some, why_no_file
from engine.errors import ConfigError, DataError
from engine.processes import READERS

_CHUNK = 64  # files handed to a worker process at a time
_SET_SIGNAL_AT_PARENTS_DEATH = 1  # PR_SET_PDEATHSIG

_TURNED = "have an EXIF orientation: read as stored unless --data.exif apply"
_DEEP = "have more than 8 bits of grey, of which the upper 8 are used"
_FRAMES = "hold several pictures, of which the first is used"


@dataclass(frozen=True)
class Checked:
    """One file: sha256 of its bytes ("" if it cannot be read), why it is bad (None if it is not), what else to say."""

    digest: str
    reason: str | None = None
    notes: tuple[str, ...] = ()


@dataclass
class Report:
    """What `verify` found.

    Args:
        num_images: how many were checked.
        bad: (path relative to the folder, reason), by path.
        notes: what a reader may not expect: what it is -> paths.
        left_out: what looks like an image and is not taken: why -> paths.
        hashes_written: whether a list of hashes was written.
    """

    num_images: int
    bad: list[tuple[str, str]]
    notes: dict[str, list[str]] = field(default_factory=dict)
    left_out: dict[str, list[str]] = field(default_factory=dict)
    hashes_written: bool = False


def check_file(root: str, options: ImageOptions, path: str) -> Checked:
    """Read and decode one image."""
    full = f"{root}/{path}"
    if not Path(full).is_file():
        return Checked("", why_no_file(full))
    try:
        data = read_bytes(full)
    except DataError as error:
        return Checked("", str(error).removeprefix(f"{full}: "))
    digest = hashlib.sha256(data).hexdigest()
    try:
        decode_image(data, options)
    except DataError as error:
        return Checked(digest, str(error))
    except MemoryError:
        return Checked(digest, "does not fit into the memory of this machine")
    return Checked(digest, None, _notes(data, options))


def _notes(data: bytes, options: ImageOptions) -> tuple[str, ...]:
    try:
        with opened(io.BytesIO(data), options.max_pixels) as image:
            deep, frames = image.mode.startswith("I"), getattr(image, "n_frames", 1)
        found = {_TURNED: pillow_header(data).orientation != 1, _DEEP: deep, _FRAMES: frames > 1}
    except Exception:  # it has been decoded: what stands beside the pixels may be as it likes
        return ()
    return tuple(note for note, holds in found.items() if holds)


def verify(
    root: str | Path,
    *,
    hashes_path: Path | None = None,
    num_workers: int = 1,
    options: ImageOptions | None = None,
) -> Report:
    """Decode every image under a folder, and compare with (or write) a list of hashes.

    Args:
        root: the folder, flat, nested or with one folder per class.
        hashes_path: compared with if it exists, written otherwise (only when every image is good).
        num_workers: processes.
        options: which images are left out, and the largest picture accepted.

    Raises:
        DataError: the folder has no images, a list cannot be parsed, or a reader process died.
        CheckpointError: the list of hashes cannot be written.
    """
    options = options or ImageOptions()
    stored = read_hashes(hashes_path) if hashes_path and hashes_path.exists() else None
    index = index_images(root, labelled=False, unreadable="skip", options=options)
    report = Report(len(index), [], left_out=left_out(root, scan(root)[0], limit=None))
    bad: dict[str, str] = {}
    digests: dict[str, str] = {}
    checked = _check_all(partial(check_file, str(index.root), options), index.paths, num_workers)
    screen = Console(stderr=True)
    shown = track(checked, "verify", len(index), console=screen, transient=True, disable=not screen.is_terminal)
    for path, found in shown:
        digests[path] = found.digest
        if found.reason is not None:
            bad[path] = found.reason
        for note in found.notes:
            report.notes.setdefault(note, []).append(path)
    if stored is not None:
        for path, reason in differences(stored, digests):
            bad.setdefault(path, reason)
    elif hashes_path is not None and not bad:
        write_hashes(hashes_path, digests)
        report.hashes_written = True
    report.bad = sorted(bad.items())
    return report


def _check_all(check: "partial[Checked]", paths: Sequence[str], num_workers: int) -> Iterator[tuple[str, Checked]]:
    if num_workers <= 1:
        yield from zip(paths, map(check, paths), strict=True)
        return
    done = 0
    with ProcessPoolExecutor(num_workers, READERS, _follow_the_parent) as pool:
        try:
            for result in zip(paths, pool.map(check, paths, chunksize=_CHUNK), strict=True):
                done += 1
                yield result
        except BrokenProcessPool as error:
            raise DataError(
                f"a reader process ended unexpectedly between the images {paths[done]} and "
                f"{paths[min(done + num_workers * _CHUNK, len(paths) - 1)]}; --num-workers 1 shows at which one"
            ) from error


def _follow_the_parent() -> None:
    """Leave Ctrl-C to the parent, and end with it however it ends: a worker would wait for ever."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_SIGNAL_AT_PARENTS_DEATH, signal.SIGKILL)


def main(argv: Sequence[str] | None = None) -> None:
    """The command. Prints one line per bad image; leaves with exit code 3 if there is any."""
    parser = argparse.ArgumentParser(prog="python -m engine.verify", description="Decode every image of a data set.")
    parser.add_argument("root", metavar="DIR", type=Path, help="folder of images, at any depth")
    parser.add_argument("--list", type=Path, metavar="FILE", help="write the bad ones, for --data.exclude of a run")
    parser.add_argument("--exclude", default="", metavar="FILE", help="leave these images out, as --data.exclude does")
    parser.add_argument("--hashes", type=Path, metavar="FILE", help="compare with this sha256 list; written if absent")
    parser.add_argument("--max-pixels", type=int, default=MAX_PIXELS, help=f"largest width x height ({MAX_PIXELS:,})")
    parser.add_argument("--num-workers", type=int, default=allowed_cores(), help="processes (default: all cores)")
    options = parser.parse_args(argv)
    with guard():
        _refuse_unwritable(options.list, options.hashes)
        image_options = ImageOptions(exclude=options.exclude, max_pixels=options.max_pixels)
        if problems := problems_of(image_options):
            raise ConfigError("--" + "; --".join(problems).replace("_", "-"))
        report = verify(
            options.root, hashes_path=options.hashes, num_workers=options.num_workers, options=image_options
        )
        _print_report(options.root, report)
        if options.list is not None:
            write_list(options.list, (path for path, _ in report.bad))
            _print(f"{len(report.bad):,} paths written to {options.list}")
        if report.bad:
            how = f"--data.exclude {options.list} in a run"
            how = how if options.list else "--list FILE here, then --data.exclude FILE in a run"
            kept = f"; {options.hashes} is not written" if options.hashes and not options.hashes.exists() else ""
            raise DataError(
                f"{options.root}: {len(report.bad):,} bad images, listed above{kept}. Fix or remove them, "
                f"or leave them out ({how})"
            )
        written = f"; hashes written to {options.hashes}" if report.hashes_written else ""
        what = "every image is good" if not report.left_out else "every image that is taken is good"
        _print(f"{options.root}: {what} ({report.num_images:,}){written}")


def _refuse_unwritable(*paths: Path | None) -> None:
    """Before hours of reading: the folders of what will be written must be there."""
    for path in paths:
        if path is not None and not path.parent.is_dir():
            raise ConfigError(f"{path}: cannot be written, for there is no folder {path.parent}")


def _print_report(root: Path, report: Report) -> None:
    for path, reason in report.bad:
        _print(f"{path}: {reason}")
    for note, paths in sorted(report.notes.items()):
        _print(f"{root}: {len(paths):,} {note}: {some(paths)}")
    if report.left_out:
        _print(f"{root}: {describe_left_out(report.left_out)}")


def _print(text: str) -> None:
    """A line for any terminal, whatever bytes a file name has."""
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding))


if __name__ == "__main__":
    main()
