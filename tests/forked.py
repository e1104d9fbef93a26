"""A command in a fork of this process, which has imported torch already: seconds less than in a process of its own, and
nothing that it changes (folder, environment, signals, arguments) is left behind here."""

import contextlib
import importlib
import multiprocessing
import os
import runpy
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from logging import root
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import torch

from benchmarks import pipeline
from tests.helpers import ROOT, environment

BEFORE = (
    *("pretrain.train", "classification.train", "detection.train", "segmentation.train", "evaluation.run"),
    *("analysis.compare", "results.__main__", "results.page.report", "benchmarks.run", "mmseg.apis"),
)


FORK = multiprocessing.get_context("fork")


def prepare() -> None:
    """Import what commands take seconds to import, once, for all forks."""
    for name in BEFORE:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    torch.set_num_threads(1)


def call(
    action: Callable[[], object], folder: Path, output: Path, errors: Path, *, seconds: float = 300, **env: str
) -> int:
    """Exit code of a function in a fork of this process.

    Args:
        action: what it does; a SystemExit is its exit code, any other exception 1.
        folder: where it runs.
        output: file for what it prints; appended to.
        errors: likewise for its errors; may be the same.
        seconds: after which it is killed.
        env: variables beside those of every test's command.
    """
    return _wait(_begin(action, folder, (output, errors), env), seconds)


def run_module(
    name: str, *arguments: object, ranks: int = 1, seconds: float = 120, **env: str
) -> CompletedProcess[str]:
    """`python -m NAME ARGUMENT ...` to its end, on as many ranks, without the seconds that torch takes to be imported.

    The exit code is the first that is not 0; the ranks' outputs come one after another.
    """
    words = [str(argument) for argument in arguments]
    places: list[dict[str, str]] = [{}]
    if ranks > 1:
        shared = {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
        places = [{**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(ranks)]
    with tempfile.TemporaryDirectory() as folder:
        files = [(Path(folder) / f"output{rank}", Path(folder) / f"errors{rank}") for rank in range(ranks)]
        children = [
            _begin(module(name, *words), ROOT, two, {**env, **place}) for two, place in zip(files, places, strict=True)
        ]
        codes = [_wait(child, seconds) for child in children]
        output, errors = ("".join(path.read_text() for path in paths) for paths in zip(*files, strict=True))
        return CompletedProcess([name, *words], next((code for code in codes if code), 0), output, errors)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _begin(action: Callable[[], object], folder: Path, files: tuple[Path, Path], env: Mapping[str, str]) -> int:
    """Start a function in a fork; the number of its process."""
    if torch.cuda.is_available():
        pytest.skip("a process that has seen a GPU cannot be forked")
    child = os.fork()
    if not child:
        code = 1
        try:
            _become(folder, *files, environment(**env))
            code = _leave(action)
        finally:
            os._exit(code)
    return child


def module(name: str, *arguments: str) -> Callable[[], object]:
    """`python -m NAME ARGUMENT ...`, to be called."""

    def run() -> None:
        sys.modules.pop(name, None)
        sys.modules.pop(f"{name}.__main__", None)
        sys.argv = [name, *arguments]
        sys.path.insert(0, "")
        pipeline.Children = Forks  # type: ignore[misc]
        multiprocessing.get_context = lambda method=None: FORK
        runpy.run_module(name, run_name="__main__", alter_sys=True)

    return run


def _become(folder: Path, output: Path, errors: Path, env: Mapping[str, str]) -> None:
    os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(env)
    for number, path in ((1, output), (2, errors)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.stdin = os.fdopen(0, closefd=False)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))
    root.handlers.clear()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGUSR2):
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
                _become(Path.cwd(), folder / "output.log", folder / "output.log", dict(os.environ))
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
