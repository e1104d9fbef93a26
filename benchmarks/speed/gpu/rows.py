"""What a check found, a line of JSON each, written as soon as it is known: a part that is killed keeps its lines."""

import json
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

COLUMNS = ("part", "check", "value", "unit", "expected", "ok", "note")


class Record:
    """Appends the lines of one part to a file.

    Args:
        part: its name.
        path: JSON lines; appended to.
    """

    def __init__(self, part: str, path: Path) -> None:
        self.part, self.path = part, path

    def add(self, check: str, value: Any = None, unit: str = "", **more: Any) -> None:
        """One finding: `more` may say what was `expected`, whether it is `ok` (None: a measurement), and a `note`."""
        row = {"part": self.part, "check": check, "value": value, "unit": unit, **more}
        with self.path.open("a") as file:
            file.write(json.dumps({name: row.get(name) for name in COLUMNS}, default=str) + "\n")
        print(sentence(row), flush=True)

    def at_most(self, check: str, value: float, limit: float, unit: str = "") -> None:
        """A finding that is good if it is not above `limit`; NaN is not."""
        self.add(check, value, unit, expected=f"<= {limit:g}", ok=value <= limit)

    def equal(self, check: str, value: Any, expected: Any, note: str = "") -> None:
        """A finding that is good if it is what was expected."""
        self.add(check, value, expected=str(expected), ok=value == expected, note=note)

    @contextmanager
    def attempt(self, check: str) -> Iterator[None]:
        """What fails in this block is a finding too, and the part goes on behind it."""
        try:
            yield
        except Exception as error:
            traceback.print_exc()
            lines = str(error).strip().splitlines() or [""]
            self.add(check, ok=False, note=f"{type(error).__name__}: {lines[0][:300]}")


def sentence(row: dict[str, Any]) -> str:
    """A line for people."""
    value = row.get("value")
    shown = "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
    verdict = {True: "ok    ", False: "FAILED", None: "      "}[row.get("ok")]
    expected = f" (expected {row['expected']})" if row.get("expected") else ""
    note = f"  {row['note']}" if row.get("note") else ""
    return f"{verdict} {row['part']}: {row['check']}  {shown} {row.get('unit') or ''}{expected}{note}".rstrip()


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of a file that Record wrote; a last line that was cut off is left out."""
    rows = []
    for line in path.read_text().splitlines() if path.is_file() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            print(f"unreadable line in {path}: {line[:80]}", file=sys.stderr)
    return rows
