"""One process per run folder. The owner holds an operating-system lock on run.lock for life, and the file says who it
is: the kernel knows whether it still runs, however many containers and process namespaces share the folder.

Where the file system has no such locks, and for an owner that had none, the file alone decides.
"""

import contextlib
import errno
import fcntl
import json
import logging
import os
import platform
import stat
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from engine.errors import ConfigError

log = logging.getLogger("mim")

NO_FLOCK = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL}
_HEIRS_LEAVE_S = 5.0  # loader workers of a killed owner inherited its lock and end with it, but not in the same instant
_SETTLE_S = 0.2  # how long two starts without flock may overlap unnoticed

_held: dict[Path, int] = {}  # run.lock -> descriptor whose lock this process holds, -1 where there are none


def take(run_dir: Path) -> None:
    """Become the owner of a run folder, until `release` or the end of the process.

    Raises:
        ConfigError: a process owns it that runs, or of which nobody can tell; names host, pid and start time.
        OSError: the folder cannot be written.
    """
    path = (run_dir / "run.lock").absolute()
    if path in _held:
        raise ConfigError(f"{run_dir} is already open in this process")
    handle = _open_locked(path)
    flock = handle >= 0
    try:
        _refuse_if_alive(path, _read(path), flock)
        mine = {**identity(), "flock": flock}
        _write(path, mine)
        if not flock:
            _settle(path, mine)
    except BaseException:
        if flock:
            os.close(handle)
        raise
    _held[path] = handle


def release(run_dir: Path) -> None:
    """Give a run folder back. Never raises: it is called where another error may be on its way."""
    path = (run_dir / "run.lock").absolute()
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        log.warning("cannot remove %s (%s); the next start finds its owner gone", path, error.strerror)
    handle = _held.pop(path, -1)
    if handle >= 0:
        os.close(handle)


def owner(run_dir: Path) -> dict[str, Any] | None:
    """Who holds the folder (`identity`), or None; None too if run.lock is not one of ours."""
    return _read(run_dir / "run.lock") or None


def identity() -> dict[str, Any]:
    """This process, as an owner of run folders."""
    return {
        "host": platform.node(),
        "pid": os.getpid(),
        "process_start": _process_start(os.getpid()),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "slurm_job": os.environ.get("SLURM_JOB_ID"),
        **_place(),
    }


def alive(holder: dict[str, Any]) -> bool:
    """Whether a lock's owner may still be running. On another machine, or in another container, nobody can tell by its
    number, so it counts as alive, unless Slurm has started this very job again, which it does only when the first
    attempt is over, or this machine was started again since."""
    job = os.environ.get("SLURM_JOB_ID")
    if job and job == holder.get("slurm_job") and holder["host"] != platform.node():
        return False
    here = _place()
    if holder["host"] != platform.node():
        return True
    if _differ(holder.get("boot"), here["boot"]):  # this machine before it was restarted, or another of the same name
        return not (here["machine"] and holder.get("machine") == here["machine"])
    if _differ(holder.get("namespace"), here["namespace"]):
        return True
    return _runs(holder["pid"]) and holder.get("process_start") in (None, _process_start(holder["pid"]))


def _open_locked(path: Path) -> int:
    """A descriptor of run.lock with its lock held, or -1 where the file system has none.

    Raises:
        ConfigError: another process holds it, or the file is none.
    """
    deadline = time.monotonic() + _HEIRS_LEAVE_S
    mode = os.O_RDONLY  # open for writing it would keep the file system from being made read-only
    while True:
        handle, locked = os.open(path, mode | os.O_CREAT | os.O_NONBLOCK, 0o644), False
        try:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise ConfigError(f"{path} is not a file: remove it, or choose another run folder")
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            locked = os.fstat(handle).st_ino == path.stat().st_ino
            if locked:
                return handle
        except BlockingIOError:
            holder = _read(path)
            if not holder or alive(holder) or time.monotonic() > deadline:
                raise ConfigError(_in_use(path, holder)) from None
            time.sleep(0.05)
        except OSError as error:
            if error.errno in NO_FLOCK:
                log.warning("%s: its file system has no flock; do not start a run on two machines at once", path.parent)
                return -1
            # The owner before us removed the file just now; or this is NFS, which locks what is open for writing only.
            if error.errno != errno.ENOENT and (error.errno, mode) != (errno.EBADF, os.O_RDONLY):
                raise
            mode = mode if error.errno == errno.ENOENT else os.O_RDWR
        finally:
            if not locked:
                os.close(handle)


