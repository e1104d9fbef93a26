"""Which categories of an annotation file a run detects."""

import difflib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from engine.errors import ConfigError, DataError


def class_names(given: Sequence[str]) -> tuple[str, ...]:
    """The names in data.classes, or in the file that it names: one a line, or a list in a .json.

    Raises:
        ConfigError: the file cannot be read or holds no name, or a name is given twice.
    """
    names = tuple(given)
    if len(given) == 1 and Path(given[0]).is_file():  # which a pipe is not
        try:
            text = Path(given[0]).read_text(encoding="utf-8-sig")
            lines = json.loads(text) if given[0].endswith(".json") else text.splitlines()
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"data.classes: {given[0]} is no text file in UTF-8, or .json, that can be read ({error})"
            ) from error
        if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
            raise ConfigError(f'data.classes: {given[0]} is not a list of names: ["cat", "dog"]')
        names = tuple(line.strip() for line in lines if line.strip())
        if not names:
            raise ConfigError(f"data.classes: {given[0]} is empty: write the name of one class on each line")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"data.classes: given more than once: {', '.join(twice)}")
    return names


def chosen(categories: Mapping[int, str], names: Sequence[str], path: Path) -> list[int]:
    """The ids of the categories to detect, in the order of their labels.

    Args:
        categories: id -> name.
        names: the classes asked for; none for all, by their ids.
        path: of the annotation file, for messages.

    Raises:
        DataError: a name is not among the categories, or belongs to two of them.
    """
    if not names:
        return sorted(categories)
    if len(names) == 1 and "," in names[0] and names[0] not in categories.values():  # "cat,dog", as in segmentation
        names = class_names([name.strip() for name in names[0].split(",")])
    ids = []
    for name in names:
        found = [number for number, other in categories.items() if other == name]
        if len(found) != 1:
            known = list(dict.fromkeys(categories.values()))
            near = difflib.get_close_matches(name, known, n=3, cutoff=0.4) or known[:5]
            what = f"has {len(found)} categories named" if found else "has no category named"
            if not found and name.endswith((".txt", ".json")):
                raise DataError(f"{path}: it {what} {name!r} (data.classes), and there is no such file")
            raise DataError(f"{path}: it {what} {name!r} (data.classes); nearest: {', '.join(map(repr, near))}")
        ids += found
    return ids
