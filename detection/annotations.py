"""One COCO annotation file: read, checked, and turned into a record for each image.

Everything that would stop the training or the evaluation hours later, or spoil them without a word, is found here, in
every value of every annotation: missing or mistyped fields, unknown images and categories, boxes outside their image,
outlines that cannot be drawn. coco.py says what happens then.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from detection.classes import chosen
from detection.consistency import area_problem, box_problem, faults_of_all, outline_problem
from detection.fields import LISTS, check_fields
from detection.filenames import FileNames
from detection.outlines import Outline, area_of, look_at_outlines
from detection.word_ids import number_words
from engine.data.files import open_file, read_all
from engine.errors import DataError

_NUM_NAMED = 5
Record = dict[str, Any]

BOXES_ALONE = "Where objects have boxes and no outlines, a detector without masks takes them: --detector retinanet-fpn"


def read_document(path: Path) -> dict[str, Any]:
    """The content of an annotation file, with its three lists.

    Raises:
        DataError: the file is missing or no COCO annotation file.
    """
    try:
        with open_file(path) as descriptor:
            document = json.loads(read_all(descriptor))
    except FileNotFoundError as error:
        raise DataError(
            f"{path}: no such file; --data.root wants a folder with annotations/instances_{{train,val}}2017.json, "
            "train2017/ and val2017/ (or say where they are: --data.train-annotations, --data.train-images, ...)"
        ) from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    except RecursionError as error:
        raise DataError(f"{path}: not a COCO annotation file, its JSON is nested thousands of levels deep") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not JSON in UTF-8 ({error}): store it in that encoding") from error
    except ValueError as error:
        raise DataError(f"{path}: not JSON ({error})") from error
    lists = document if isinstance(document, dict) else {}
    missing = [key for key in LISTS if not isinstance(lists.get(key), list)]
    if missing:
        raise DataError(
            f"{path}: not a COCO annotation file, it has no list of {' or '.join(missing)}{_what_else(document)}"
        )
    return lists


def _what_else(document: Any) -> str:
    if isinstance(document, list):
        return ". It is a list, as files of results are: give the file with images, annotations and categories"
    if isinstance(document, dict) and isinstance(document.get("images"), list) and "annotations" not in document:
        return (
            ". It lists images alone, as those of COCO's test sets do: `python -m detection predict` takes such a file"
        )
    return ""


def raise_problems(path: Path, problems: Sequence[str], hint: str = "") -> None:
    """Stop where there is a problem; the hint is what else may be done.

    Raises:
        DataError: names the first five, and how many there are.
    """
    if problems:
        more = len(problems) - _NUM_NAMED
        lines = "".join(f"\n  - {problem}" for problem in problems[:_NUM_NAMED])
        raise DataError(
            f"{path}: {len(problems)} problem{'s' * (len(problems) > 1)}:{lines}"
            + (f"\n  - and {more:,} more" if more > 0 else "")
            + (f"\n{hint}" if hint else "")
        )


class AnnotationReader:
    """Turns a document into records and collects every problem on the way.

    Args:
        path: of the document, for messages.
        document: from read_document; brought into COCO's own form in place.
        files: the image files.
        masks: whether objects need an outline.
        evaluated: whether COCO's evaluation will read the document too, which needs more of it.
        classes: names of the categories to keep, in the order of their labels; () for all.

    Raises:
        DataError: a field of an entry is missing or means nothing, or a class is not among the categories.
    """

    def __init__(
        self,
        path: Path,
        document: dict[str, Any],
        files: FileNames,
        *,
        masks: bool,
        evaluated: bool,
        classes: Sequence[str] = (),
    ) -> None:
        self.path, self.document, self.masks, self.evaluated, self.files = path, document, masks, evaluated, files
        self.counts = {"crowds": 0, "boxes_without_area": 0, "masks_without_polygon": 0}
        self.counts |= {"objects_of_other_classes": 0} if classes else {}
        self.has_run_lengths = False
        self.hint = ""
        num_words = number_words(document)
        problems, self.as_meant = check_fields(document, evaluated=evaluated)
        self.as_meant |= {"ids that are words": num_words} if num_words else {}
        raise_problems(path, problems)
        self.names: dict[int, str] = {entry["id"]: entry["name"] for entry in document["categories"]}
        self.problems: list[str] = []
        if not self.names:
            self.problems.append("its list of categories is empty: write {id, name} for each class")
        elif len(self.names) < len(document["categories"]):
            self.problems.append(
                f"{len(document['categories'])} categories with {len(self.names)} different ids: give each its own"
            )
        self.labels = {category: label for label, category in enumerate(chosen(self.names, classes, path))}

    def read(self) -> list[Record]:
        """The records of all images, sorted by file name.

        Raises:
            DataError: naming the first problems.
        """
        records: dict[int, Record] = {}
        for image in self.document["images"]:
            if image["id"] in records:
                self.problems.append(f"image {image['id']}: this id is used twice: give each image its own")
            records[image["id"]] = self._image(image)
        names = [record["file_name"] for record in records.values()]
        if len(set(names)) < len(names):
            twice = sorted({name for name in names if names.count(name) > 1})[:_NUM_NAMED] if len(names) < 1000 else []
            self.problems.append(
                f"{len(names) - len(set(names))} file names belong to more than one image{': ' * bool(twice)}"
                + ", ".join(twice)
            )
        raise_problems(self.path, self.problems)
        self._annotations(records)
        raise_problems(self.path, self.problems, self.hint)
        return sorted(records.values(), key=lambda record: str(record["file_name"]))

    def _image(self, image: dict[str, Any]) -> Record:
        name = self.files.find(image["file_name"])
        if name is None:
            self.problems.append(f"image {image['id']}: {self.files.why_not(image['file_name'])}")
        elif name != image["file_name"]:
            image["file_name"] = name
            self.as_meant["file_name"] = self.as_meant.get("file_name", 0) + 1
        if not (image["height"] > 0 and image["width"] > 0):
            self.problems.append(
                f"image {image['id']}: its size {image['width']}x{image['height']} is none: write those of the file"
            )
        size = {"height": image["height"], "width": image["width"]}
        return {"image_id": image["id"], "file_name": image["file_name"], **size, "annotations": []}

    def _annotations(self, records: dict[int, Record]) -> None:
        """Check all annotations and give each image its own."""
        entries = self.document["annotations"]
        used: set[int] = set()
        placed: list[tuple[dict[str, Any], Record]] = []
        for entry in entries:
            record = records.get(entry["image_id"])
            problem = self._misplaced(entry, record, used)
            used.add(entry["id"])
            if problem:
                self.problems.append(f"image {entry['image_id']}, annotation {entry['id']}: {problem}")
            elif record is not None:
                placed.append((entry, record))
        outlines: Sequence[Outline | None] = [None] * len(placed)
        if self.masks:
            outlines = look_at_outlines(
                [entry.get("segmentation") for entry, _ in placed],
                [record["height"] for _, record in placed],
                [record["width"] for _, record in placed],
            )
        for (entry, record), outline in zip(placed, outlines, strict=True):
            self._add(entry, record, outline)
        if self.problems and any(not entry.get("segmentation") for entry, _ in placed):
            self.hint = BOXES_ALONE
        if not self.problems:
            self.problems += faults_of_all([entry for entry, _ in placed], outlines)

    def _misplaced(self, entry: dict[str, Any], record: Record | None, used: set[int]) -> str | None:
        """What is wrong with an annotation's ids, box and area."""
        if entry["id"] in used:
            return "this annotation id is used twice: give each annotation its own"
        if record is None:
            return f"there is no such image: correct its image_id {entry['image_id']}, or add the image"
        if entry["category_id"] not in self.names:
            return f"there is no category {entry['category_id']}: correct its category_id, or add the category"
        problem = box_problem(entry["bbox"], record)
        return problem or area_problem(entry, record)

    def _add(self, entry: dict[str, Any], record: Record, outline: Outline | None) -> None:
        """Add an annotation to its image's record, or count why not."""
        crowd = bool(entry.get("iscrowd", 0))
        if outline is not None and (self.evaluated or not crowd):
            problem = outline_problem(outline, self.evaluated)
            if problem:
                self.problems.append(f"image {record['image_id']}, annotation {entry['id']}: {problem}")
                return
            if outline.as_meant:
                entry["segmentation"] = outline.value
                self.as_meant["segmentation"] = self.as_meant.get("segmentation", 0) + 1
        if self.evaluated and "area" not in entry:
            entry["area"] = _measured(entry, outline, record)
            self.as_meant["missing area"] = self.as_meant.get("missing area", 0) + 1
        if entry["category_id"] not in self.labels:
            self.counts["objects_of_other_classes"] += 1
        elif crowd:
            self.counts["crowds"] += 1
        elif min(entry["bbox"][2:]) <= 0:
            self.counts["boxes_without_area"] += 1
        else:
            kept = {"id": entry["id"], "bbox": entry["bbox"], "label": self.labels[entry["category_id"]]}
            if outline is None or self._add_outline(kept, outline.value):
                record["annotations"].append(kept)

    def _add_outline(self, kept: dict[str, Any], outline: Any) -> bool:
        if isinstance(outline, dict):
            self.has_run_lengths = True
            kept["segmentation"] = outline
            return True
        polygons = [polygon for polygon in outline if len(polygon) >= 6]
        self.counts["masks_without_polygon"] += not polygons
        kept["segmentation"] = polygons
        return bool(polygons)


def _measured(entry: dict[str, Any], outline: Outline | None, record: Record) -> float:
    """The area that an annotation leaves out: of its outline, or of its box."""
    if outline is not None and outline.value:
        return area_of(outline.value, record["height"], record["width"])
    return float(entry["bbox"][2] * entry["bbox"][3])
