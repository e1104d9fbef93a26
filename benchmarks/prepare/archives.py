"""The files in a tar, a zip or a folder, one after another, without unpacking anything to the disk."""

import gzip
import io
import lzma
import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

from engine.errors import DataError

_DAMAGE = (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, tarfile.TarError, zipfile.BadZipFile)
_TARS = (".tar", ".tgz", ".tbz2", ".txz", ".tar.gz", ".tar.bz2", ".tar.xz")


@dataclass(frozen=True)
class Member:
    """One file of a source. One in an archive can be read only until the next is asked for.

    Args:
        name: its path in the source, with forward slashes.
        source: the archive or folder.
        start: opens it for reading.
        file: where it lies on the disk, None inside an archive.
    """

    name: str
    source: Path
    start: Callable[[], IO[bytes]]
    file: Path | None = None

    @contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """The file, open for reading.

        Raises:
            DataError: the archive ends early or is damaged.
        """
        with archive_errors(self.source), self.start() as file:
            yield file

    def read(self) -> bytes:
        """The whole file.

        Raises:
            DataError: the archive ends early or is damaged.
        """
        with self.open() as file:
            return file.read()


def members(source: Path) -> Iterator[Member]:
    """The regular files of an archive in its order, or of a folder by name. Links and devices are left out.

    Raises:
        DataError: it is neither, ends early, or is damaged.
    """
    with archive_errors(source):
        if source.is_dir():
            yield from _of_folder(source)
        elif zipfile.is_zipfile(source):
            with zipfile.ZipFile(source) as archive:
                for info in archive.infolist():
                    if not info.is_dir():
                        yield Member(_plain(info.filename), source, partial(archive.open, info))
        elif tarfile.is_tarfile(source):
            with tarfile.open(source) as archive:
                yield from of_tar(archive, source)
        elif source.is_file():
            if kind := _begun_as(source):
                raise DataError(
                    f"{source}: named or begun as a {kind}, but cannot be read as one: it ends early, is damaged or is "
                    f"something else; its size is {source.stat().st_size:,} bytes"
                )
            yield Member(source.name, source, partial(_opened, source), source)
        else:
            raise DataError(f"{source}: no such file or folder")


def _begun_as(source: Path) -> str:
    """Which archive a file that cannot be opened as one says it is, by its name or its first bytes; empty if none."""
    with source.open("rb") as file:
        start = file.read(4)
    if start == b"PK\x03\x04" or source.suffix.lower() == ".zip":
        return "zip"  # its table of contents stands at the end
    return "tar" if source.name.lower().endswith(_TARS) else ""


def of_tar(archive: tarfile.TarFile, source: Path) -> Iterator[Member]:
    """The regular files of an opened tar, which is, or is in, `source`."""
    for info in archive:
        if info.isreg():
            yield Member(_plain(info.name), source, partial(_extracted, archive, info))
        archive.members = []  # type: ignore[attr-defined]  # a million of them would stay in memory


def read_files(sources: Iterable[Path], wanted: Iterable[str], *, optional: bool = False) -> dict[str, bytes]:
    """Some files by the end of their path (`meta/train.json`), wherever in the sources they are.

    Args:
        sources: archives and folders, looked through in order until all are found.
        wanted: ends of paths.
        optional: whether some may be missing.

    Raises:
        DataError: one is not there; names what was looked for and where.
    """
    found: dict[str, bytes] = {}
    left = list(wanted)
    listed = list(sources)
    for source in listed:
        for member in members(source) if left else ():
            for ending in [ending for ending in left if f"/{member.name}".endswith(f"/{ending}")]:
                found[ending] = member.read()
                left.remove(ending)
            if not left:
                break
    if left and not optional:
        raise DataError(f"{', '.join(map(str, listed))}: there is no {' and no '.join(left)}")
    return found


def as_text(data: bytes, where: str) -> str:
    """The text of a file.

    Args:
        data: its bytes.
        where: what it is, for messages.

    Raises:
        DataError: it is none.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: not a text file ({error})") from error


@contextmanager
def archive_errors(source: Path) -> Iterator[None]:
    """Say of which archive something is wrong.

    Raises:
        DataError: for what the readers of archives raise at damaged or unreadable ones.
    """
    try:
        yield
    except _DAMAGE as error:
        raise DataError(
            f"{source}: the archive ends early or is damaged ({error or type(error).__name__}); its size is "
            f"{source.stat().st_size:,} bytes"
        ) from error
    except (RuntimeError, NotImplementedError) as error:  # zipfile: encrypted, or packed in a way it does not know
        raise DataError(f"{source}: the archive cannot be read ({error})") from error
    except OSError as error:
        if error.filename and Path(error.filename) != source:
            raise
        raise DataError(f"{source}: cannot be read ({error.strerror or error})") from error


def _of_folder(source: Path) -> Iterator[Member]:
    for folder, folders, names in os.walk(source):
        folders.sort()
        for name in sorted(names):
            path = Path(folder) / name
            if path.is_file():
                yield Member(path.relative_to(source).as_posix(), source, partial(_opened, path), path)


def _opened(path: Path) -> IO[bytes]:
    return path.open("rb")


def _extracted(archive: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    return archive.extractfile(info) or io.BytesIO()


def _plain(name: str) -> str:
    return name.removeprefix("./")
