"""How far a long analysis is, and how long it still takes."""

import logging
import time

log = logging.getLogger("mim")
_EVERY_S = 20.0


class Progress:
    """Lines with the time left, at most one in twenty seconds.

    Args:
        what: is done, as people read it.
        total: how many parts there are.
        done: how many were done before this start.
    """

    def __init__(self, what: str, total: int, done: int = 0) -> None:
        self._what, self._total, self._done, self._before = what, total, done, done
        self._started = self._told = time.monotonic()

    def advance(self, parts: int) -> None:
        """So many more parts are done."""
        self._done += parts
        now = time.monotonic()
        if now - self._told < _EVERY_S or self._done >= self._total:
            return
        self._told = now
        speed = (self._done - self._before) / (now - self._started)
        left = (self._total - self._done) / speed
        share = 100 * self._done / self._total
        log.info("%s: %.1f %%, %.0f images/s, %s left", self._what, share, speed, duration(left))


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    minutes = round(seconds / 60)
    if minutes >= 120:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min" if minutes >= 2 else f"{seconds:.0f} s"
