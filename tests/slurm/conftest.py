"""The cluster that these tests start, and the environment that reaches it."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster, missing

OUTER = ("SLURM_", "SLURMD_", "SRUN_", "SBATCH_", "SUBMITIT_", "MASTER_", "WORLD_SIZE", "RANK", "LOCAL_RANK")


@pytest.fixture(scope="session")
def _cluster() -> Iterator[Cluster]:
    reason = missing()
    if reason:
        pytest.skip(reason)
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder:  # pytest's own folders are too long for a socket
        cluster = Cluster(Path(folder) / "c")
        try:
            yield cluster.start()
        finally:
            cluster.stop()


@pytest.fixture(scope="module")
def slurm(_cluster) -> Iterator[Cluster]:
    """A Slurm that the commands of this module's tests find."""
    with pytest.MonkeyPatch.context() as patch:
        clean(patch)
        for name, value in _cluster.environment.items():
            patch.setenv(name, value)
        yield _cluster


@pytest.fixture
def no_slurm(monkeypatch, tmp_path) -> None:
    """A machine without Slurm, even where it is installed."""
    clean(monkeypatch)
    kept = tmp_path / "path"
    kept.mkdir()
    for tool in ("bash", "env", "sh", "git"):
        place = next((Path(folder, tool) for folder in os.get_exec_path() if Path(folder, tool).exists()), None)
        if place:
            (kept / tool).symlink_to(place)
    monkeypatch.setenv("PATH", str(kept))


def clean(patch: pytest.MonkeyPatch) -> None:
    """Hide a job that the tests may run in; one thread and no curves, as in tests/helpers.py."""
    for name in list(os.environ):
        if name.startswith(OUTER):
            patch.delenv(name)
    patch.setenv("OMP_NUM_THREADS", "1")
    patch.setenv("MIM_TRACKERS", "")
