"""Where the images and label maps of a data set lie, and which of them are for training: found by names alone."""

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from engine.data.exclude import find_listed, read_list
from engine.data.images import ImageIndex, index_images
from engine.errors import DataError
from segmentation.config import DataConfig

Split = Literal["training", "validation"]
SPLITS: tuple[Split, Split] = ("training", "validation")
_FOLDERS = {"training": ("training", "train"), "validation": ("validation", "val", "valid")}
_IMAGES = ("images", "imgs", "image", "img", "JPEGImages")
_MAPS = ("annotations", "masks", "labels", "annotation", "mask", "label", "SegmentationClass")


@dataclass(frozen=True)
class PairIndex:
    """The images and the label maps of a split, each sorted by name; a pair has the same name in both.

    Args:
        images: of the split.
        maps: of the split.
        suffix: what a map's name has behind its image's.
    """

    images: ImageIndex
    maps: ImageIndex
    suffix: str = ""

    def matched(self) -> list[tuple[str, str]]:
        """(image, label map) as full paths, sorted by the images' names, of those that have both."""
        maps = {stem_of(path): path for path in self.maps.paths}
        found = ((path, maps.get(stem_of(path) + self.suffix)) for path in self.images.paths)
        return [(f"{self.images.root}/{path}", f"{self.maps.root}/{name}") for path, name in found if name is not None]

    def problems(self) -> list[tuple[str, str]]:
        """(path, what is wrong with it) of the images and maps that have no partner, or more than one."""
        images = Counter(stem_of(path) + self.suffix for path in self.images.paths)
        maps = Counter(stem_of(path) for path in self.maps.paths)
        found = []
        for index, others, kind, suffix in (
            (self.images, maps, "label map", self.suffix),
            (self.maps, images, "image", ""),
        ):
            other = self.maps if kind == "label map" else self.images
            for path in index.paths:
                count = others[stem_of(path) + suffix]
                full = f"{index.root}/{path}"
                if not count:
                    found.append((full, f"{full}: has no {kind} in {other.root}"))
                elif count > 1:
                    found.append((full, f"{full}: has {count} {kind}s in {other.root}"))
        return found

    def likely_suffix(self) -> str:
        """What the maps' names have behind their images', where that is the same for all and no pair was found; ""."""
        stems = [stem_of(path) for path in self.images.paths]
        maps = {stem_of(path) for path in self.maps.paths}
        if self.matched() or not stems:
            return ""
        longer = sorted(name.removeprefix(stems[0]) for name in maps if name.startswith(stems[0]))
        return next((suffix for suffix in longer if maps >= {stem + suffix for stem in stems}), "")


def stem_of(path: str) -> str:
    """A relative path without its suffix."""
    return Path(path).with_suffix("").as_posix()


def find_pairs(options: DataConfig) -> dict[Split, PairIndex]:
    """The pairs of both splits: of folders of theirs, or of a list or a share of one folder.

    Raises:
        DataError: a folder is missing or empty, nothing says which images are for validation, or the list is wrong.
    """
    root = Path(options.root)
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; --data.root wants {options.HOLDS}")
    places = [root, root / "ADEChallengeData2016"]
    for place in places:
        images, maps = _folder(place, options.images, _IMAGES), _folder(place, options.maps, _MAPS)
        if images is not None and maps is not None:
            return _find_splits(options, images, maps)
    for place in places:  # root/train/images, root/train/masks
        parents = {split: _folder(place, "", names) for split, names in _FOLDERS.items()}
        if all(parents.values()):
            return {split: _of_parent(options, parents[split]) for split in SPLITS}
    raise DataError(
        f"{root}: found no folder of images and label maps: expected {options.images or _any(_IMAGES)} and "
        f"{options.maps or _any(_MAPS)} in it (--data.images, --data.maps), or ADEChallengeData2016"
    )


def find_validation(options: DataConfig) -> PairIndex:
    """The validation pairs alone, where nothing else is needed: those of a folder of their own, of the list or the
    share, and where there is none of these all pairs.

    Raises:
        DataError: a folder is missing or empty, or the list is wrong.
    """
    root = Path(options.root)
    for place in (root, root / "ADEChallengeData2016"):
        images, maps = _folder(place, options.images, _IMAGES), _folder(place, options.maps, _MAPS)
        if images is None or maps is None:
            continue
        own = [_folder(folder, "", _FOLDERS["validation"]) for folder in (images, maps)]
        if own[0] is not None and own[1] is not None:
            return _index(options, own[0], own[1])
        if not options.val_list and not options.val_share:
            return _index(options, images, maps)
    return find_pairs(options)["validation"]


