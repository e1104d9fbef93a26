"""Where a run happens: versions, device, git commit, memory. What cannot be found out is None: it never stops a run."""

import contextlib
import functools
import importlib.metadata
import json
import logging
import platform
import resource
import subprocess
import sys
import urllib.parse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from engine import distributed
from engine.run.checkpoint import SUITE_VERSION

PACKAGES = ("torch", "torchvision", "timm", "numpy", "pillow", "simplejpeg", "safetensors", "pandas")


GIT_TIMEOUT_S = 10

log = logging.getLogger("mim")


def environment(device: torch.device, packages: Sequence[str] = ()) -> dict[str, Any]:
    """Versions, device, git commit and command line of this process; None for what is not known.

    Args:
        device: of this rank.
        packages: what the task stands on beside PACKAGES, by the names they are installed under.
    """
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()
    return {
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]] if sys.argv[0] else sys.argv,
        "git_commit": git_commit(),
        "suite_version": SUITE_VERSION,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": f"{device.type}: {name}",
        "num_threads": torch.get_num_threads(),
        "world_size": distributed.world_size(),
        "versions": {name: version(name) for name in (*PACKAGES, *packages)},
    }


@functools.cache
def git_commit(folder: Path = Path(__file__).parent) -> str | None:
    """The commit a folder is at, by default this code's; None if it is in no repository, or git is not there or
    refuses."""
    command = ["git", "-C", str(folder), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=GIT_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        log.warning("git cannot be asked for the commit, which is recorded as unknown: %s", error)
        return None
    return done.stdout.strip() or None


@functools.cache
def version(package: str) -> str | None:
    """The installed version, with the commit where pip took it from a repository or a clone of one; None if the package
    is not installed, or was without its metadata."""
    commit = None
    try:
        found = importlib.metadata.distribution(package)
        known = found.version
        with contextlib.suppress(ValueError, AttributeError):  # a record of another form than pip's
            commit = _commit(json.loads(found.read_text("direct_url.json") or "{}"))
    except (importlib.metadata.PackageNotFoundError, KeyError, OSError):
        if package in PACKAGES:  # it is imported, so it is there
            log.warning("no metadata of the package %s: its version is recorded as unknown", package)
        return None
    return f"{known} (commit {commit})" if commit else known


def _commit(origin: dict[str, Any]) -> str | None:
    """The commit of what pip installed from `origin`, as its direct_url.json says; of a clone, the one it is at now."""
    if known := origin.get("vcs_info", {}).get("commit_id"):
        return str(known)
    folder = Path(urllib.parse.unquote(urllib.parse.urlparse(origin.get("url", "")).path))
    is_clone = "dir_info" in origin and (folder / ".git").exists()
    return git_commit(folder) if is_clone else None


def peak_memory_bytes(device: torch.device) -> int:
    """Most memory this process has held: on the GPU if it trains there, else resident."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


def cpu_name() -> str:
    """Model of the processor, as Linux names it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
