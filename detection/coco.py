"""The annotations of one split: read, checked before anything trains, and kept so that reader processes share them.

What is found (annotations.py looks) and what happens then: a missing or malformed file or field, an image without its
file, an unknown category or image id, an id used twice, a box outside its image, an object without outline or with one
of another size, an image whose file has another size than the annotations say: the run does not start (exit 3), the ids
are named. A box without area or a mask without a polygon is left out of training and counted, a crowd is no training
target and counted, an image that keeps no object is left out of training and counted. The evaluation uses the
annotations as they are: crowds are regions it ignores.
"""

import hashlib
import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from detection.annotations import BOXES_ALONE, AnnotationReader, raise_problems, read_document
from detection.classes import class_names
from detection.config import DataConfig, SplitName
from detection.filenames import FileNames
from detection.splitting import keep_part
from engine import distributed
from engine.data.header import ImageHeader, read_headers
from engine.data.images import ImageIndex, index_images
from engine.errors import DataError

_NUM_NAMED = 5

log = logging.getLogger("mim")


class Records(Sequence[dict[str, Any]]):
    """What is annotated about each image, as JSON in one block of bytes, which reader processes share unchanged.

    A record: image_id, file_name, height, width, and annotations, a list of {id, bbox [x, y, width, height], label
    0 to K - 1, segmentation (COCO's polygons or run lengths, absent without masks)}.
    """

    def __init__(self, records: Iterable[dict[str, Any]]) -> None:
        encoded = [json.dumps(record, separators=(",", ":")).encode() for record in records]
        self.block = b"".join(encoded)
        self.ends = np.cumsum([0, *map(len, encoded)], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.ends) - 1

    @overload
    def __getitem__(self, position: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, position: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, position: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        if isinstance(position, slice):
            return [self[i] for i in range(*position.indices(len(self)))]
        i = range(len(self))[position]
        record: dict[str, Any] = json.loads(self.block[self.ends[i] : self.ends[i + 1]])
        return record


@dataclass(frozen=True, eq=False)
class CocoSplit:
    """The usable images of a split, sorted by file name.

    Args:
        annotation_path: of the JSON file.
        index: the image files.
        records: what is annotated about each of them.
        category_ids: ascending, or in the order of data.classes; a label is a position in it.
        category_names: of the same order.
        is_wide: whether each image is wider than high, bool (num_images,).
        counts: images, objects, and what was left out and why.
        has_run_lengths: whether any object's mask is given as run lengths instead of polygons.
        truth: for an evaluated split, its annotations in COCO's form as JSON; b"" for a training split.
    """

    annotation_path: Path
    index: ImageIndex
    records: Records
    category_ids: tuple[int, ...]
    category_names: tuple[str, ...]
    is_wide: npt.NDArray[np.bool_]
    counts: dict[str, int]
    has_run_lengths: bool
    truth: bytes

    def __len__(self) -> int:
        return len(self.records)

    @cached_property
    def digest(self) -> str:
        """sha256 of what the run uses of the annotation file: in training images, boxes, labels and masks, in an
        evaluation also areas and crowds."""
        digest = hashlib.sha256(self.truth or self.records.block)
        digest.update(json.dumps([self.category_ids, self.category_names]).encode())
        return digest.hexdigest()

    def ground_truth(self) -> dict[str, Any]:
        """The annotations of exactly this split's images and classes as a COCO document, for an evaluation."""
        document: dict[str, Any] = json.loads(self.truth)
        return document


def read_split(data: DataConfig, name: SplitName, *, training: bool, masks: bool) -> CocoSplit:
    """Read and check the annotations of "train" or "val" and list its images; no image is opened.

    Args:
        data: where they are, which classes, and how many validation images.
        name: of the split.
        training: leave images without objects out, instead of preparing an evaluation.
        masks: whether objects need an outline.

    Raises:
        DataError: see the head of this file.
    """
    path, folder = data.annotations(name), data.images(name)
    document = read_document(path)
    files = index_images(folder, labelled=False, options=data, unreadable=None if training else "stop")
    left_out = keep_part(document, data, name)
    reader = AnnotationReader(
        path,
        document,
        FileNames(folder, files.paths),
        masks=masks,
        evaluated=not training,
        classes=class_names(data.classes),
    )
    records = reader.read()
    if training:
        num_all = len(records)
        records = [record for record in records if record["annotations"]]
        reader.counts["images_without_objects"] = num_all - len(records)
    elif data.num_val:
        records = records[: data.num_val]
    num_objects = sum(len(record["annotations"]) for record in records)
    _require_objects(path, reader, num_objects, len(records), data.num_val if not training else 0)
    counts = {"images": len(records), "objects": num_objects, **reader.counts, **left_out}
    log.info("%s: %s", path.name, "  ".join(f"{key.replace('_', ' ')} {value}" for key, value in counts.items()))
    if reader.as_meant:
        read = ", ".join(f"{name} {number}" for name, number in sorted(reader.as_meant.items()))
        log.warning("%s: values not in COCO's form, read as they are meant: %s", path.name, read)
        counts |= {f"read_as_meant_{name.replace(' ', '_')}": number for name, number in reader.as_meant.items()}
    places = {name: position for position, name in enumerate(files.paths)}
    return CocoSplit(
        annotation_path=path,
        index=files.subset(places[record["file_name"]] for record in records),
        records=Records(records),
        category_ids=tuple(reader.labels),
        category_names=tuple(reader.names[number] for number in reader.labels),
        is_wide=np.array([record["width"] > record["height"] for record in records]),
        counts=counts,
        has_run_lengths=reader.has_run_lengths,
        truth=b"" if training else _truth(reader, records),
    )


def _require_objects(path: Path, reader: AnnotationReader, num_objects: int, num_images: int, num_val: int) -> None:
    """Refuse a split that nothing can be learnt from or measured on.

    Raises:
        DataError: there is no object that is no crowd.
    """
    if num_objects:
        return
    if num_val and len(reader.document["images"]) > num_images:
        raise DataError(
            f"{path}: the first {num_images} images have no objects, so there is nothing to measure: evaluate "
            "more of them (--data.num-val, 0 for all)"
        )
    left_out = ", ".join(f"{number:,} {name.replace('_', ' ')}" for name, number in reader.counts.items() if number)
    num_images, num_annotations = len(reader.document["images"]), len(reader.document["annotations"])
    raise DataError(
        f"{path}: no image is left with an object to {'measure against' if reader.evaluated else 'learn from'}, of "
        f"{num_images:,} images and {num_annotations:,} annotations{f' ({left_out})' * bool(left_out)}: annotate some "
        f"objects, or give another file{f'. {BOXES_ALONE}' * bool(reader.counts['masks_without_polygon'])}"
    )


def _truth(reader: AnnotationReader, records: list[dict[str, Any]]) -> bytes:
    """The document in COCO's form, reduced to these images and the reader's classes."""
    document, ids = reader.document, {record["image_id"] for record in records}
    lists = {
        "images": [image for image in document["images"] if image["id"] in ids],
        "annotations": [
            entry
            for entry in document["annotations"]
            if entry["image_id"] in ids and entry["category_id"] in reader.labels
        ],
        "categories": [entry for entry in document["categories"] if entry["id"] in reader.labels],
    }
    return json.dumps({**document, **lists}, separators=(",", ":")).encode()


def check_same_categories(train: CocoSplit, val: CocoSplit) -> None:
    """Require equal category ids and names in both splits.

    Raises:
        DataError: listing the first that differ.
    """
    first, second = (set(zip(s.category_ids, s.category_names, strict=True)) for s in (train, val))
    if first != second:
        differing = ", ".join(f"{number} {name!r}" for number, name in sorted(first ^ second)[:_NUM_NAMED])
        raise DataError(
            f"{train.annotation_path} and {val.annotation_path} differ in {len(first ^ second)} categories: "
            f"{differing}: write the same list of categories in both"
        )


def check_image_sizes(split: CocoSplit) -> None:
    """Open every image's header and compare its size, as it will be read, with the annotations'; each rank its part.

    Headers that cannot be read are left to the reading itself, which knows what to do at a bad file.

    Raises:
        DataError: on every rank, naming the images and an annotation of each.
    """
    mine = range(distributed.rank(), len(split), distributed.world_size())
    headers = read_headers(split.index.path(position) for position in mine)
    found = [
        size_problem(split, position, header)
        for position, header in zip(mine, headers, strict=True)
        if isinstance(header, ImageHeader)
    ]
    everywhere = [problem for part in distributed.gather_objects(found) for problem in part if problem]
    raise_problems(split.annotation_path, sorted(everywhere))


def size_problem(split: CocoSplit, position: int, header: ImageHeader) -> str | None:
    """The sentence about an image that, as it is read, has not the size that the annotations say."""
    record, exif = split.records[position], split.index.options.exif
    stored, upright = (header.width, header.height), header.upright_size
    said = (record["width"], record["height"])
    if (upright if exif == "apply" else stored) == said and (exif != "stop" or header.orientation == 1):
        return None
    ids = [entry["id"] for entry in record["annotations"][:1]]
    where = f"image {record['image_id']}{f', annotation {ids[0]}' if ids else ''}: {record['file_name']}"
    if header.orientation == 1 or said not in (stored, upright):
        return (
            f"{where} is {_size(upright)} pixels{' upright' * (header.orientation != 1)}, the annotations say "
            f"{_size(said)}: correct width and height (are its boxes in pixels of this file?), or put the file "
            "there that was annotated"
        )
    advice = "apply" if said != stored else "ignore"
    if stored == upright:
        told = f"the annotations say {_size(said)}, which fits both"
        advice = "apply if its boxes were drawn on the upright photo (most labelling tools), or --data.exif ignore"
    else:
        told = f"the annotations say {_size(said)}, as {'stored' if said == stored else 'upright'}"
    return (
        f"{where} has the EXIF orientation {header.orientation}: {_size(stored)} pixels as stored, {_size(upright)} "
        f"upright; {told}: set --data.exif {advice}"
    )


def _size(width_and_height: tuple[int, int]) -> str:
    return f"{width_and_height[0]}x{width_and_height[1]}"
