"""Data sets of one's own: what is found where, which labels they hold, and what is said before training."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from engine.errors import DataError
from segmentation.check import check_pairs, judge, refuse
from segmentation.check import main as check_main
from segmentation.config import DataConfig
from segmentation.labels import classes_in
from segmentation.layout import SPLITS, find_pairs

pytestmark = pytest.mark.mmseg


def write(image, label_map, labels):
    """A small picture and a map of 8 columns that hold the labels in turn."""
    for path in (image, label_map):
        path.parent.mkdir(parents=True, exist_ok=True)
    stored = np.resize(np.array(labels, dtype=np.uint8), (4, 8))
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (4, 8, 3), dtype=np.uint8)).save(image)
    Image.fromarray(stored).save(label_map)


def make(root, labels, *, num_train=3, num_val=2, images="images", maps="masks"):
    for split, count in (("train", num_train), ("val", num_val)):
        for i in range(count):
            write(root / images / split / f"{i}.jpg", root / maps / split / f"{i}.png", labels)
    return root


def verdict(root, **options):
    """What a run says about the labels before it trains; "" if it has nothing against them."""
    options = DataConfig(root=str(root), **options)
    classes = classes_in(options)
    found = {split: check_pairs(pairs, classes, options) for split, pairs in find_pairs(options).items()}
    try:
        refuse(sorted(fault for part in found.values() for fault in part.faults), found, classes, options)
        judge(found, classes, options)
    except DataError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("labels", "advice"),
    [
        (
            [0, 1],
            "--data.classes NAMES (or a file) with 2 names, the first for label 0; or, if 0 is unlabelled, 1 name,",
        ),
        ([0, 1, 2, 3], "4 names, the first for label 0; or, if 0 is unlabelled, 3 names, --data.label-offset 1"),
        ([1, 2, 3], "with 3 names, --data.label-offset 1. If they are: --data.classes ade20k"),
        ([0, 1, 3], "name them with their labels, --data.classes name=0,name=1,name=3"),
        ([0, 7, 26], "name them with their labels, --data.classes name=0,name=7,name=26"),  # not named like ADE20K's
        ([0, 1, 2, 255], "3 names --data.ignore-label 255, the first for label 0"),
        ([1, 2, 255], "with 2 names, --data.label-offset 1 --data.ignore-label 255"),
        ([0, 255], "--data.classes name=0,name=255"),
        ([0, 128, 200], "--data.classes name=0,name=128,name=200"),
    ],
)
def test_labels_of_ones_own_are_not_taken_for_ade20ks(tmp_path, labels, advice):
    root = make(tmp_path, labels)
    text = verdict(root)
    assert advice in text
    assert str(root) in text
    assert "the label maps hold the labels" in text.lower()


def test_an_ignored_label_does_not_make_them_ade20ks(tmp_path):
    text = verdict(make(tmp_path / "a", [0, 1, 2, 255]), ignore_label=(255,))  # as the recipe `own` has it
    assert "look like classes of your own and not like ADE20K's 150" in text
    text = verdict(make(tmp_path / "b", [0, 3, 150, 255]))
    assert "if they are ADE20K's: --data.ignore-label 255" in text
    assert verdict(tmp_path / "b", ignore_label=(255,)) == ""


def test_classes_that_are_only_validated_are_named(tmp_path, caplog):
    root = make(tmp_path, [0, 1])
    write(root / "images/val/0.jpg", root / "masks/val/0.png", [0, 1, 2])
    assert verdict(root, classes="road,car,tree") == ""
    assert "in the validation set, but never in the training set: tree" in caplog.text


def test_labels_as_the_classes_say_are_accepted(tmp_path):
    root = make(tmp_path / "a", [0, 1, 2, 255])
    assert verdict(root, classes="road,car,tree", ignore_label=(255,)) == ""
    assert verdict(make(tmp_path / "b", [1, 2]), classes="road,car", label_offset=1) == ""
    assert verdict(make(tmp_path / "c", [0, 255]), classes="nothing=0,person=255") == ""
    assert verdict(make(tmp_path / "d", [1, 2, 3]), classes="ade20k") == ""
    assert verdict(make(tmp_path / "e", [0, 3, 150])) == ""


def test_labels_beside_the_classes_are_refused_with_what_would_take_them(tmp_path):
    text = verdict(make(tmp_path, [0, 1, 2, 255]), classes="road,car,tree")
    assert "5 faulty files" in text
    assert "holds the label 255; no label is ignored, the 3 classes are labels 0 to 2" in text
    assert "The label maps hold the labels 0 to 2, 255" in text
    assert "--data.ignore-label 255" in text


def test_a_split_without_labelled_pixels_is_refused(tmp_path):
    root = make(tmp_path, [0, 1])
    for i in range(2):
        write(root / "images/val" / f"{i}.jpg", root / "masks/val" / f"{i}.png", [255])
    text = verdict(root, classes="road,car", ignore_label=(255,))
    assert "no pixel of the 2 validation label maps is labelled: they hold only label 255; label 255 is ignored" in text


@pytest.mark.parametrize(
    ("images", "maps", "options"),
    [
        ("images/{split}/{i}.jpg", "masks/{split}/{i}.png", {}),
        ("imgs/{split}/{i}.png", "labels/{split}/{i}.png", {}),
        ("{split}/images/{i}.jpg", "{split}/masks/{i}.png", {}),
        ("JPEGImages/{split}{i}.jpg", "SegmentationClass/{split}{i}.png", {"val_share": 0.4}),
        (
            "photos/{split}/{i}.webp",
            "truth/{split}/{i}_mask.png",
            {"images": "photos", "maps": "truth", "map_suffix": "_mask"},
        ),
        ("{split}/x/{i}.jpg", "{split}/y/{i}.png", {"images": "x", "maps": "y"}),
    ],
)
def test_pairs_are_found_in_the_usual_folders_and_in_named_ones(tmp_path, images, maps, options):
    for split, count in (("train", 3), ("val", 2)):
        for i in range(count):
            write(tmp_path / images.format(split=split, i=i), tmp_path / maps.format(split=split, i=i), [0, 1])
    pairs = find_pairs(DataConfig(root=str(tmp_path), **options))
    assert [len(pairs[split].matched()) for split in SPLITS] == [3, 2]
    assert not pairs["training"].problems()


def test_validation_images_come_from_a_list_or_a_share(tmp_path):
    for i in range(10):
        write(tmp_path / "images" / f"{i}.jpg", tmp_path / "masks" / f"{i}.png", [0, 1])
    options = DataConfig(root=str(tmp_path))
    with pytest.raises(DataError, match=r"nothing says which images .* --data.val-share 0.2, or --data.val-list FILE"):
        find_pairs(options)
    (tmp_path / "val.txt").write_bytes(b"\xef\xbb\xbf3.jpg\r\nimages/7\r\n")
    listed = find_pairs(replace(options, val_list=str(tmp_path / "val.txt")))
    assert list(listed["validation"].images.paths) == ["3.jpg", "7.jpg"]
    assert list(listed["validation"].maps.paths) == ["3.png", "7.png"]
    assert len(listed["training"].images) == 8
    shared = find_pairs(replace(options, val_share=0.3))
    again = find_pairs(replace(options, val_share=0.3))
    assert list(shared["validation"].images.paths) == list(again["validation"].images.paths)
    assert (len(shared["validation"].images), len(shared["training"].matched())) == (3, 7)
    (tmp_path / "val.txt").write_text("3.jpg\nunknown.jpg\n")
    with pytest.raises(DataError, match=r"1 of 2 lines are no image in .*images: unknown\.jpg"):
        find_pairs(replace(options, val_list=str(tmp_path / "val.txt")))


def test_files_without_a_partner_or_with_two_are_named(tmp_path):
    root = make(tmp_path, [0, 1])
    (root / "masks/train/0.png").unlink()
    write(root / "images/train/1.png", root / "masks/train/9.png", [0, 1])
    texts = [text for _, text in find_pairs(DataConfig(root=str(root)))["training"].problems()]
    assert texts == [
        f"{root}/images/train/0.jpg: has no label map in {root}/masks/train",
        f"{root}/masks/train/1.png: has 2 images in {root}/images/train",
        f"{root}/masks/train/9.png: has no image in {root}/images/train",
    ]


def test_the_check_command_takes_the_options_of_a_run(tmp_path, capsys):
    root = make(tmp_path, [0, 1, 255])
    with pytest.raises(SystemExit) as left:
        check_main([str(root), "--data.classes", "road,car"])
    assert left.value.code == 3
    assert "--data.ignore-label 255" in capsys.readouterr().err
    check_main([str(root), "--data.classes", "road,car", "--data.ignore-label", "255"])
    assert "training: 3 pairs, 0 faulty files" in capsys.readouterr().out
    check_main([str(root), "--data.classes", "road", "car", "--data.ignore-label", "255"])
    assert "training: 3 pairs, 0 faulty files" in capsys.readouterr().out
    for arguments, code, said in (
        (["--data.clases", "a,b"], 2, "there is no option --data.clases; nearest: --data.classes"),
        (["--data.root", "elsewhere"], 2, f"--data.root elsewhere beside {root}"),
    ):
        with pytest.raises(SystemExit) as left:
            check_main([str(root), *arguments])
        assert (left.value.code, said in capsys.readouterr().err) == (code, True)


def test_the_check_says_what_would_take_maps_of_other_names_and_colours_without_a_class(tmp_path, capsys, caplog):
    root = make(tmp_path / "a", [0, 1])
    for path in sorted(root.glob("masks/*/*.png")):
        path.rename(path.with_stem(f"{path.stem}_mask"))
    assert "have '_mask' behind the names of their images: --data.map-suffix _mask" in verdict(root, classes="a,b")
    assert verdict(root, classes="a,b", map_suffix="_mask") == ""
    root = make(tmp_path / "b", [0, 1])
    for path in sorted(root.glob("masks/*/*.png")):
        labels = np.array(Image.open(path))
        Image.fromarray(np.stack([labels * 128, labels, labels], axis=-1)).save(path)
    options = ["--data.classes", "road=#800101"]
    with pytest.raises(SystemExit):
        check_main([str(root), *options])
    assert "what does not count is --data.ignore-label '#000000'" in capsys.readouterr().err
    with caplog.at_level("INFO"):
        check_main([str(root), *options, "--data.ignore-label", "#000000"])
    assert "1 of 1 classes: road" in caplog.text
    with pytest.raises(DataError, match="nowhere: no such folder"):
        find_pairs(DataConfig(root="nowhere"))


def test_a_turned_photo_is_refused_until_it_is_said_how_its_map_was_drawn(tmp_path):
    root = make(tmp_path, [0, 1])
    photo = root / "images/train/0.jpg"
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down: the sizes agree either way
    Image.open(photo).save(photo, exif=exif)
    text = verdict(root, classes="road,car")
    assert f"{photo}: has the EXIF orientation 3" in text
    assert "--data.exif apply" in text
    assert verdict(root, classes="road,car", exif="apply") == verdict(root, classes="road,car", exif="ignore") == ""
    exif[0x0112] = 6
    Image.open(photo).save(photo, exif=exif)
    upright = verdict(root, classes="road,car", exif="apply")
    assert "8x4 pixels, but its image has 4x8" in upright