def _any(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"


def _folder(place: Path, given: str, names: Sequence[str]) -> Path | None:
    """The folder of the given name in a place, or the first of those usual names."""
    return next((place / name for name in ((given,) if given else names) if (place / name).is_dir()), None)


def _of_parent(options: DataConfig, parent: Path | None) -> PairIndex:
    assert parent is not None
    images, maps = _folder(parent, options.images, _IMAGES), _folder(parent, options.maps, _MAPS)
    if images is None or maps is None:
        lacking = options.images or _any(_IMAGES) if images is None else options.maps or _any(_MAPS)
        raise DataError(f"{parent}: expected a folder {lacking} in it (--data.images, --data.maps)")
    return _index(options, images, maps)


def _find_splits(options: DataConfig, images: Path, maps: Path) -> dict[Split, PairIndex]:
    folders = {split: (_folder(images, "", names), _folder(maps, "", names)) for split, names in _FOLDERS.items()}
    if all(image is not None for image, _ in folders.values()):
        for split, (_, folder) in folders.items():
            if folder is None:
                raise DataError(f"{maps}: no such folder in it as {images} has: {_any(_FOLDERS[split])}")
        return {split: _index(options, *folders[split]) for split in SPLITS}  # type: ignore[arg-type]
    whole = _index(options, images, maps)
    if options.val_list:
        chosen = _listed(whole.images, Path(options.val_list))
    elif options.val_share:
        chosen = _share(whole.images, options.val_share)
    else:
        raise DataError(
            f"{images}: has no folders train/ and val/ (or training/ and validation/), and nothing says which images "
            "are for validation: give --data.val-share 0.2, or --data.val-list FILE with their names"
        )
    return {"training": _part(whole, lambda stem: stem not in chosen), "validation": _part(whole, chosen.__contains__)}


def _index(options: DataConfig, images: Path, maps: Path) -> PairIndex:
    # "skip": empty files are found with all the others, by check.py.
    found = [index_images(folder, labelled=False, options=options, unreadable="skip") for folder in (images, maps)]
    pairs = PairIndex(found[0], found[1], options.map_suffix)
    if not options.exclude:
        return pairs
    known = [index_images(folder, labelled=False, unreadable="skip") for folder in (images, maps)]
    left_out = {stem_of(path) for path in set(known[0].paths) - set(found[0].paths)}
    left_out |= {stem_of(path).removesuffix(options.map_suffix) for path in set(known[1].paths) - set(found[1].paths)}
    return _part(pairs, lambda stem: stem not in left_out)


def _listed(images: ImageIndex, path: Path) -> set[str]:
    lines = read_list(path)
    stems = {stem_of(name): stem_of(name) for name in images.paths} | {name: stem_of(name) for name in images.paths}
    found = find_listed(images.root, lines, stems)
    unknown = [line for line in lines if line not in found]
    if unknown or not lines:
        raise DataError(
            f"{path}: {len(unknown):,} of {len(lines):,} lines are no image in {images.root}"
            + (f": {', '.join(unknown[:5])}" if unknown else "")
        )
    return {stems[name] for name in found.values()}


def _share(images: ImageIndex, share: float) -> set[str]:
    """A share of the images that depends on their names alone: images added later leave most of the others in place."""
    stems = sorted({stem_of(path) for path in images.paths}, key=lambda stem: hashlib.sha256(stem.encode()).digest())
    count = max(1, round(share * len(stems)))
    if count >= len(stems):
        raise DataError(f"{images.root}: {len(stems)} images, none left for training at --data.val-share {share:g}")
    return set(stems[:count])


def _part(whole: PairIndex, wanted: Callable[[str], bool]) -> PairIndex:
    def part(index: ImageIndex, suffix: str) -> ImageIndex:
        return index.subset(i for i, path in enumerate(index.paths) if wanted(stem_of(path).removesuffix(suffix)))

    return PairIndex(part(whole.images, ""), part(whole.maps, whole.suffix), whole.suffix)
