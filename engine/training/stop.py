"""Signals that ask a run to stop. In the loop the handler only sets a flag, and saving happens between two steps.
Before and after the loop, where nothing needs to be saved, it ends the run where it is. Imports nothing heavy, for a
command listens before it imports the rest."""

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

from engine.errors import StopRequested

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT)
SECOND_INTERRUPT_S = 5.0
_SET_SIGNAL_AT_PARENTS_DEATH = 1  # PR_SET_PDEATHSIG


class StopFlag:
    """While entered, SIGTERM, SIGUSR2 and Ctrl-C set `asked`; a second Ctrl-C within 5 s leaves at once, exit 130.

    Entered inside another one, it starts as the outer one stands: a signal that came while the run was being put
    together stops it before its first step. Left without an error, it passes what it was asked on to the outer one.

    Args:
        at_once: also raise StopRequested where the process is, the first time. For all that is not the loop: set-up,
            which may take minutes, and export. Every file there is written whole or not at all.
        go_on: the command that goes on after such a stop, asked for when it comes.
    """

    def __init__(self, *, at_once: bool = False, go_on: Callable[[], str] | None = None) -> None:
        self.asked = False
        self.reason = ""
        self._at_once, self._go_on = at_once, go_on
        self._interrupted_at = 0.0
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "StopFlag":
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._handle) for number in STOP_SIGNALS}
            outer = self._outer()
            if outer is not None and outer.asked:
                self.asked, self.reason = True, outer.reason
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        outer = self._outer()
        if self.asked and error is None and outer is not None and not outer.asked:
            outer.ask(self.reason)

    def ask(self, reason: str) -> None:
        """Ask the run to stop.

        Raises:
            StopRequested: the flag says `at_once`, and nobody asked before.
        """
        first = not self.asked
        self.asked, self.reason = True, reason
        if self._at_once and first:
            raise self.requested()

    def ignore(self) -> None:
        """Let signals pass from here on, for the process has done all it was to do and is about to leave."""
        for number in self._previous:
            signal.signal(number, signal.SIG_IGN)
        self._previous = {}

    def requested(self) -> StopRequested:
        """The error a run outside the loop ends with."""
        where = f"stopped by {self.reason} before the first step or after the last; nothing is lost"
        if self._go_on is None:
            return StopRequested(f"{where}: the same command goes on")
        return StopRequested(f"{where}: go on with\n    {self._go_on()}")

    def _outer(self) -> "StopFlag | None":
        outer = getattr(self._previous.get(signal.SIGTERM), "__self__", None)
        return outer if isinstance(outer, StopFlag) else None

    def _handle(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if number == signal.SIGINT:
            if self.asked and now - self._interrupted_at < SECOND_INTERRUPT_S:
                os._exit(130)
            self._interrupted_at = now
        self.ask(signal.Signals(number).name)


def stop_with_launcher() -> None:
    """Have the kernel ask this process to stop when torchrun, which started it, is killed: nobody else would tell it,
    and it would train on, holding its run folder. Only Linux can."""
    if sys.platform == "linux" and "TORCHELASTIC_RUN_ID" in os.environ:
        ctypes.CDLL(None).prctl(_SET_SIGNAL_AT_PARENTS_DEATH, signal.SIGTERM)
