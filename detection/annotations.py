"""One COCO annotation file: read, checked, and turned into a record for each image.

Everything that would stop the training or the evaluation hours later is found here: missing or mistyped fields, unknown
images and categories, boxes outside their image, outlines that cannot be drawn. coco.py says what happens then.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from engine.data.images import ImageIndex
from engine.errors import DataError

OVERSHOOT_PX = 2.0
"""How far a box may reach over the edge of its image before it counts as outside: COCO's own are rounded."""
_NUM_NAMED = 5
_WHOLE_NUMBERS = {
    "images": ("id", "width", "height"),
    "annotations": ("id", "image_id", "category_id"),
    "categories": ("id",),
}
_OTHERS = {"images": ("file_name",), "annotations": ("bbox",), "categories": ("name",)}
_FOR_EVALUATION = ("area", "iscrowd")


def read_document(path: Path) -> dict[str, Any]:
    """The content of an annotation file, with its three lists.

    Raises:
        DataError: the file is missing or no COCO annotation file.
    """
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
    lists = document if isinstance(document, dict) else {}
    missing = [key for key in _WHOLE_NUMBERS if not isinstance(lists.get(key), list)]
    if missing:
        raise DataError(f"{path}: not a COCO annotation file, it has no list of {' or '.join(missing)}")
    return lists


def raise_problems(path: Path, problems: Sequence[str]) -> None:
    """Stop where there is a problem.

    Raises:
        DataError: names the first five, and how many there are.
    """
    if problems:
        more = len(problems) - _NUM_NAMED
        lines = "".join(f"\n  - {problem}" for problem in problems[:_NUM_NAMED])
        raise DataError(
            f"{path}: {len(problems)} problem{'s' * (len(problems) > 1)}:{lines}"
            + (f"\n  - and {more:,} more" if more > 0 else "")
        )


