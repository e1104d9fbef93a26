"""One process per run folder: run.lock names the owner, and a dead owner's lock is taken over."""

import fcntl
import json
import logging
import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from engine.errors import ConfigError

log = logging.getLogger("mim")


def take(run_dir: Path) -> None:
    """Become the owner of a run folder.

    Raises:
        ConfigError: a living process owns it; names host, pid and start time.
        OSError: the folder cannot be written.
    """
    path = run_dir / "run.lock"
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)  # held for the check-and-write only
            if os.fstat(handle).st_nlink == 0:  # the owner before us removed the file while we waited
                continue
            content = os.read(handle, 4096)
            if content.strip():
                _refuse_if_alive(path, json.loads(content))
            os.ftruncate(handle, 0)
            os.pwrite(handle, json.dumps(identity()).encode(), 0)
            return
        finally:
            os.close(handle)


def release(run_dir: Path) -> None:
    """Give a run folder back."""
    (run_dir / "run.lock").unlink(missing_ok=True)


def owner(run_dir: Path) -> dict[str, Any] | None:
    """Host, pid and start time of the process that holds the folder, or None."""
    path = run_dir / "run.lock"
    content = path.read_text() if path.is_file() else ""
    return dict(json.loads(content)) if content.strip() else None


def identity() -> dict[str, Any]:
    """This process, as an owner of run folders."""
    return {
        "host": platform.node(),
        "pid": os.getpid(),
        "process_start": _process_start(os.getpid()),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "slurm_job": os.environ.get("SLURM_JOB_ID"),
    }


def _process_start(pid: int) -> str | None:
    """Start time of a process in clock ticks since boot, to tell it from a later one with the same number."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]
    except (OSError, IndexError):
        return None


def alive(holder: dict[str, Any]) -> bool:
    """Whether a lock's owner may still be running. On another host nobody can tell, so it counts as alive, unless
    Slurm has started this very job again, which it does only when the first attempt is over."""
    job = os.environ.get("SLURM_JOB_ID")
    if holder["host"] != platform.node():
        return not (job and job == holder.get("slurm_job"))
    try:
        os.kill(holder["pid"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return holder.get("process_start") in (None, _process_start(holder["pid"]))


def _refuse_if_alive(path: Path, holder: dict[str, Any]) -> None:
    if holder["pid"] == os.getpid() and holder["host"] == platform.node():
        raise ConfigError(f"{path.parent} is already open in this process")
    if alive(holder):
        raise ConfigError(
            f"{path.parent} is in use by process {holder['pid']} on {holder['host']} since {holder['started']}: "
            f"wait for it, stop it, or, if it is gone, delete {path}"
        )
    log.warning("taking over %s: process %s on %s is gone", path, holder["pid"], holder["host"])
