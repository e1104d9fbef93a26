"""Where a run happens: versions, device, git commit, memory."""

import contextlib
import importlib.metadata
import json
import platform
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from engine import distributed
from engine.run.checkpoint import SUITE_VERSION

PACKAGES = ("torch", "torchvision", "timm", "numpy", "pillow", "simplejpeg", "safetensors", "pandas")


def environment(device: torch.device, packages: Sequence[str] = ()) -> dict[str, Any]:
    """Versions, device, git commit and command line of this process.

    Args:
        device: of this rank.
        packages: what the task stands on beside PACKAGES, by the names they are installed under.
    """
    here = Path(__file__).parent
    commit = subprocess.run(
        ["git", "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()
    return {
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]] if sys.argv[0] else sys.argv,
        "git_commit": commit or None,
        "suite_version": SUITE_VERSION,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": f"{device.type}: {name}",
        "num_threads": torch.get_num_threads(),
        "world_size": distributed.world_size(),
        "versions": {name: version(name) for name in (*PACKAGES, *packages)},
    }


def version(package: str) -> str | None:
    """The installed version, with the commit where pip took it from a repository; None if it is not installed."""
    try:
        found = importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        return None
    commit = None
    with contextlib.suppress(ValueError, AttributeError):  # a record of another form than pip's
        commit = json.loads(found.read_text("direct_url.json") or "{}").get("vcs_info", {}).get("commit_id")
    return f"{found.version} (commit {commit})" if commit else found.version


def peak_memory_bytes(device: torch.device) -> int:
    """Most memory this process has held: on the GPU if it trains there, else resident."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


def cpu_name() -> str:
    """Model of the processor, as Linux names it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
