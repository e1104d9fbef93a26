"""The annotations of one split: read, checked before anything trains, and kept so that reader processes share them.

What is found and what happens then: a malformed or missing file, an image without its file, an unknown category or
image id, an id used twice, a box outside its image, an object without outline, an image whose file has another size
than the annotations say: the run does not start (exit 3), the ids are named. A box without area or a mask without a
polygon is left out and counted, a crowd is no training target and counted, an image that keeps no object is left out of
training and counted. The evaluation uses the annotations as they are: crowds are regions it ignores.
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

from engine import distributed
from engine.errors import DataError
from engine.images import ImageIndex, Unreadable, index_images
from engine.index import PathList

OVERSHOOT_PX = 2.0
"""How far a box may reach over the edge of its image before it counts as outside: COCO's own are rounded."""
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
        document = _read_json(self.annotation_path)
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
    document = _read_json(path)
    files = index_images(Path(root) / f"{name}2017", labelled=False, unreadable=unreadable)
    reader = _Reader(path, document, files, masks)
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
    _raise_problems(split.annotation_path, sorted(everywhere))


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


def _read_json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise DataError(
            f"{path}: no such file; --data.root wants a folder with annotations/instances_{{train,val}}2017.json, "
            "train2017/ and val2017/"
        ) from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise DataError(f"{path}: not JSON ({error})") from error
    missing = [key for key in ("images", "annotations", "categories") if not isinstance(document.get(key), list)]
    if missing:
        raise DataError(f"{path}: not a COCO annotation file, it has no list of {' or '.join(missing)}")
    return dict(document)


def _raise_problems(path: Path, problems: Sequence[str]) -> None:
    if problems:
        more = len(problems) - _NUM_NAMED
        lines = "".join(f"\n  - {problem}" for problem in problems[:_NUM_NAMED])
        raise DataError(
            f"{path}: {len(problems)} problem{'s' * (len(problems) > 1)}:{lines}"
            + (f"\n  - and {more:,} more" if more > 0 else "")
        )


class _Reader:
    """Turns a document into records and collects every problem on the way."""

    def __init__(self, path: Path, document: dict[str, Any], files: ImageIndex, masks: bool) -> None:
        self.path, self.document, self.masks = path, document, masks
        self.files = set(files.paths)
        self.folder = files.root
        self.problems: list[str] = []
        self.counts = {"crowds": 0, "boxes_without_area": 0, "masks_without_polygon": 0}
        self.has_run_lengths = False
        self.names = {int(entry["id"]): str(entry["name"]) for entry in document["categories"]}
        if not self.names or len(self.names) < len(document["categories"]):
            self.problems.append(f"{len(document['categories'])} categories with {len(self.names)} different ids")
        self.labels = {number: label for label, number in enumerate(sorted(self.names))}

    def read(self) -> list[dict[str, Any]]:
        """The records of all images, sorted by file name."""
        records: dict[int, dict[str, Any]] = {}
        for image in self.document["images"]:
            record = self._image(image)
            if record["image_id"] in records:
                self.problems.append(f"image {record['image_id']}: this id is used twice")
            records[record["image_id"]] = record
        names = [record["file_name"] for record in records.values()]
        if len(set(names)) < len(names):
            self.problems.append(f"{len(names) - len(set(names))} file names belong to more than one image")
        used: set[int] = set()
        for entry in self.document["annotations"]:
            where = f"image {entry.get('image_id')}, annotation {entry.get('id')}"
            if entry.get("id") in used:
                self.problems.append(f"{where}: this annotation id is used twice")
            used.add(entry.get("id"))
            self._add(records.get(entry.get("image_id", -1)), entry, where)
        _raise_problems(self.path, self.problems)
        return sorted(records.values(), key=lambda record: record["file_name"])

    def _image(self, image: dict[str, Any]) -> dict[str, Any]:
        record = {
            "image_id": image.get("id", -1),
            "file_name": str(image.get("file_name", "")),
            "height": image.get("height", 0),
            "width": image.get("width", 0),
            "annotations": [],
        }
        if record["file_name"] not in self.files:
            self.problems.append(f"image {record['image_id']}: {self.folder / record['file_name']} is missing")
        if not (record["height"] > 0 and record["width"] > 0):
            self.problems.append(f"image {record['image_id']}: its size {record['width']}x{record['height']} is none")
        return record

    def _add(self, record: dict[str, Any] | None, entry: dict[str, Any], where: str) -> None:
        """Add an annotation to its image's record, unless something is wrong with it."""
        if record is None:
            self.problems.append(f"{where}: there is no such image")
            return
        if entry.get("category_id") not in self.labels:
            self.problems.append(f"{where}: there is no category {entry.get('category_id')}")
            return
        problem = _box_problem(entry.get("bbox"), record)
        if problem:
            self.problems.append(f"{where}: {problem}")
        elif entry.get("iscrowd", 0):
            self.counts["crowds"] += 1
        elif min(entry["bbox"][2:]) <= 0:
            self.counts["boxes_without_area"] += 1
        else:
            kept = {"id": entry["id"], "bbox": entry["bbox"], "label": self.labels[entry["category_id"]]}
            if not self.masks or self._add_mask(kept, entry.get("segmentation"), where):
                record["annotations"].append(kept)

    def _add_mask(self, kept: dict[str, Any], segmentation: Any, where: str) -> bool:
        if isinstance(segmentation, dict) and {"counts", "size"} <= segmentation.keys():
            self.has_run_lengths = True
            kept["segmentation"] = segmentation
            return True
        if not isinstance(segmentation, list):
            self.problems.append(f"{where}: it has no outline (segmentation), which a detector with masks needs")
            return False
        polygons = [polygon for polygon in segmentation if len(polygon) >= 6 and len(polygon) % 2 == 0]
        self.counts["masks_without_polygon"] += not polygons
        kept["segmentation"] = polygons
        return bool(polygons)


def _box_problem(box: Any, record: dict[str, Any]) -> str | None:
    """What is wrong with a box [x, y, width, height], apart from having no area."""
    if not (isinstance(box, list) and len(box) == 4 and np.isfinite(np.array(box, dtype=float)).all()):
        return f"its box {box} is not four finite numbers"
    x, y, width, height = box
    if width < 0 or height < 0:
        return f"its box {box} has a negative side"
    over = max(-x, -y, x + width - record["width"], y + height - record["height"])
    if over > OVERSHOOT_PX:
        return f"its box {box} lies outside the {record['width']}x{record['height']} image"
    return None
