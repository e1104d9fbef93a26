"""Numbers 1, 2, 3, ... in place of the ids of images, annotations and categories while COCO's tools measure.

They take an annotation id of 0 for none, and put ids into floating-point numbers, which end at 2**53. What they measure
depends on the order of the ids only, which the numbers keep.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Numbered:
    """An annotated set with numbers for ids.

    Args:
        document: a copy of the annotations with the numbers in it.
        images: image id -> its number.
        categories: category id -> its number.
    """

    document: dict[str, Any]
    images: Mapping[int, int]
    categories: Mapping[int, int]

    def results(self, results: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
        """Copies of detections, each with image_id and category_id, with the numbers in them."""
        return [
            {**r, "image_id": self.images[r["image_id"]], "category_id": self.categories[r["category_id"]]}
            for r in results
        ]


def numbered(document: dict[str, Any]) -> Numbered:
    """A COCO document with new ids; the one given stays as it is."""
    images, categories = (
        {number: place for place, number in enumerate(sorted(entry["id"] for entry in document[kind]), 1)}
        for kind in ("images", "categories")
    )
    lists = {
        "images": [{**image, "id": images[image["id"]]} for image in document["images"]],
        "annotations": [
            {
                **entry,
                "id": place,
                "image_id": images[entry["image_id"]],
                "category_id": categories[entry["category_id"]],
            }
            for place, entry in enumerate(document["annotations"], 1)
        ],
        "categories": [{**category, "id": categories[category["id"]]} for category in document["categories"]],
    }
    return Numbered({**document, **lists}, images, categories)
