"""Run commands as a user would, and compare run folders byte for byte."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent


def environment(**more: str) -> dict[str, str]:
    keep = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SUBMITIT_"))}
    return {**keep, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MIM_TRACKERS": "", **more}


def run_python(*arguments: Any, timeout: float = 120, cwd: Path = ROOT, **env: str) -> subprocess.CompletedProcess[str]:
    """`python ...` to its end in a process of its own."""
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=timeout, env=environment(**env), cwd=cwd, check=False
    )


def run_module(*arguments: Any, timeout: float = 120, **env: str) -> subprocess.CompletedProcess[str]:
    """`python -m ...` to its end."""
    return run_python("-m", *arguments, timeout=timeout, **env)


def run_code(code: str, *arguments: Any, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """A program to its end, which must be a good one."""
    done = run_python("-c", code, *arguments, timeout=timeout)
    assert done.returncode == 0, done.stderr
    return done


def on_ranks(num_ranks: int) -> list[str]:
    """What stands between `python` and `-m MODULE` or a script, so that this many processes of this machine run it."""
    launcher = ["torch.distributed.run", f"--nproc-per-node={num_ranks}"]
    return ["-m", *launcher, "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0"]


def start_python(*arguments: Any, **env: str) -> subprocess.Popen[str]:
    """`python ...` in a process group of its own, to be signalled; what it prints is dropped, its errors are kept."""
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        env=environment(**env),
        cwd=ROOT,
        text=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
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
