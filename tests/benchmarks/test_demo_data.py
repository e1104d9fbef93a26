import fcntl
import json
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from benchmarks.scenes.demo_data import ADE_BORDER_PX, ADE_GROUND_IDS, ADE_THING_IDS, COCO_CATEGORY_IDS, write_demo_data
from benchmarks.scenes.scene import MAIN_LEAD, draw_scene
from benchmarks.scenes.textures import CLASSES
from engine.data.images import index_images
from engine.errors import ConfigError, DataError
from tests.helpers import ROOT, environment

NUM_TRAIN, NUM_VAL, SEED = 40, 20, 3
SPLITS = [("train", "training", NUM_TRAIN), ("val", "validation", NUM_VAL)]


def write(directory, **changes):
    return write_demo_data(directory, **{"num_train": NUM_TRAIN, "num_val": NUM_VAL, "seed": SEED, **changes})


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    return write(tmp_path_factory.mktemp("demo") / "data")


def contents(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def ade_map(demo, split, folder, number):
    path = demo / f"ADEChallengeData2016/annotations/{folder}/ADE_{split}_{number:08d}.png"
    with Image.open(path) as image:
        assert image.mode == "L"
        return np.asarray(image)


def test_image_folder_has_balanced_classes_and_is_indexed_like_any_other(demo):
    for split, _, count in SPLITS:
        index = index_images(demo / "imagenet" / split, labelled=True)
        assert index.classes == CLASSES
        assert np.bincount(index.labels).tolist() == [count // 10] * 10


def test_the_label_is_the_class_of_the_largest_visible_object(demo):
    for split, _, count in SPLITS:
        coco = COCO(str(demo / f"coco/annotations/instances_{split}2017.json"))
        folders = {int(path.stem): path.parent.name for path in (demo / "imagenet" / split).rglob("*.jpg")}
        for number, image_id in enumerate(sorted(coco.getImgIds()), start=1):
            areas = sorted((a["area"], a["category_id"]) for a in coco.imgToAnns[image_id])
            assert CLASSES[COCO_CATEGORY_IDS.index(areas[-1][1])] == folders[number]
            assert len(areas) == 1 or areas[-1][0] >= MAIN_LEAD * areas[-2][0]
        assert len(folders) == count


def test_the_same_pictures_stand_in_all_three_data_sets(demo):
    for split, folder, count in SPLITS:
        labelled = {int(path.stem): path.read_bytes() for path in (demo / "imagenet" / split).rglob("*.jpg")}
        in_coco = sorted((demo / f"coco/{split}2017").glob("*.jpg"))
        in_ade = sorted((demo / f"ADEChallengeData2016/images/{folder}").glob("*.jpg"))
        assert len(labelled) == len(in_coco) == len(in_ade) == count
        for number, (one, other) in enumerate(zip(in_coco, in_ade, strict=True), start=1):
            assert one.read_bytes() == other.read_bytes() == labelled[number]


def test_coco_annotations_give_exactly_the_drawn_masks(demo):
    num_crowds = num_in_parts = 0
    for split, _, _ in SPLITS:
        coco = COCO(str(demo / f"coco/annotations/instances_{split}2017.json"))
        for index, image in enumerate(coco.loadImgs(sorted(coco.getImgIds()))):
            scene = draw_scene(SEED, split, index)
            annotations = coco.loadAnns(coco.getAnnIds(image["id"]))
            assert len(annotations) == len(scene.things)
            for annotation, thing in zip(annotations, scene.things, strict=True):
                mask = coco.annToMask(annotation).astype(bool)
                np.testing.assert_array_equal(mask, thing.visible_hw)
                x, y, width, height = annotation["bbox"]
                rows, columns = np.nonzero(mask)
                assert [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] == [x, y, x + width, y + height]
                assert annotation["area"] == mask.sum()
                assert annotation["iscrowd"] == thing.crowd
                num_crowds += thing.crowd
                num_in_parts += not thing.crowd and len(annotation["segmentation"]) > 1
    assert num_crowds and num_in_parts


def test_coco_images_have_the_size_their_annotations_state(demo):
    coco = COCO(str(demo / "coco/annotations/instances_train2017.json"))
    shapes = set()
    for image in coco.loadImgs(coco.getImgIds()):
        with Image.open(demo / "coco/train2017" / image["file_name"]) as picture:
            assert picture.size == (image["width"], image["height"])
            assert picture.mode == "RGB"
            shapes.add(picture.size)
    assert len({width / height for width, height in shapes}) >= 3
    assert all(128 <= side <= 160 for size in shapes for side in size)


def test_ade_masks_agree_with_the_coco_masks_inside_an_unlabelled_border(demo):
    for split, folder, _ in SPLITS:
        coco = COCO(str(demo / f"coco/annotations/instances_{split}2017.json"))
        for number, image_id in enumerate(sorted(coco.getImgIds()), start=1):
            labels = ade_map(demo, split, folder, number)
            inside = np.zeros(labels.shape, dtype=bool)
            inside[ADE_BORDER_PX:-ADE_BORDER_PX, ADE_BORDER_PX:-ADE_BORDER_PX] = True
            covered = np.zeros_like(inside)
            for annotation in coco.imgToAnns[image_id]:
                mask = coco.annToMask(annotation).astype(bool)
                label = ADE_THING_IDS[CLASSES[COCO_CATEGORY_IDS.index(annotation["category_id"])]]
                assert (labels[mask & inside] == label).all()
                covered |= mask
            assert np.isin(labels[~covered & inside], list(ADE_GROUND_IDS.values())).all()
            assert (labels[~inside] == 0).all()


def test_the_class_table_lists_every_used_id_with_its_share_of_the_pixels(demo):
    head, *rows = (demo / "ADEChallengeData2016/objectInfo150.txt").read_text().splitlines()
    assert head.split("\t") == ["Idx", "Ratio", "Train", "Val", "Stuff", "Name"]
    table = {int(row.split("\t")[0]): row.split("\t") for row in rows}
    assert {number: row[5] for number, row in table.items()} == {
        number: name for names in (ADE_GROUND_IDS, ADE_THING_IDS) for name, number in names.items()
    }
    maps = [ade_map(demo, "val", "validation", number + 1) for number in range(NUM_VAL)]
    for number, row in table.items():
        assert float(row[3]) == pytest.approx(np.mean([(labels == number).mean() for labels in maps]), abs=1e-4)


def test_the_same_seed_gives_the_same_bytes_also_from_several_processes(demo, tmp_path):
    assert contents(write(tmp_path / "again", num_workers=2)) == contents(demo)


def test_another_seed_gives_other_pictures_and_more_scenes_leave_the_first_ones_alone(demo, tmp_path):
    first = "coco/train2017/000000000001.jpg"
    more = contents(write(tmp_path / "more", num_train=41))
    images = {name: data for name, data in contents(demo).items() if name.endswith((".jpg", ".png"))}
    assert images.items() <= more.items()
    other = write(tmp_path / "other", num_train=10, num_val=10, seed=SEED + 1)
    assert (other / first).read_bytes() != images[first]


def test_colour_and_layout_alone_do_not_give_the_class_away():
    """A nearest-class-mean rule on colour histograms, a strong use of colour, stays far from solving the task."""
    histograms, labels = [], []
    for index in range(200):
        image = Image.fromarray(draw_scene(0, "train", index).image_hw3).convert("HSV")
        hue, saturation, _ = np.asarray(image).reshape(-1, 3).T
        histograms.append(np.sqrt(np.histogram2d(hue, saturation, bins=(12, 4), range=[[0, 256]] * 2)[0].ravel()))
        labels.append(index % 10)
    features, classes = np.array(histograms), np.array(labels)
    means = np.stack([features[:140][classes[:140] == c].mean(axis=0) for c in range(10)])
    guesses = ((features[140:, None] - means) ** 2).sum(axis=2).argmin(axis=1)
    assert (guesses == classes[140:]).mean() < 0.4


def test_a_directory_that_holds_the_same_data_set_is_reused(demo, capsys):
    before = {path: path.stat().st_mtime_ns for path in demo.rglob("*")}
    assert write(demo) == demo
    assert "reused" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in demo.rglob("*")} == before


def test_a_directory_with_anything_else_in_it_is_refused_and_left_alone(demo, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="not empty"):
        write(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    with pytest.raises(ConfigError, match=r"'seed': 3.*'seed': 4"):
        write(demo, seed=4)


def test_a_changed_or_missing_file_is_named(tmp_path):
    root = write(tmp_path / "data", num_train=10, num_val=10)
    victim = next((root / "coco/val2017").glob("*.jpg"))
    victim.write_bytes(victim.read_bytes()[:-10])
    with pytest.raises(DataError, match=victim.name):
        write(root, num_train=10, num_val=10)
    victim.unlink()
    with pytest.raises(DataError, match=victim.name):
        write(root, num_train=10, num_val=10)


@pytest.mark.parametrize("changes", [{"num_train": 9}, {"num_val": 0}, {"seed": -1}, {"num_workers": 0}])
def test_numbers_out_of_range_are_refused_before_anything_is_written(tmp_path, changes):
    with pytest.raises(ConfigError, match=next(iter(changes))):
        write(tmp_path / "data", **changes)
    assert not list(tmp_path.iterdir())


def test_a_killed_writer_leaves_no_data_set_and_the_next_one_finishes(tmp_path):
    target = tmp_path / "data"
    process = start_writer(target, num_train=100_000)
    wait_for(lambda: len(list((tmp_path / "data.partial").rglob("*.jpg"))) > 5)
    process.kill()
    process.wait()
    assert not target.exists()
    write(target, num_train=10, num_val=10)
    manifest = json.loads((target / "manifest.json").read_text())
    assert sorted(manifest["files"]) == sorted(set(contents(target)) - {"manifest.json"})
    assert not (tmp_path / "data.partial").exists()


def test_a_second_process_waits_for_the_first_and_reuses_its_result(tmp_path):
    target = tmp_path / "data"
    with (tmp_path / ".data.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = start_writer(target, num_train=10)
        assert "waiting" in process.stdout.readline()
        write(tmp_path / "elsewhere", num_train=10, num_val=10, seed=0).rename(target)
        fcntl.flock(lock, fcntl.LOCK_UN)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "reused" in output


def start_writer(target, num_train):
    call = f"write_demo_data({str(target)!r}, num_train={num_train}, num_val=10)"
    code = f"from benchmarks.scenes.demo_data import *; {call}"
    command = [sys.executable, "-u", "-c", code]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment())


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.02)
