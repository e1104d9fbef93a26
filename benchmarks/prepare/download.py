"""One file from the network, only where the user asked for it: continued where it stopped, its size checked."""

import urllib.error
import urllib.request
from pathlib import Path

from rich.console import Console
from rich.progress import DownloadColumn, Progress, TransferSpeedColumn

from engine.errors import DataError
from engine.run.storage import storage_errors

_BLOCK = 1 << 20
_TIMEOUT_S = 60


def download(url: str, target: Path) -> None:
    """Fetch `url` into `target`; what an earlier try left in `<target>.partial` is continued.

    Raises:
        DataError: the server cannot be reached, refuses, or the transfer ends early.
        CheckpointError: the file cannot be written.
    """
    partial = target.with_name(f"{target.name}.partial")
    with storage_errors(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
        start = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
            if start and answer.status != 206:  # it sends the whole file again
                start = 0
            length = answer.headers.get("Content-Length")
            _store(answer, partial, start, start + int(length) if length else None)
    except urllib.error.HTTPError as error:
        raise DataError(f"{url}: the server answers {error.code} {error.reason}; download it by hand") from error
    except (urllib.error.URLError, TimeoutError, ConnectionError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise DataError(f"{url}: {reason}; the same command continues what there is of it") from error
    with storage_errors(target.parent):
        partial.replace(target)


def _store(answer: object, partial: Path, start: int, size: int | None) -> None:
    screen = Console(stderr=True)
    columns = (*Progress.get_default_columns(), DownloadColumn(), TransferSpeedColumn())
    done = start
    with (
        Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as progress,
        storage_errors(partial.parent),
        partial.open("ab" if start else "wb") as file,
    ):
        task = progress.add_task(partial.name.removesuffix(".partial"), total=size, completed=start)
        while block := answer.read(_BLOCK):  # type: ignore[attr-defined]
            file.write(block)
            done += len(block)
            progress.update(task, completed=done)
    if size is not None and done != size:
        raise DataError(
            f"{partial}: the transfer ended after {done:,} of {size:,} bytes; the same command continues it"
        )