def _read(path: Path) -> dict[str, Any]:
    """What run.lock says; {} if there is none, or it is not to be read."""
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            return _parse(os.pread(handle, 4096, 0))
        finally:
            os.close(handle)
    return {}


def _write(path: Path, holder: dict[str, Any]) -> None:
    handle = os.open(path, os.O_WRONLY)
    try:
        os.ftruncate(handle, os.pwrite(handle, json.dumps(holder).encode(), 0))
    finally:
        os.close(handle)


def _parse(content: bytes) -> dict[str, Any]:
    """An owner, or {} if there is none or it is not to be read (torn by a power cut, for instance)."""
    with contextlib.suppress(ValueError, RecursionError):
        found = json.loads(content)
        wanted = {"host": str, "pid": int, "started": str}
        if isinstance(found, dict) and all(isinstance(found.get(name), kind) for name, kind in wanted.items()):
            return found
    return {}


def _refuse_if_alive(path: Path, holder: dict[str, Any], flock: bool) -> None:
    if not holder:
        return
    # With the lock in our hands, an owner that held it under the same kernel is gone, whatever its number says here.
    gone = flock and holder.get("flock") and holder.get("boot") is not None and holder["boot"] == _place()["boot"]
    if not gone and alive(holder):
        raise ConfigError(_in_use(path, holder))
    log.warning("taking over %s: process %s on %s is gone", path, holder["pid"], holder["host"])


def _in_use(path: Path, holder: dict[str, Any]) -> str:
    if not holder:
        return f"{path.parent} is in use: another process holds {path}. Wait for it or stop it"
    if not alive(holder):
        return (
            f"{path.parent} is in use: process {holder['pid']} on {holder['host']} is gone, but one that it started "
            f"still holds {path}. Wait for it or stop it"
        )
    where = ""
    if _differ(holder.get("namespace"), _place()["namespace"]) and holder["host"] == platform.node():
        where = " in another container,"
    return (
        f"{path.parent} is in use by process {holder['pid']} on {holder['host']}{where} since {holder['started']}: "
        f"wait for it, stop it, or, if it is gone, delete {path}"
    )


def _settle(path: Path, mine: dict[str, Any]) -> None:
    """Without flock two starts may both have found the folder free: the last to write its name is the owner."""
    time.sleep(_SETTLE_S)
    found = _read(path)
    if found != mine:
        raise ConfigError(_in_use(path, found))


def _place() -> dict[str, Any]:
    """Which start of which machine, and which process namespace (container) on it; None where that is not told."""
    with contextlib.suppress(OSError):
        return {
            "boot": _first_line("/proc/sys/kernel/random/boot_id"),
            "machine": _first_line("/etc/machine-id"),
            "namespace": str(Path("/proc/self/ns/pid").readlink()),
        }
    return {"boot": None, "machine": None, "namespace": None}


def _first_line(path: str) -> str | None:
    try:
        return Path(path).read_text(errors="replace").strip() or None
    except OSError:
        return None


def _differ(one: Any, other: Any) -> bool:
    return one is not None and other is not None and one != other


def _runs(pid: int) -> bool:
    """Whether a process of this namespace runs; one that ended and was not yet waited for does not."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return _stat(pid)[:1] != ["Z"]


def _process_start(pid: int) -> str | None:
    """Start time of a process in clock ticks since boot, to tell it from a later one with the same number."""
    fields = _stat(pid)
    return fields[19] if len(fields) > 19 else None


def _stat(pid: int) -> list[str]:
    """The fields of /proc/<pid>/stat from the third, its state; empty where there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return []
