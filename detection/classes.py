"""Which categories of an annotation file a run detects."""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path

from engine.errors import ConfigError, DataError


def class_names(given: Sequence[str]) -> tuple[str, ...]:
    """The names in data.classes, or in the text file that it names.

    Raises:
        ConfigError: the file cannot be read or holds no name, or a name is given twice.
    """
    names = tuple(given)
    if len(given) == 1 and Path(given[0]).is_file():  # which a pipe is not
        try:
            lines = Path(given[0]).read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"data.classes: {given[0]} is no text file in UTF-8 that can be read ({error})"
            ) from error
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
    ids = []
    for name in names:
        found = [number for number, other in categories.items() if other == name]
        if len(found) != 1:
            known = list(dict.fromkeys(categories.values()))
            near = difflib.get_close_matches(name, known, n=3, cutoff=0.4) or known[:5]
            what = f"has {len(found)} categories named" if found else "has no category named"
            raise DataError(f"{path}: it {what} {name!r} (data.classes); nearest: {', '.join(map(repr, near))}")
        ids += found
    return ids
