"""What a run says at its end, taken apart: tests execute the lines of Python and give the command."""

import contextlib
import logging
import shlex


@contextlib.contextmanager
def listening():
    """The messages of the log while the block runs, in order."""
    said, listener, log = [], logging.Handler(), logging.getLogger("mim")
    listener.emit = lambda record: said.append(record.getMessage())
    before = log.level
    log.addHandler(listener)
    log.setLevel(logging.INFO)
    try:
        yield said
    finally:
        log.removeHandler(listener)
        log.setLevel(before)


def told(text):
    """The file of weights, what the lines of Python leave, and the words of the command, of a run's last message."""
    weights, _, rest = text.removeprefix("weights: ").partition("\nin Python:\n")
    code, _, command = rest.partition("next:\n")
    lines = [line.removeprefix("    ") for line in code.splitlines()]
    assert len(lines) == 3
    names = {}
    exec("\n".join(lines), names)
    return weights, names, shlex.split(command)
