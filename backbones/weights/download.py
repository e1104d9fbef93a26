"""One file from the network into a folder: continued where it stopped, whole or absent under its name."""

import contextlib
import fcntl
import os
import shutil
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http.client import BadStatusLine, HTTPException
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import DownloadColumn, Progress, TransferSpeedColumn

from backbones.errors import WeightsFileError

_BLOCK = 1 << 20
_TIMEOUT_S = 60
_TRIES = 3
_PAUSE_S = 1.0


class _Interrupted(Exception):
    """The transfer ended early: the next try continues it."""


def download(url: str, target: Path, wrong: Callable[[Path], str]) -> None:
    """Fetch `url` into `target`, with a progress bar on a terminal; a transfer that ended early is continued, now or by
    the next call, from `<target>.partial`.

    A server that says that the file has changed since (ETag), or that cannot continue, sends all of it again. `wrong`
    tells of the whole file what it is not, "" if nothing is wrong with it.

    Raises:
        WeightsFileError: the server cannot be reached, refuses, or sends a page or a wrong file, which is
            removed; or the disk is full.
    """
    partial = target.with_name(f"{target.name}.partial")
    for number in range(_TRIES):
        if number:
            time.sleep(_PAUSE_S)
        try:
            _transfer(url, partial)
        except _Interrupted as error:
            reason = str(error)
            continue
        except OSError as error:  # of the disk: those of the network are told above
            raise WeightsFileError(f"{partial} cannot be written: {error.strerror or error}.") from error
        _tag(partial).unlink(missing_ok=True)
        if reason := wrong(partial):
            partial.unlink()
            raise WeightsFileError(f"what {url} gave is not {reason}. It was removed.")
        partial.replace(target)
        return
    raise WeightsFileError(f"{url}: {reason}.")


@contextlib.contextmanager
def only_one(target: Path) -> Iterator[None]:
    """Let the processes of this machine that want the same file fetch it one after the other, so that one does.

    On storage without locks, or that cannot be written, they do not wait for each other.
    """
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            file = stack.enter_context(target.with_name(f".{target.name}.lock").open("w"))
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _tag(partial: Path) -> Path:
    return partial.with_name(f"{partial.name}.etag")


def _transfer(url: str, partial: Path) -> None:
    """Fetch what `partial` lacks; raises _Interrupted where that can be tried again."""
    start = partial.stat().st_size if partial.exists() else 0
    headers = {"User-Agent": "mim-benchmark"}  # some servers refuse that of Python's library
    if start:
        headers["Range"] = f"bytes={start}-"
    if start and _tag(partial).exists():
        headers["If-Range"] = _tag(partial).read_text()
    try:
        answer = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # there is nothing behind what is here: it may be another file's
            partial.unlink()
            raise _Interrupted("the file there is shorter than what came before") from error
        if error.code >= 500:
            raise _Interrupted(f"the server answers {error.code} {error.reason}") from error
        raise WeightsFileError(f"{url}: the server answers {error.code} {error.reason}.") from error
    except (urllib.error.URLError, HTTPException, ConnectionError, TimeoutError, ValueError) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, (ConnectionResetError, TimeoutError, BadStatusLine)):
            raise _Interrupted(f"the server does not answer ({reason})") from error
        raise WeightsFileError(f"{url} cannot be reached: {reason}.") from error
    with answer:
        if answer.headers.get_content_type() == "text/html":
            raise WeightsFileError(f"{url}: the server sends a web page instead of the file.")
        start = start if answer.status == 206 else 0
        _remember(answer.headers.get("ETag"), partial)
        length = answer.headers.get("Content-Length")
        _store(answer, partial, start, None if length is None else start + int(length))


def _remember(etag: str | None, partial: Path) -> None:
    if etag and not etag.startswith("W/"):  # a weak one does not hold for parts
        _tag(partial).write_text(etag)
    else:
        _tag(partial).unlink(missing_ok=True)


def _store(answer: Any, partial: Path, start: int, size: int | None) -> None:
    name, done = partial.name.removesuffix(".partial"), start
    screen = Console(stderr=True)
    if not screen.is_terminal:
        print(f"fetching {name}" + (f", {size / 1e6:.0f} MB" if size else ""), file=sys.stderr, flush=True)
    columns = (*Progress.get_default_columns(), DownloadColumn(), TransferSpeedColumn())
    with (
        Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as progress,
        partial.open("r+b" if start else "wb") as file,
    ):
        file.seek(start)
        free = shutil.disk_usage(partial.parent).free
        if size is not None and size - start > free:
            raise WeightsFileError(
                f"no space for {name} in {partial.parent}: {size - start:,} bytes are to come, {free:,} are free."
            )
        bar = progress.add_task(name, total=size, completed=start)
        while block := _read(answer):
            file.write(block)
            done += len(block)
            progress.update(bar, completed=done)
        file.flush()
        os.fsync(file.fileno())
    if size is not None and done != size:
        raise _Interrupted(f"the transfer ended after {done:,} of {size:,} bytes")


def _read(answer: Any) -> bytes:
    """The next block."""
    try:
        return bytes(answer.read(_BLOCK))
    except (HTTPException, OSError) as error:
        raise _Interrupted(f"the connection broke ({error})") from error
