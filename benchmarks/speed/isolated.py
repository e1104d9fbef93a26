"""A contender in a process of its own: for settings that hold for a whole process."""

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

from benchmarks.speed.timing import Contender
from engine.allocator import keep_freed_memory


@contextmanager
def isolated(make: Callable[[], Contender], *, keep_memory: bool) -> Iterator[Contender]:
    """Make a contender in a new process and run it there; the process ends with the block.

    Args:
        make: anything that can be pickled; called once, in that process.
        keep_memory: whether that process keeps freed memory, as training runs on a CPU do.

    Raises:
        RuntimeError: the contender failed in its process, which has printed why.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, make, keep_memory), daemon=True)
    process.start()
    theirs.close()  # so that its end is seen as the end of the pipe
    try:
        yield Contender(name=_received(ours), run=lambda: _asked(ours))
    finally:
        ours.close()
        process.join()


def _asked(connection: Connection) -> float:
    connection.send("run")
    seconds: float = _received(connection)
    return seconds


def _received(connection: Connection) -> Any:
    try:
        return connection.recv()
    except EOFError as error:
        raise RuntimeError("a contender's process ended before its answer; its own message is above") from error


def _serve(connection: Connection, make: Callable[[], Contender], keep_memory: bool) -> None:
    if keep_memory:
        keep_freed_memory()
    contender = make()
    connection.send(contender.name)
    while True:
        try:
            connection.recv()
        except EOFError:
            return
        connection.send(contender.run())
