"""The fields of an annotation file's entries: each checked, and brought into COCO's own form where it is plainly meant.

What labelling tools write otherwise but mean plainly ("0", 0.0, false) is rewritten and counted. Whether an entry makes
sense beside the others is for annotations.py.
"""

from collections.abc import Iterator
from typing import Any

from detection.values import flag, number, numbers, shown, whole_number

LISTS = ("images", "annotations", "categories")
_WHOLE_NUMBERS = {
    "images": ("id", "width", "height"),
    "annotations": ("id", "image_id", "category_id"),
    "categories": ("id",),
}
_REFERRED_TO = {"image_id": "images", "category_id": "categories"}
_OTHERS = {"images": "file_name", "annotations": "bbox", "categories": "name"}
_HUGE = 1e12


def check_fields(document: dict[str, Any], *, evaluated: bool) -> tuple[list[str], dict[str, int]]:
    """Check every field of every entry and rewrite it in COCO's form, in place.

    Args:
        document: an annotation file with its three lists.
        evaluated: give every annotation a crowd flag, for COCO's evaluation wants one.

    Returns:
        The problems, a sentence each; and how many values of each field were read as they are meant.
    """
    problems: list[str] = []
    as_meant: dict[str, int] = {}
    for kind in LISTS:
        for place, entry in enumerate(document[kind]):
            if not isinstance(entry, dict):
                problems.append(f"{kind}, entry {place}: {shown(entry)} is not an object with fields")
            elif not (kind == "annotations" and _is_plain(entry)):
                problems += [f"{_where(kind, place, entry)}: {text}" for text in _faults(kind, entry, as_meant)]
                if evaluated and kind == "annotations" and "iscrowd" not in entry:
                    entry["iscrowd"] = 0
                    as_meant["missing iscrowd"] = as_meant.get("missing iscrowd", 0) + 1
    return problems, as_meant


def _is_plain(entry: dict[str, Any]) -> bool:
    """Whether an annotation is as COCO has them: the quick way through a million of them."""
    box: Any = entry.get("bbox")
    area: Any = entry.get("area")
    crowd: Any = entry.get("iscrowd")
    return (
        type(entry.get("id")) is type(entry.get("image_id")) is type(entry.get("category_id")) is int
        and type(box) is list
        and len(box) == 4
        and set(map(type, box)) <= {int, float}
        and -_HUGE < sum(box) < _HUGE  # which not-a-number and infinity are not
        and type(crowd) is int
        and 0 <= crowd <= 1
        and type(area) in (int, float)
        and 0 <= area < _HUGE
    )


def _where(kind: str, place: int, entry: dict[str, Any]) -> str:
    """The entry by its ids, or where those are no numbers by its place in the list."""
    if kind == "annotations" and type(entry.get("id")) is type(entry.get("image_id")) is int:
        return f"image {entry['image_id']}, annotation {entry['id']}"
    names = [name for name in ("id", "image_id", "file_name") if name in entry]
    known = [f"{name} {entry[name] if type(entry[name]) is int else shown(entry[name])}" for name in names]
    return f"{kind}, entry {place} ({', '.join(known) or 'no id'})"


def _faults(kind: str, entry: dict[str, Any], as_meant: dict[str, int]) -> Iterator[str]:
    lacking = [name for name in (*_WHOLE_NUMBERS[kind], _OTHERS[kind]) if name not in entry]
    if lacking:
        yield f"it has no {', '.join(lacking)}: every one of the {kind} needs it"
    for name, value in list(entry.items()):
        read: Any = None
        if name in _WHOLE_NUMBERS[kind]:
            read, fault = whole_number(value), _no_id(name, value)
        elif name == _OTHERS[kind] and kind != "annotations":
            read, fault = _text(kind, value), "is no text: write one"
        elif kind == "annotations" and name in _MEASURES:
            read, fault = _MEASURES[name](value)
        else:
            continue
        if read is None:
            yield f"its {'box' if name == 'bbox' else name} {shown(value)} {fault}"
        elif type(read) is not type(value) or read != value or (name == "bbox" and read is not value):
            entry[name] = read
            as_meant[name] = as_meant.get(name, 0) + 1


def _no_id(name: str, value: Any) -> str:
    """What is wrong with a value that is no whole number; words that are ids have been numbered before."""
    if name in _REFERRED_TO and isinstance(value, str) and value.strip():
        return f"is the id of none of the {_REFERRED_TO[name]}: correct it, or add what it means"
    return "is no whole number: write one, such as 1"


def _text(kind: str, value: Any) -> str | None:
    if kind == "categories" and type(value) is int:  # digits are classes, too
        return str(value)
    return value if isinstance(value, str) and value.strip() else None


def _box(value: Any) -> tuple[list[float] | None, str]:
    read = numbers(value)
    plain = read is not None and len(read) == 4
    same = plain and all(type(one) is type(other) for one, other in zip(read or (), value, strict=True))
    fault = "is not four finite numbers: write [x, y, width, height] in pixels from the upper left corner"
    return value if same else read if plain else None, fault


def _area(value: Any) -> tuple[float | None, str]:
    read = number(value)
    fault = "is no number of pixels, 0 or more: correct it, or leave the field out to have it measured"
    return read if read is not None and read >= 0 else None, fault


def _crowd(value: Any) -> tuple[int | None, str]:
    return flag(value), "is neither 0 (one object) nor 1 (a crowd, which is no target): write one of them"


_MEASURES = {"bbox": _box, "area": _area, "iscrowd": _crowd}
