"""Methods by what run folders and publications call them: no method is known to the code.

A run folder says the name of its method, and its title where it has one. Those that papers print numbers of have title
and place in published/methods.csv; any other is written as it is called, and follows by its name.
"""

import functools
import math
from collections.abc import Mapping

from results.published import load_methods

CONTROL = "scratch"
"""Training without pre-training: what every method is compared with."""


@functools.cache
def _published() -> dict[str, tuple[str, int]]:
    table = load_methods()
    return {
        str(name): (str(title), place)
        for place, (name, title) in enumerate(zip(table["method"], table["title"], strict=True))
    }


def title(name: str, told: str = "") -> str:
    """How people write a method.

    Args:
        name: as runs call it; "<method>+<task>" for what was trained for that task after the method.
        told: the title in the run folder; "" without one.
    """
    if told:
        return told
    if name in _published():
        return _published()[name][0]
    method, plus, after = name.partition("+")
    return f"{title(method)} + {after}" if plus and method and after else name


def place(name: str, told: int | None = None) -> tuple[int, float, str]:
    """Key to sort methods by: the control, those with a published title, those whose run folders say a place, others.

    Args:
        name: as runs call it.
        told: its place in the run folder, None without one.
    """
    if name in _published():
        return 0, _published()[name][1], name
    return 1, math.inf if told is None else told, name


def places(told: Mapping[str, int | None]) -> dict[str, int]:
    """{name: its place among these methods}, the control at 0 even where it is not among them.

    Args:
        told: for each method its place in the run folder, None without one.
    """
    others = sorted((name for name in told if name != CONTROL), key=lambda name: place(name, told[name]))
    return {name: number for number, name in enumerate([CONTROL, *others])}