class AnnotationReader:
    """Turns a document into records and collects every problem on the way.

    Args:
        path: of the document, for messages.
        document: from read_document.
        files: the image files.
        masks: whether objects need an outline.
        evaluated: whether COCO's evaluation will read the document too, which needs more of it.
    """

    def __init__(
        self, path: Path, document: dict[str, Any], files: ImageIndex, *, masks: bool, evaluated: bool
    ) -> None:
        self.path, self.document, self.masks, self.evaluated = path, document, masks, evaluated
        self.files = set(files.paths)
        self.folder = files.root
        self.counts = {"crowds": 0, "boxes_without_area": 0, "masks_without_polygon": 0}
        self.has_run_lengths = False
        raise_problems(path, [problem for kind in _WHOLE_NUMBERS for problem in self._shape_problems(kind)])
        self.names: dict[int, str] = {entry["id"]: str(entry["name"]) for entry in document["categories"]}
        self.labels = {number: label for label, number in enumerate(sorted(self.names))}
        self.problems: list[str] = []
        if not self.names or len(self.names) < len(document["categories"]):
            self.problems.append(f"{len(document['categories'])} categories with {len(self.names)} different ids")

    def read(self) -> list[dict[str, Any]]:
        """The records of all images, sorted by file name.

        Raises:
            DataError: naming the first problems.
        """
        records: dict[int, dict[str, Any]] = {}
        for image in self.document["images"]:
            if image["id"] in records:
                self.problems.append(f"image {image['id']}: this id is used twice")
            records[image["id"]] = self._image(image)
        names = [record["file_name"] for record in records.values()]
        if len(set(names)) < len(names):
            self.problems.append(f"{len(names) - len(set(names))} file names belong to more than one image")
        used: set[int] = set()
        for entry in self.document["annotations"]:
            where = f"image {entry['image_id']}, annotation {entry['id']}"
            if entry["id"] in used:
                self.problems.append(f"{where}: this annotation id is used twice")
            used.add(entry["id"])
            problem = self._add(records.get(entry["image_id"]), entry)
            if problem:
                self.problems.append(f"{where}: {problem}")
        raise_problems(self.path, self.problems)
        return sorted(records.values(), key=lambda record: record["file_name"])

    def _shape_problems(self, kind: str) -> list[str]:
        """Entries of a list that lack a field, or whose ids and sizes are no whole numbers."""
        needed = (*_WHOLE_NUMBERS[kind], *_OTHERS[kind])
        if kind == "annotations" and self.evaluated:
            needed += _FOR_EVALUATION
        problems = []
        for place, entry in enumerate(self.document[kind]):
            if not isinstance(entry, dict):
                problems.append(f"{kind}, entry {place}: {entry!r} is not an object with fields")
                continue
            known = ", ".join(f"{name} {entry[name]}" for name in ("id", "image_id", "file_name") if name in entry)
            where = f"{kind}, entry {place} ({known or 'no id'})"
            lacking = [name for name in needed if name not in entry]
            problems += [f"{where}: it has no {', '.join(lacking)}"] if lacking else []
            odd = [name for name in _WHOLE_NUMBERS[kind] if name in entry and type(entry[name]) is not int]
            problems += [f"{where}: its {name} {entry[name]!r} is no whole number" for name in odd]
        return problems

    def _image(self, image: dict[str, Any]) -> dict[str, Any]:
        record = {
            "image_id": image["id"],
            "file_name": str(image["file_name"]),
            "height": image["height"],
            "width": image["width"],
            "annotations": [],
        }
        if record["file_name"] not in self.files:
            self.problems.append(f"image {record['image_id']}: {self.folder / record['file_name']} is missing")
        if not (record["height"] > 0 and record["width"] > 0):
            self.problems.append(f"image {record['image_id']}: its size {record['width']}x{record['height']} is none")
        return record

    def _add(self, record: dict[str, Any] | None, entry: dict[str, Any]) -> str | None:
        """Add an annotation to its image's record; or what is wrong with it."""
        if record is None:
            return "there is no such image"
        if entry["category_id"] not in self.labels:
            return f"there is no category {entry['category_id']}"
        if self.evaluated and entry["id"] < 1:
            return "COCO's evaluation takes an annotation id below 1 for no annotation: number them from 1"
        crowd = bool(entry.get("iscrowd", 0))
        problem = _box_problem(entry["bbox"], record)
        if not problem and self.masks and (self.evaluated or not crowd):
            problem = _outline_problem(entry.get("segmentation"), record, self.evaluated)
        if problem:
            return problem
        if crowd:
            self.counts["crowds"] += 1
        elif min(entry["bbox"][2:]) <= 0:
            self.counts["boxes_without_area"] += 1
        else:
            kept = {"id": entry["id"], "bbox": entry["bbox"], "label": self.labels[entry["category_id"]]}
            if not self.masks or self._add_outline(kept, entry["segmentation"]):
                record["annotations"].append(kept)
        return None

    def _add_outline(self, kept: dict[str, Any], outline: Any) -> bool:
        if isinstance(outline, dict):
            self.has_run_lengths = True
            kept["segmentation"] = outline
            return True
        polygons = [polygon for polygon in outline if len(polygon) >= 6 and len(polygon) % 2 == 0]
        self.counts["masks_without_polygon"] += not polygons
        kept["segmentation"] = polygons
        return bool(polygons)


def _box_problem(box: Any, record: dict[str, Any]) -> str | None:
    """What is wrong with a box [x, y, width, height], apart from having no area."""
    numbers = isinstance(box, list) and len(box) == 4 and all(isinstance(value, int | float) for value in box)
    if not numbers or not np.isfinite(box).all():
        return f"its box {box} is not four finite numbers"
    x, y, width, height = box
    if width < 0 or height < 0:
        return f"its box {box} has a negative side"
    over = max(-x, -y, x + width - record["width"], y + height - record["height"])
    if over > OVERSHOOT_PX:
        return f"its box {box} lies outside the {record['width']}x{record['height']} image"
    return None


def _outline_problem(outline: Any, record: dict[str, Any], evaluated: bool) -> str | None:
    """What is wrong with a mask. Polygons of fewer than three points are left out of training, but COCO's evaluation
    takes the form of the first one for that of all."""
    if isinstance(outline, dict) and {"counts", "size"} <= outline.keys():
        if list(outline["size"]) == [record["height"], record["width"]]:
            return None
        return f"its mask has size {outline['size']}, its image [{record['height']}, {record['width']}]"
    if not isinstance(outline, list) or not all(isinstance(polygon, list) for polygon in outline):
        return "it has no outline (segmentation), which a detector with masks needs"
    if evaluated and not (outline and len(outline[0]) >= 6):
        return "its outline begins with no polygon of three points or more, and COCO's evaluation cannot read it"
    return None
