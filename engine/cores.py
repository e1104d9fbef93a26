"""How many processor cores this process may use: fewer than the machine has in a container or a job."""

import math
import os
from pathlib import Path

QUOTAS = (("/sys/fs/cgroup/cpu.max",), ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "/sys/fs/cgroup/cpu/cpu.cfs_period_us"))
"""Where the kernel says a container's quota, in microseconds of each period: cgroup v2 in one file, v1 in two."""


def allowed_cores() -> int:
    """The cores that the container's quota leaves this process, rounded up; as many as it may run on without one."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for files in QUOTAS:
        try:
            quota, period = " ".join(Path(file).read_text() for file in files).split()
            if (cores := int(quota) / int(period)) > 0:
                return min(affinity, max(math.ceil(cores), 1))
        except (OSError, ValueError):  # no such file, or "max"
            continue
    return affinity
