"""Run commands as a user would, and compare run folders byte for byte."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def environment(**more: str) -> dict[str, str]:
    keep = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SUBMITIT_"))}
    return {**keep, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MIM_TRACKERS": "", **more}


def run_module(*arguments: str, timeout: float = 120, **env: str) -> subprocess.CompletedProcess[str]:
    """`python -m ...` in a process of its own."""
    command = [sys.executable, "-m", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=timeout, env=environment(**env), cwd=ROOT, check=False
    )


def final_files(run_dir: Path) -> dict[str, bytes]:
    """What must be the same bytes for a resumed and an undisturbed run."""
    newest = sorted((run_dir / "checkpoints").glob("[0-9]*"))[-1]
    files = {f"{newest.name}/{p.name}": p.read_bytes() for p in newest.iterdir()}
    for name in ("metrics.jsonl", "backbone.safetensors", "config.json"):
        if (run_dir / name).exists():
            files[name] = (run_dir / name).read_bytes()
    return files


def assert_same_bytes(one: Path, other: Path) -> None:
    first, second = final_files(one), final_files(other)
    assert first.keys() == second.keys()
    different = [name for name in first if first[name] != second[name]]
    assert not different, f"{one} and {other} differ in {different}"
