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
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from detection.annotations import AnnotationReader, raise_problems, read_document
from engine import distributed
from engine.data.images import ImageIndex, Unreadable, index_images
from engine.data.index import PathList
from engine.errors import DataError

_NUM_NAMED = 5
_NUM_HEADER_THREADS = 8

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
        digest: sha256 of that file.
        index: the image files.
        records: what is annotated about each of them.
        category_ids: ascending; a label is a position in it.
        category_names: of the same order.
        is_wide: whether each image is wider than high, bool (num_images,).
        counts: images, objects, and what was left out and why.
        has_run_lengths: whether any object's mask is given as run lengths instead of polygons.
    """

    annotation_path: Path
    digest: str
    index: ImageIndex
    records: Records
    category_ids: tuple[int, ...]
    category_names: tuple[str, ...]
    is_wide: npt.NDArray[np.bool_]
    counts: dict[str, int]
    has_run_lengths: bool

    def __len__(self) -> int:
        return len(self.records)

    @property
    def pinned(self) -> ImageIndex:
        """What a resumed run must find again: names and sizes of the images, and the annotation file's content."""
        root, folder = self.index.root.parent, self.index.root.name
        sizes = {f"{folder}/{path}": int(size) for path, size in zip(self.index.paths, self.index.sizes, strict=True)}
        sizes[f"annotations/{self.annotation_path.name}#{self.digest}"] = 0
        paths = PathList(sizes)
        return ImageIndex(root, paths, np.array([sizes[path] for path in paths], dtype=np.int64))

    def ground_truth(self) -> dict[str, Any]:
        """The annotation file's document, reduced to this split's images, unchanged otherwise."""
        document = read_document(self.annotation_path)
        names = set(self.index.paths)
        images = [image for image in document["images"] if image["file_name"] in names]
        ids = {image["id"] for image in images}
        annotations = [entry for entry in document["annotations"] if entry["image_id"] in ids]
        return {**document, "images": images, "annotations": annotations}


def read_split(
    root: str | Path, name: str, *, training: bool, masks: bool, unreadable: Unreadable = "stop", num_images: int = 0
) -> CocoSplit:
    """Read and check `annotations/instances_<name>2017.json` and list `<name>2017/`; no image is opened.

    Args:
        root: the COCO folder.
        name: "train" or "val".
        training: leave images without objects out.
        masks: whether objects need an outline.
        unreadable: "stop" refuses image files of zero bytes.
        num_images: keep only the first by file name; 0 keeps all.

    Raises:
        DataError: see the head of this file.
    """
    path = Path(root) / "annotations" / f"instances_{name}2017.json"
    document = read_document(path)
    files = index_images(Path(root) / f"{name}2017", labelled=False, unreadable=unreadable)
    reader = AnnotationReader(path, document, files, masks=masks, evaluated=not training)
    records = reader.read()
    if training:
        num_all = len(records)
        records = [record for record in records if record["annotations"]]
        reader.counts["images_without_objects"] = num_all - len(records)
    if num_images:
        records = records[:num_images]
    if not records:
        raise DataError(f"{path}: no image {'with objects ' if training else ''}is left; counted: {reader.counts}")
    sizes = {path: int(size) for path, size in zip(files.paths, files.sizes, strict=True)}
    paths = PathList(record["file_name"] for record in records)
    counts = {
        "images": len(records),
        "objects": sum(len(record["annotations"]) for record in records),
        **reader.counts,
    }
    log.info("%s: %s", path.name, "  ".join(f"{key.replace('_', ' ')} {value}" for key, value in counts.items()))
    return CocoSplit(
        annotation_path=path,
        digest=hashlib.sha256(path.read_bytes()).hexdigest(),
        index=ImageIndex(files.root, paths, np.array([sizes[path] for path in paths], dtype=np.int64)),
        records=Records(records),
        category_ids=tuple(reader.labels),
        category_names=tuple(reader.names[number] for number in reader.labels),
        is_wide=np.array([record["width"] > record["height"] for record in records]),
        counts=counts,
        has_run_lengths=reader.has_run_lengths,
    )


def check_same_categories(train: CocoSplit, val: CocoSplit) -> None:
    """Require equal category ids and names in both splits.

    Raises:
        DataError: listing the first that differ.
    """
    first, second = (set(zip(s.category_ids, s.category_names, strict=True)) for s in (train, val))
    if first != second:
        differing = ", ".join(f"{number} {name!r}" for number, name in sorted(first ^ second)[:_NUM_NAMED])
        raise DataError(
            f"{train.annotation_path} and {val.annotation_path} differ in {len(first ^ second)} categories: {differing}"
        )


def check_image_sizes(split: CocoSplit) -> None:
    """Open every image's header and compare its size with the annotations'; each rank opens its part.

    Headers that cannot be read are left to the reading itself, which knows what to do at a bad file.

    Raises:
        DataError: on every rank, naming the images and an annotation of each.
    """
    mine = range(distributed.rank(), len(split), distributed.world_size())
    with ThreadPoolExecutor(_NUM_HEADER_THREADS) as pool:
        found = [problem for problem in pool.map(lambda i: _size_problem(split, i), mine) if problem]
    everywhere = [problem for part in distributed.gather_objects(found) for problem in part]
    raise_problems(split.annotation_path, sorted(everywhere))


def size_disagreement(record: dict[str, Any], width: int, height: int) -> str:
    """The sentence about an image file whose size is not what the annotations say."""
    ids = [entry["id"] for entry in record["annotations"][:1]]
    about = f", annotation {ids[0]}" if ids else ""
    return (
        f"image {record['image_id']}{about}: {record['file_name']} is {width}x{height} pixels, the annotations say "
        f"{record['width']}x{record['height']}"
    )


def _size_problem(split: CocoSplit, position: int) -> str | None:
    record = split.records[position]
    try:
        with Image.open(split.index.path(position)) as image:
            width, height = image.size
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError):
        return None
    same = (width, height) == (record["width"], record["height"])
    return None if same else size_disagreement(record, width, height)
