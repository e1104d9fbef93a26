"""Processes that carry out one run after another, for graphs of many small runs. Their inside: benchmarks/worker.py."""

import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.pipeline import Children


class Workers(Children):
    """As Children, but a process is kept for the next run. One that dies gives its run its exit code, and another takes
    its place."""

    def __init__(self, parallel: int, threads: int) -> None:
        super().__init__(parallel, threads)
        self._idle: list[subprocess.Popen[bytes]] = []

    @contextmanager
    def forwarding_signals(self) -> Iterator[None]:
        """Pass signals on in this block, and end the processes with it."""
        try:
            with super().forwarding_signals():
                yield
        finally:
            for process in [*self._idle, *self.running.values()]:
                assert process.stdin is not None
                process.stdin.close()  # it leaves when nothing more can come
            for process in self._idle:
                process.wait()

    def start(self, name: str, command: list[str], folder: Path) -> None:
        """Give a command (python -m package arguments) to a process."""
        process = self._idle.pop() if self._idle else self._new()
        self.running[name] = process
        task = {"package": command[2], "arguments": command[3:], "output": str(folder / "output.log")}
        assert process.stdin is not None
        try:
            process.stdin.write(f"{json.dumps(task)}\n".encode())
            process.stdin.flush()
        except BrokenPipeError:  # it died while idle; `ended` will see that
            pass

    def ended(self) -> Iterator[tuple[str, int]]:
        """The runs that ended since the last call, with their exit codes."""
        for name, process in list(self.running.items()):
            assert process.stdout is not None
            if not select.select([process.stdout], [], [], 0)[0]:
                continue
            answer = process.stdout.readline()
            del self.running[name]
            if answer:
                self._idle.append(process)
                yield name, int(answer)
            else:
                yield name, process.wait()

    def _new(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # a Ctrl-C on the terminal reaches it once, through us
            env=self._environment | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
