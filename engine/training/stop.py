"""Signals that ask a run to stop. The handler only sets a flag: saving happens in the loop, between two steps."""

import os
import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT)
SECOND_INTERRUPT_S = 5.0


class StopFlag:
    """While entered, SIGTERM, SIGUSR2 and Ctrl-C set `asked`; a second Ctrl-C within 5 s leaves at once, exit 130.

    Entered inside another one, it starts as the outer one stands: a signal that came while the run was being put
    together stops it before its first step.
    """

    def __init__(self) -> None:
        self.asked = False
        self.reason = ""
        self._interrupted_at = 0.0
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "StopFlag":
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._handle) for number in STOP_SIGNALS}
            outer = getattr(self._previous[signal.SIGTERM], "__self__", None)
            if isinstance(outer, StopFlag) and outer.asked:
                self.asked, self.reason = True, outer.reason
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if number == signal.SIGINT:
            if self.asked and now - self._interrupted_at < SECOND_INTERRUPT_S:
                os._exit(130)
            self._interrupted_at = now
        self.asked, self.reason = True, signal.Signals(number).name
