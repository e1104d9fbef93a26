"""What a person is told when a run ends: where its weights are, the lines of Python that load them, the likely next
command; and for one that was stopped, the command that resumes it."""

import os
import shlex
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class After:
    """What a finished run is good for."""

    weights: Path
    """The file to take along."""
    python: Sequence[str]
    """Lines that load it, each a statement."""
    command: Sequence[str]
    """Words of the command that usually follows."""

    def __str__(self) -> str:
        """As it is printed."""
        code = textwrap.indent("\n".join(self.python), "    ")
        return f"weights: {self.weights}\nin Python:\n{code}\nnext:\n    {shlex.join(self.command)}"


def python_module(module: str, *words: object) -> list[str]:
    """`python -m MODULE WORD ...`, with this Python as its user calls it."""
    return ["python", "-m", module, *map(str, words)]


def resume_command(package: str, run_dir: Path) -> str:
    """The command that goes on with a run from its own config.json, on as many processes of this machine as now."""
    return launched(python_module(package, run_dir / "config.json", "--run-dir", run_dir, "--resume"))


def launched(words: Sequence[str]) -> str:
    """`python -m ...` as a command line, through torchrun where this process was started so."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        ranks = os.environ.get("LOCAL_WORLD_SIZE", "1")
        several_machines = os.environ.get("LOCAL_WORLD_SIZE") != os.environ.get("WORLD_SIZE")
        launcher = ["torchrun", *([] if several_machines else ["--standalone"]), f"--nproc-per-node={ranks}"]
        words = [*launcher, *words[1:]]
    return shlex.join(words)
