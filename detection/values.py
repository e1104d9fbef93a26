"""One value of an annotation file: read as it is meant where that is plain ("0", 0.0, false), or None.

JSON has one kind of number, labelling tools have several: a number written as text and a whole number written with a
decimal point mean what they say. Everything else is left to the reader of the file to refuse.
"""

import math
import re
import reprlib
from typing import Any

_WHOLE = re.compile(r"\s*[+-]?\d{1,300}(\.0*)?\s*")
_EXACT = 2**53  # above it a floating-point number stands for several whole ones

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60


def whole_number(value: Any) -> int | None:
    """The whole number that `value` means: itself, 3.0 or "3"; None for anything else, true and false included."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and _WHOLE.fullmatch(value):
        return int(value.strip().partition(".")[0])
    if isinstance(value, float) and value.is_integer() and abs(value) < _EXACT:
        return int(value)
    return None


def number(value: Any) -> float | None:
    """The finite number that `value` means: itself or its text; None for anything else, true and false included."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        read = float(value)
    except (ValueError, OverflowError):
        return None
    if not math.isfinite(read):
        return None
    return read if isinstance(value, str) else value


def flag(value: Any) -> int | None:
    """0 or 1, also as text, with a decimal point, or as false or true; None for anything else."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        return int(value.strip().lower() == "true")
    read = whole_number(value)
    return read if read in (0, 1) else None


def numbers(values: Any) -> list[float] | None:
    """A list of finite numbers, or None where any is none."""
    if not isinstance(values, list):
        return None
    read = [number(value) for value in values]
    return None if None in read else [value for value in read if value is not None]


def shown(value: Any) -> str:
    """`value` as in Python, shortened."""
    return _SHORT.repr(value)
