"""A command in a fork of this process, which has imported torch already: seconds less than in a process of its own, and
nothing that it changes (folder, environment, signals, arguments) is left behind here."""

import contextlib
import importlib
import os
import runpy
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from logging import root
from pathlib import Path

import pytest
import torch

from benchmarks import pipeline
from tests.helpers import environment

BEFORE = (
    *("pretrain.train", "classification.train", "detection.train", "segmentation.train", "evaluation.run"),
    *("analysis.compare", "results.__main__", "results.page.report", "benchmarks.run", "mmseg.apis"),
)


def prepare() -> None:
    """Import what commands take seconds to import, once, for all forks."""
    for name in BEFORE:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    torch.set_num_threads(1)


def call(action: Callable[[], object], folder: Path, log: Path, *, seconds: float = 300, **env: str) -> tuple[int, str]:
    """Exit code and output of a function in a fork of this process.

    Args:
        action: what it does; a SystemExit is its exit code, any other exception 1.
        folder: where it runs.
        log: file for what it prints, standard output and errors together; appended to.
        seconds: after which it is killed.
        env: variables beside those of every test's command.
    """
    if torch.cuda.is_available():
        pytest.skip("a process that has seen a GPU cannot be forked")
    at = log.stat().st_size if log.exists() else 0
    child = os.fork()
    if not child:
        code = 1
        try:
            _become(folder, log, environment(**env))
            code = _leave(action)
        finally:
            os._exit(code)
    return _wait(child, seconds), log.read_bytes()[at:].decode(errors="replace")


def module(name: str, *arguments: str) -> Callable[[], object]:
    """`python -m NAME ARGUMENT ...`, to be called."""

    def run() -> None:
        sys.argv = [name, *arguments]
        sys.path.insert(0, "")
        pipeline.Children = Forks  # type: ignore[misc]
        runpy.run_module(name, run_name="__main__", alter_sys=True)

    return run


def _become(folder: Path, log: Path, env: Mapping[str, str]) -> None:
    os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(env)
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 1)
    os.dup2(1, 2)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.stdin = os.fdopen(0, closefd=False)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))
    root.handlers.clear()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, signal.SIG_DFL)


def _leave(action: Callable[[], object]) -> int:
    code: object = 0
    try:
        action()
    except SystemExit as left:
        code = left.code
        if isinstance(code, str):
            print(code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code if isinstance(code, int) else int(code is not None)


def _wait(child: int, seconds: float) -> int:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    raise AssertionError(f"still running after {seconds:.0f} s")


class Forks(pipeline.Children):
    """The processes of a graph of runs as forks too; what each does is the command that it would be a process of."""

    def start(self, name: str, command: list[str], folder: Path) -> None:
        """Start a stage; its output goes to its run folder."""
        assert command[1] == "-m"
        child = os.fork()
        if not child:
            code = 1
            try:
                _become(Path.cwd(), folder / "output.log", dict(os.environ))
                code = _leave(module(*command[2:]))
            finally:
                os._exit(code)
        self.running[name] = child  # type: ignore[assignment]

    def ended(self) -> Iterator[tuple[str, int]]:
        """The stages that ended since the last call, with their exit codes."""
        for name, child in list(self.running.items()):
            ended, status = os.waitpid(child, os.WNOHANG)  # type: ignore[arg-type]
            if ended:
                del self.running[name]
                yield name, os.waitstatus_to_exitcode(status)
