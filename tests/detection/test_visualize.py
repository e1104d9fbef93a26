"""Pictures show boxes, masks and names where the objects are, in one colour for each category."""

import numpy as np
import pytest
from PIL import Image

from detection.visualize import _colour, draw, save_panels, side_by_side
from tests.detection.folders import CATEGORIES, read_split, write

GREY = np.full((240, 480, 3), 100, np.uint8)  # large enough to be drawn as it is


def thing(category, x, y, width, height, **fields):
    polygon = [[x, y, x + width, y, x + width, y + height, x, y + height]]
    return {"category_id": category, "bbox": [x, y, width, height], "segmentation": polygon, **fields}


def test_the_box_is_outlined_and_the_mask_tinted_in_the_colour_of_the_category():
    picture = np.array(draw(GREY, [thing(5, 100, 80, 200, 100, score=0.9)], CATEGORIES)).astype(int)
    colour = np.array(_colour(sorted(CATEGORIES).index(5)))
    for y, x in ((80, 250), (180, 250), (130, 100), (130, 300)):
        assert (picture[y, x] == colour).all(), (y, x)
    assert (picture[150, 200] == (100 + 0.45 * (colour - 100)).round()).all()
    outside = np.ones(GREY.shape[:2], bool)
    outside[80:181, 100:301] = False
    assert (picture[outside] == 100).all()


def test_a_small_image_is_enlarged_with_its_boxes():
    picture = np.array(draw(np.full((48, 64, 3), 100, np.uint8), [thing(2, 16, 8, 32, 24)], CATEGORIES))
    assert picture.shape == (48 * 8, 64 * 8, 3)
    assert (picture[20 * 8, 16 * 8] == _colour(0)).all()


def test_names_of_objects_at_one_place_are_written_below_each_other():
    things = [thing(number, 100, 80, 300, 120, score=0.5) for number in CATEGORIES]
    picture = np.array(draw(GREY, [{**one, "segmentation": None} for one in things], CATEGORIES))
    rows = []
    for place in range(len(CATEGORIES)):
        is_colour = (picture[84:190, 103:110] == _colour(place)).all(axis=2)
        rows.append(set(np.flatnonzero(is_colour.any(axis=1))))
        assert len(rows[-1]) >= 8
    assert not rows[0] & rows[1] | rows[1] & rows[2] | rows[0] & rows[2]


def test_panels_stand_annotations_beside_detections_and_hide_unsure_ones(tmp_path):
    (tmp_path / "val2017").mkdir()
    Image.fromarray(GREY).save(tmp_path / "val2017" / "a.png")
    document = {
        "categories": [{"id": number, "name": name} for number, name in CATEGORIES.items()],
        "images": [{"id": 7, "file_name": "a.png", "width": 480, "height": 240}],
        "annotations": [{**thing(2, 20, 40, 100, 100, id=1, iscrowd=0), "image_id": 7}],
    }
    found = [thing(5, 300 + 5 * i, 100, 50, 50, score=score, image_id=7) for i, score in enumerate((0.9, 0.4, 0.3))]
    unsure = [thing(9, 20, 200, 30, 30, score=0.2, image_id=7)]
    write(tmp_path, "val", document)
    val = read_split(tmp_path, "val", training=False, masks=True)
    (path,) = save_panels(tmp_path / "panels", val, found + unsure, 4)
    assert path.name == "000000000007.png"
    picture = np.array(Image.open(path)).astype(int)
    left, right = picture[-240:, :480], picture[-240:, -480:]
    assert (left[90, 20] == _colour(0)).all()
    assert (right[120, 300] == _colour(1)).all()
    assert (right[210:, :60] == 100).all(), "the fourth detection, below the score that is shown"


def test_both_halves_have_a_heading():
    joined = np.array(side_by_side(Image.fromarray(GREY), Image.fromarray(GREY)))
    strip = joined[:-240]
    assert (strip[:, :60] < 128).any()
    assert (strip[:, 488:548] < 128).any()


@pytest.mark.parametrize("segmentation", [None, []])
def test_an_object_without_a_mask_has_its_box_only(segmentation):
    picture = np.array(draw(GREY, [{**thing(2, 100, 80, 200, 100), "segmentation": segmentation}], CATEGORIES))
    assert (picture[150, 200] == 100).all()
