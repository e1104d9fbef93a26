"""Numbers 1, 2, 3, ... in place of the ids of images and annotations while COCO's tools measure.

They take an annotation id of 0 for none, and put ids into floating-point numbers, which end at 2**53. What they measure
depends on the order of the image ids only, which the numbers keep.
"""

from typing import Any


def numbered(document: dict[str, Any]) -> tuple[dict[str, Any], dict[int, int]]:
    """A copy of the annotations with new ids, and {image id: its number}; the document stays as it is."""
    numbers = {image_id: number for number, image_id in enumerate(sorted(i["id"] for i in document["images"]), 1)}
    images = [{**image, "id": numbers[image["id"]]} for image in document["images"]]
    annotations = [
        {**entry, "id": number, "image_id": numbers[entry["image_id"]]}
        for number, entry in enumerate(document["annotations"], 1)
    ]
    return {**document, "images": images, "annotations": annotations}, numbers
