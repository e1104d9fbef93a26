"""Allowed ranges, stated on the field that has one: `rate: Annotated[float, Range(0, 1)]`. engine.config.check finds
them there, so that what is outside is refused in the same words everywhere."""

import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any


@dataclass(frozen=True)
class Range:
    """Allowed values of a number, or of each number in a tuple.

    Args:
        low, high: the ends; None for no end there.
        open_low, open_high: whether an end itself is excluded.
        rising: of a tuple: whether no number may be below the one before it.
    """

    low: float | None = None
    high: float | None = None
    open_low: bool = False
    open_high: bool = False
    rising: bool = False

    def holds(self, value: Any) -> bool:
        """Whether a value is allowed. What is no number (None, a name) has no range."""
        if isinstance(value, tuple | list):
            inside = all(self.holds(each) for each in value)
            return inside and (not self.rising or list(value) == sorted(value))
        if not isinstance(value, int | float):
            return True
        above = self.low is None or (value > self.low if self.open_low else value >= self.low)
        return above and (self.high is None or (value < self.high if self.open_high else value <= self.high))

    def __str__(self) -> str:
        return self._ends() + ", each at least the one before" * self.rising

    def _ends(self) -> str:
        if self.high is None:
            return f"above {self.low:g}" if self.open_low else f"{self.low:g} or more"
        if self.open_low and self.open_high:
            return f"between {self.low:g} and {self.high:g}, both excluded"
        if self.open_low:
            return f"above {self.low:g}, up to {self.high:g}"
        return f"from {self.low:g} up to but not {self.high:g}" if self.open_high else f"{self.low:g} to {self.high:g}"


Count = Annotated[int, Range(1)]
Natural = Annotated[int, Range(0)]
Positive = Annotated[float, Range(0, open_low=True)]
NotNegative = Annotated[float, Range(0)]
Share = Annotated[float, Range(0, 1)]
"""Both ends included, as a probability."""
PartialShare = Annotated[float, Range(0, 1, open_high=True)]
"""Less than all, as a decay, a momentum or a drop rate."""
Part = Annotated[float, Range(0, 1, open_low=True, open_high=True)]
"""Neither nothing nor all, as a part that is set aside."""
UpToOne = Annotated[float, Range(0, 1, open_low=True)]
"""More than nothing, as a part of a data set that is used."""


def outside(group: Any, where: str = "") -> list[str]:
    """One line for each field of a dataclass, and of those in it, whose value is outside its range."""
    hints = typing.get_type_hints(type(group), include_extras=True)
    found: list[str] = []
    for name in group.__dataclass_fields__:
        value = getattr(group, name)
        if hasattr(value, "__dataclass_fields__"):
            found += outside(value, f"{where}{name}.")
        for allowed in _ranges(hints[name]):
            if not allowed.holds(value):
                none = ", or none" * (type(None) in typing.get_args(_bare(hints[name])))
                found.append(f"{where}{name} is {value}; allowed: {allowed}{none}")
    return found


def _ranges(hint: Any) -> Iterator[Range]:
    """Those anywhere in a type: of the field itself, of what may stand in place of None, of a tuple's items."""
    if typing.get_origin(hint) is Annotated:
        yield from (each for each in hint.__metadata__ if isinstance(each, Range))
        hint = hint.__origin__
    seen: set[Range] = set()
    for each in typing.get_args(hint):
        for allowed in _ranges(each):
            if allowed not in seen:
                seen.add(allowed)
                yield allowed


def _bare(hint: Any) -> Any:
    return hint.__origin__ if typing.get_origin(hint) is Annotated else hint
