"""Photos that are files already and only lie in the wrong place: Imagenette, Tiny-ImageNet, Food-101, Oxford pets."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.prepare.archives import Member, as_text, members, read_files
from benchmarks.prepare.writer import Picture
from engine.errors import DataError


def picture(path: str, member: Member) -> Picture:
    """A file of a source as a picture of the result."""
    return Picture(path, member.read, member.file)


def imagenette(sources: Sequence[Path]) -> Iterator[Picture]:
    """Imagenette and Imagewoof of any size: already train/ and val/ with class folders."""
    yield from placed(sources, r"(?:^|/)(train|val)/(n\d{8})/([^/]+\.JPEG)$", lambda match: "/".join(match.groups()))


def tiny_imagenet(sources: Sequence[Path]) -> Iterator[Picture]:
    """tiny-imagenet-200.zip: train has a folder too many, val lies flat beside its annotations."""
    found = read_files(sources, ["val/val_annotations.txt"])
    annotations = as_text(found["val/val_annotations.txt"], f"{sources[0]}: val/val_annotations.txt")
    classes = dict(line.split("\t")[:2] for line in annotations.splitlines() if line.count("\t"))

    def place(match: re.Match[str]) -> str:
        if match["class"]:
            return f"train/{match['class']}/{match['name']}"
        return f"val/{_known(classes, match['name'], 'val_annotations.txt')}/{match['name']}"

    pattern = r"(?:^|/)(?:train/(?P<class>n\d{8})|val)/images/(?P<name>[^/]+\.JPEG)$"
    yield from placed(sources, pattern, place)


def food101(sources: Sequence[Path]) -> Iterator[Picture]:
    """food-101.tar.gz: images by class, and two lists that say which are for training; its test part becomes val."""
    lists = read_files(sources, ["meta/train.json", "meta/test.json"])
    splits: dict[str, str] = {}
    for split, name in (("train", "meta/train.json"), ("val", "meta/test.json")):
        splits.update(dict.fromkeys(_food_paths(lists[name], f"{sources[0]}: {name}"), split))
    yield from placed(
        sources,
        r"(?:^|/)images/([^/]+/[^/]+)\.jpg$",
        lambda match: f"{_known(splits, match[1], 'meta/train.json or meta/test.json')}/{match[1]}.jpg",
    )


def _food_paths(data: bytes, where: str) -> list[str]:
    try:
        listed: Any = json.loads(data)
        return [str(path) for paths in listed.values() for path in paths]
    except (ValueError, AttributeError, TypeError) as error:
        raise DataError(f"{where}: not the list of images by class that it should be ({error})") from error


def pets(sources: Sequence[Path]) -> Iterator[Picture]:
    """images.tar.gz and annotations.tar.gz of the Oxford-IIIT pets: trainval becomes train, test becomes val."""
    lists = read_files(sources, ["annotations/trainval.txt", "annotations/test.txt"])
    splits: dict[str, str] = {}
    for split, name in (("train", "annotations/trainval.txt"), ("val", "annotations/test.txt")):
        lines = as_text(lists[name], f"{sources[0]}: {name}").splitlines()
        splits.update(dict.fromkeys((line.split()[0] for line in lines if line.strip() and line[0] != "#"), split))

    def place(match: re.Match[str]) -> str | None:
        name = match[1]  # Great_Pyrenees_12; some images of the archive are in neither list
        return f"{splits[name]}/{name.rpartition('_')[0]}/{name}.jpg" if name in splits else None

    yield from placed(sources, r"(?:^|/)images/([^/.]+)\.jpg$", place)


def placed(sources: Sequence[Path], pattern: str, place: Any) -> Iterator[Picture]:
    """The files whose path matches a pattern, each at the path that `place` gives for the match (None: left out)."""
    for source in sources:
        for member in members(source):
            match = re.search(pattern, member.name)
            path = place(match) if match else None
            if path is not None:
                yield picture(path, member)


def _known(table: Mapping[str, str], name: str, where: str) -> str:
    if name not in table:
        raise DataError(f"{name}: an image that {where} does not list")
    return table[name]
