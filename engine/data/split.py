"""Where a data set keeps its training and its validation images: folders of the usual names, or one folder of which a
share is held out. Every task that reads image folders asks here, so that what one validates on no other trains on."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

Split = Literal["train", "val"]
NAMES: dict[Split, tuple[str, ...]] = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "test"),
}
"""Usual names of the folders, the first one that is there counts; also with a capital."""


def split_folder(root: Path, split: Split) -> Path | None:
    """The folder of a split under a data set's, None if it has none."""
    spelt = (root / variant for name in NAMES[split] for variant in (name, name.capitalize()))
    return next((folder for folder in spelt if folder.is_dir()), None)


def image_root(root: str | Path) -> Path:
    """The folder of the training images (`train/`, `training/`) if there is one, else the folder itself."""
    return split_folder(Path(root), "train") or Path(root)


def held_out(paths: Sequence[str], share: float) -> list[int]:
    """Positions of the images that are kept for validation: those whose paths have the smallest hashes, of every
    folder the same share, and at least one of each folder that has two.

    Args:
        paths: relative to the folder, with forward slashes; the first part of a path is its class, if it has one.
        share: in [0, 1).
    """
    if not share:
        return []
    by_folder: dict[str, list[int]] = defaultdict(list)
    for position, path in enumerate(paths):
        by_folder[path.split("/", 1)[0] if "/" in path else ""].append(position)
    chosen: list[int] = []
    for members in by_folder.values():
        members.sort(key=lambda position: hashlib.sha256(paths[position].encode("utf-8", "surrogateescape")).digest())
        number = min(max(round(share * len(members)), 1), len(members) - 1)
        chosen += members[:number]
    return sorted(chosen)
