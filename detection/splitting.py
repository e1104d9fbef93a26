"""Which images of an annotation file belong to a split: all, those a list leaves, or a part of one file for both."""

import hashlib
from collections.abc import Set
from typing import Any

from detection.config import DataConfig, SplitName
from detection.values import whole_number
from engine.data.exclude import find_listed, match, read_list
from engine.errors import DataError


def keep_part(document: dict[str, Any], data: DataConfig, split: SplitName) -> dict[str, int]:
    """Reduce a document, in place, to the images of a split and their annotations.

    With data.val_share, the validation images are those whose names have the smallest hashes: the same ones in every
    run and for every order of the file. With data.val_list, those that the list names.

    Returns:
        What was left out: {"images_excluded": number} with data.exclude.

    Raises:
        DataError: a list cannot be read or names no image, or a split would be empty.
    """
    names = [str(image.get("file_name")) for image in document["images"] if isinstance(image, dict)]
    counts = {}
    if data.exclude:
        excluded = match(data.images(split), read_list(data.exclude), names)
        counts["images_excluded"] = _take_out(document, excluded)
        names = [name for name in names if name not in excluded]
    if data.one_file:
        path = data.annotations(split)
        held_out = _by_list(data, names) if data.val_list else _by_share(names, data.val_share)
        if not held_out or len(held_out) == len(set(names)):
            raise DataError(
                f"{path}: of its {len(names):,} images {len(held_out):,} are for validation "
                f"({f'data.val_list {data.val_list}' if data.val_list else f'data.val_share {data.val_share}'}): both "
                "training and validation need some"
            )
        _take_out(document, set(names) - held_out if split == "val" else held_out)
    return counts


def _by_list(data: DataConfig, names: list[str]) -> set[str]:
    listed = read_list(data.val_list)
    found = find_listed(data.images("val"), listed, names)
    if missing := [line for line in dict.fromkeys(listed) if line not in found]:
        raise DataError(
            f"{data.val_list}: {len(missing):,} of its {len(set(listed)):,} names are not among the images of "
            f"{data.annotations('val')}, such as {missing[0]}: write file names as that file has them, one on each line"
        )
    return set(found.values())


def _by_share(names: list[str], share: float) -> set[str]:
    by_hash = sorted(set(names), key=lambda name: hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest())
    return set(by_hash[: round(share * len(by_hash))])


def _take_out(document: dict[str, Any], names: Set[str]) -> int:
    """Remove images by name, and the annotations of their ids; returns how many images."""
    gone = [image for image in document["images"] if isinstance(image, dict) and str(image.get("file_name")) in names]
    ids = {_key(image.get("id")) for image in gone}
    out = {id(image) for image in gone}
    document["images"] = [image for image in document["images"] if id(image) not in out]
    document["annotations"] = [
        entry
        for entry in document["annotations"]
        if not (isinstance(entry, dict) and _key(entry.get("image_id")) in ids)
    ]
    return len(gone)


def _key(value: Any) -> int | str:
    """An id as it is meant: 7 for 7.0 and "7"."""
    number = whole_number(value)
    return str(value) if number is None else number
