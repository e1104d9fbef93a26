"""`python -m engine.verify DIR`: decode every image of a data set before a run meets the bad ones.

With `--hashes FILE` it also finds files that still decode but are not the bytes they were: the first call writes the
list, later ones compare with it. The list has the format of `sha256sum`.
"""

import argparse
import hashlib
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from engine.cli import guard
from engine.data.decode import UnreadableImageError, decode_image, read_bytes
from engine.data.images import index_images
from engine.errors import DataError

_CHUNK = 64  # files handed to a worker process at a time
_REPORT_EVERY = 50_000


def check_file(root: str, path: str) -> tuple[str, str | None]:
    """Read and decode one image.

    Returns:
        sha256 of its bytes ("" if it cannot be read), and why it is bad (None if it is not).
    """
    try:
        data = read_bytes(f"{root}/{path}")
    except DataError as error:
        return "", str(error).removeprefix(f"{root}/{path}: ")
    digest = hashlib.sha256(data).hexdigest()
    try:
        decode_image(data)
    except UnreadableImageError as error:
        return digest, str(error)
    return digest, None


def verify(root: str | Path, *, hashes_path: Path | None = None, num_workers: int = 1) -> list[tuple[str, str]]:
    """Decode every image under a folder, and compare with (or write) a list of hashes.

    Args:
        root: the folder, flat, nested or with one folder per class.
        hashes_path: compared with if it exists, written otherwise (only when every image is good).
        num_workers: processes.

    Returns:
        (path relative to root, reason) of every bad image, by path.

    Raises:
        DataError: the folder has no images, or the list of hashes cannot be parsed.
    """
    stored = read_hashes(hashes_path) if hashes_path and hashes_path.exists() else None
    index = index_images(root, labelled=False, unreadable="skip")
    bad: dict[str, str] = {}
    digests: dict[str, str] = {}
    for done, (path, (digest, reason)) in enumerate(_check_all(str(index.root), index.paths, num_workers), 1):
        digests[path] = digest
        if reason is not None:
            bad[path] = reason
        if done % _REPORT_EVERY == 0:
            print(f"{done:,} of {len(index):,} images, {len(bad):,} bad", file=sys.stderr)
    if stored is not None:
        for path, reason in _differences(stored, digests):
            bad.setdefault(path, reason)
    elif hashes_path is not None and not bad:
        hashes_path.write_text("".join(f"{digest}  {path}\n" for path, digest in digests.items()), errors=_ERRORS)
    return sorted(bad.items())


_ERRORS = "surrogateescape"  # file names are bytes; keep those that are not UTF-8


def _check_all(root: str, paths: Sequence[str], num_workers: int) -> Iterator[tuple[str, tuple[str, str | None]]]:
    check = partial(check_file, root)
    if num_workers <= 1:
        yield from zip(paths, map(check, paths), strict=True)
        return
    with ProcessPoolExecutor(num_workers) as pool:
        yield from zip(paths, pool.map(check, paths, chunksize=_CHUNK), strict=True)


def read_hashes(path: Path) -> dict[str, str]:
    """A list written by `sha256sum` or by `verify`, as {relative path: sha256}.

    Raises:
        DataError: a line is not `<64 hex digits>  <path>`.
    """
    hashes: dict[str, str] = {}
    for number, line in enumerate(path.read_text(errors=_ERRORS).splitlines(), 1):
        digest, _, name = line.partition("  ")
        if len(digest) != hashlib.sha256().digest_size * 2 or not name:
            raise DataError(f"{path}:{number}: expected '<sha256>  <path>', found {line[:80]!r}")
        hashes[name.removeprefix("./")] = digest
    return hashes


def _differences(stored: dict[str, str], found: dict[str, str]) -> Iterator[tuple[str, str]]:
    for path in stored.keys() - found.keys():
        yield path, "in the list of hashes, but not in the folder"
    for path, digest in found.items():
        if path not in stored:
            yield path, "not in the list of hashes"
        elif digest != stored[path]:
            yield path, f"sha256 is {digest[:12]}, the list says {stored[path][:12]}: its bytes have changed"


def main(argv: Sequence[str] | None = None) -> None:
    """The command. Prints one line per bad image; leaves with exit code 3 if there is any."""
    parser = argparse.ArgumentParser(prog="python -m engine.verify", description="Decode every image of a data set.")
    parser.add_argument("root", metavar="DIR", type=Path, help="folder of images, at any depth")
    parser.add_argument("--hashes", type=Path, metavar="FILE", help="compare with this sha256 list; written if absent")
    parser.add_argument("--num-workers", type=int, default=os.cpu_count() or 1, help="processes (default: all cores)")
    options = parser.parse_args(argv)
    with guard():
        writes = options.hashes is not None and not options.hashes.exists()
        bad = verify(options.root, hashes_path=options.hashes, num_workers=options.num_workers)
        for path, reason in bad:
            print(f"{path}: {reason}")
        if bad:
            kept = f"; {options.hashes} is not written" if writes else ""
            raise DataError(f"{options.root}: {len(bad):,} bad images, listed above{kept}. Fix or remove them")
        print(f"{options.root}: every image is good" + (f"; hashes written to {options.hashes}" if writes else ""))


if __name__ == "__main__":
    main()
