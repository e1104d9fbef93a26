"""`python -m benchmarks.worker`: a process that carries out runs one after another, as benchmarks/workers.py tells it.

Importing torch and timm takes longer than many a small run, so it is done once. A run is otherwise the command that
`python -m <package>` is: its output goes to output.log of its folder, and its exit code is what is answered.
"""

import gc
import importlib
import json
import os
import signal
import sys
from pathlib import Path

import timm  # noqa: F401  the seconds that are saved
import torch  # noqa: F401

from engine import cli
from engine.training.stop import STOP_SIGNALS


def run(package: str, arguments: list[str], output: Path) -> int:
    """The exit code of `python -m package arguments`, its output appended to a file."""
    with output.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.argv = [f"{package}/__main__.py", *arguments]  # as the run's environment.json records it
    code: object = 0
    try:
        cli.main(package, importlib.import_module(f"{package}.recipes").RECIPES, argv=arguments)
    except SystemExit as left:
        code = left.code
    sys.stdout.flush()
    sys.stderr.flush()
    for number in STOP_SIGNALS:  # a finished command ignores them
        signal.signal(number, signal.SIG_DFL)
    gc.collect()  # models hold themselves in circles
    return code if isinstance(code, int) else int(code is not None)


def main() -> None:
    """Carry out what standard input says, a JSON object {package, arguments, output} a line, until it ends."""
    with os.fdopen(os.dup(1), "w") as answers:
        for line in sys.stdin:
            print(run(**{**(task := json.loads(line)), "output": Path(task["output"])}), file=answers, flush=True)


if __name__ == "__main__":
    main()
