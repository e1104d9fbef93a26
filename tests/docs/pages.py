"""The commands and the Python of README and docs, as bash reads them, with its globs, variables and quotes."""

import os
import re
import shlex
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.helpers import ROOT

PAGES = ("README.md", "CONTRIBUTING.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")))
PROGRAMS = ("python", "mim", "make", "pip", "torchrun", "sudo")
"""What blocks may call. Any other program of a block ends the reading with bash's "command not found"."""

# Each program is a script that writes down its words and does nothing; `python -` is given its program on standard
# input. `source` is a word of bash itself.
_RECORD = r"""#!/bin/sh
{ printf '%s\0' "${0##*/}" "$@"; if [ "${1-}" = - ]; then cat; printf '\0'; fi; printf '\1'; } >>"$RECORD"
"""
_PRELUDE = r"""set -eu; source() { printf '%s\0' source "$@" >>"$RECORD"; printf '\1' >>"$RECORD"; }
"""


@dataclass(frozen=True)
class Said:
    """A command or a block of Python of a page."""

    page: str
    words: tuple[str, ...]
    """Of the command; of a block of Python what tests call it."""
    code: str = ""
    """What Python runs, of `python - <<END` or of a block, which goes on from the page's earlier ones."""

    def __str__(self) -> str:
        """As tests name it."""
        text = " ".join(self.words)
        return f"{self.page}: {text if len(text) < 160 else text[:160] + '...'}"


def blocks(page: str) -> list[tuple[str, str]]:
    """(language, text) of each fenced block that is commands or Python, in order."""
    return re.findall(r"^```(bash|sh|shell|console|python)\n(.*?)^```", (ROOT / page).read_text(), re.S | re.M)


@cache
def said(page: str) -> tuple[Said, ...]:
    """Everything that a page says to run, in its order."""
    found: list[Said] = []
    python: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in PROGRAMS:
            (Path(folder) / name).write_text(_RECORD)
            (Path(folder) / name).chmod(0o755)
        for language, text in blocks(page):
            if language == "python":
                python.append(text)
                found.append(Said(page, (f"Python {len(python)}",), "\n".join(python)))
            else:
                found += _of_block(page, text, Path(folder))
    return tuple(found)


def by_make(words: Sequence[str]) -> list[list[str]]:
    """The commands that `make TARGET ...` would run, as make says itself, but for making the environment."""
    command = ["make", "-n", "-o", ".venv/.complete", *words[1:]]
    env = {"PATH": os.environ["PATH"]}  # as typed, also where a make runs this test: not with its flags and variables
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.replace("\\\n", " ").replace(".venv/bin/", "").splitlines()
    return [shlex.split(part) for line in lines for part in line.split(" && ")]


def _of_block(page: str, text: str, programs: Path) -> list[Said]:
    record = programs / "record"
    record.write_text("")
    env = {"PATH": f"{programs}:{os.environ['PATH']}", "RECORD": str(record)}
    done = subprocess.run(["bash", "-c", _PRELUDE + text], cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, f"{page}: bash cannot read this block: {done.stderr}\n{text}"
    found = []
    for one in record.read_text().split("\1")[:-1]:
        words = one.split("\0")[:-1]
        has_code = "-" in words[1:2]
        found.append(Said(page, tuple(words[:-1] if has_code else words), words[-1] if has_code else ""))
    return found
