"""Label maps are read with the values their files store, or refused with the reason; classes are what the user says."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from engine.data.images import UnreadableImageError
from engine.errors import ConfigError, DataError
from segmentation.config import DataConfig
from segmentation.labels import ade20k, classes_in, classes_of, read_label_map, spell_out

pytestmark = pytest.mark.mmseg


def png(path, rows, bits, colour_type, palette=b""):
    """Write a PNG by hand, because Pillow writes not every depth: rows of whole-number samples."""
    packed = b""
    for row in rows:
        text = "".join(format(value, f"0{bits}b") for value in row)
        packed += b"\0" + int(text.ljust(-(-len(text) // 8) * 8, "0"), 2).to_bytes(-(-len(text) // 8), "big")
    chunks = [
        (
            b"IHDR",
            struct.pack(
                ">IIBBBBB", len(rows[0]) // (3 if colour_type == 2 else 1), len(rows), bits, colour_type, 0, 0, 0
            ),
        )
    ]
    chunks += [(b"PLTE", palette)] if palette else []
    chunks += [(b"IDAT", zlib.compress(packed)), (b"IEND", b"")]
    parts = [struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    return path


@pytest.mark.parametrize(
    ("bits", "colour_type"), [(1, 0), (2, 0), (4, 0), (8, 0), (16, 0), (1, 3), (2, 3), (4, 3), (8, 3)]
)
def test_labels_are_what_the_file_stores_at_every_depth(tmp_path, bits, colour_type):
    top = 2**bits - 1 if bits < 16 else 40_000
    rows = [[0, 1, top, 1, 0], [top, 0, 1, 1, top]]
    palette = bytes(np.random.default_rng(0).integers(0, 256, 3 * 2**bits, dtype=np.uint8)) if colour_type == 3 else b""
    path = png(tmp_path / "map.png", rows, bits, colour_type, palette)
    assert read_label_map(path).tolist() == rows


def test_a_grey_palette_is_read_by_position_and_not_by_colour(tmp_path):
    path = png(tmp_path / "map.png", [[0, 1, 2]], 2, 3, bytes([0] * 3 + [128] * 3 + [255] * 3 + [7] * 3))
    assert read_label_map(path).tolist() == [[0, 1, 2]]


def refusal(path, **options):
    with pytest.raises(DataError) as caught:
        read_label_map(path, **options)
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value)


def test_what_is_no_label_map_is_refused_with_the_reason(tmp_path):
    grey = Image.new("L", (4, 4), 3)
    exif = Image.Exif()
    exif[0x0112] = 3
    cases = {
        "colours.png": (Image.new("RGB", (4, 4)), {}, "has one channel, this one is RGB: give every class its colour"),
        "alpha.png": (Image.new("LA", (4, 4)), {}, "has one channel, this one is LA"),
        "lossy.png": (grey, {"format": "JPEG"}, "stored as JPEG, which changes labels"),
        "tiff.png": (grey, {"format": "TIFF"}, "has to be a PNG, this one is TIFF"),
        "turned.png": (grey, {"exif": exif}, "has an EXIF orientation (3)"),
    }
    for name, (image, options, reason) in cases.items():
        image.save(tmp_path / name, **options)
        assert reason in refusal(tmp_path / name)
    png(tmp_path / "deep.png", [[1] * 3], 16, 2)
    assert "this one is RGB with 16" in refusal(tmp_path / "deep.png", coloured=True)
    torn = png(tmp_path / "whole.png", [[1, 2]], 8, 0).read_bytes()[:-30]
    for content, reason in ((b"", "0 bytes"), (b"<html>", "an HTML page"), (torn, "PNG")):
        (tmp_path / "torn.png").write_bytes(content)
        with pytest.raises(UnreadableImageError, match=rf"torn\.png: .*{reason}"):
            read_label_map(tmp_path / "torn.png")


def test_labels_become_classes_and_go_back():
    stored = np.array([[0, 1, 150]], dtype=np.int32)
    assert ade20k().to_classes(stored).tolist() == [[255, 0, 149]]
    own = classes_of("road=7,car=26,road=8", (255,), 0)
    assert (own.names, own.to_classes(np.array([[7, 8, 26, 255]])).tolist()) == (("road", "car"), [[0, 0, 1, 255]])
    assert own.to_stored(np.array([[0, 1]], dtype=np.uint8)).tolist() == [[7, 26]]
    with pytest.raises(
        ValueError, match=r"holds the labels 3, 9; label 255 is ignored, the 2 classes are labels 7 to 8, 26"
    ):
        own.to_classes(np.array([[7, 9, 3]]))
    assert classes_of("a,b", (), 1).of_label == {1: 0, 2: 1}
    assert classes_of("a=300", (), 0).to_stored(np.zeros((1, 1), np.uint8)).dtype == np.uint16


def test_coloured_label_maps_are_read_by_their_colours(tmp_path):
    classes = classes_of("sky=#00ffff,tree=#008000", (), 0)
    picture = np.array([[[0, 255, 255], [0, 128, 0]]], dtype=np.uint8)
    for mode in ("RGB", "RGBA"):
        Image.fromarray(picture).convert(mode).save(tmp_path / "map.png")
        stored = read_label_map(tmp_path / "map.png", coloured=True)
        assert classes.to_classes(stored).tolist() == [[0, 1]]
    assert classes.to_stored(np.array([[0, 1]], dtype=np.uint8)).tolist() == picture.tolist()
    assert classes.palette.tolist() == [[0, 255, 255], [0, 128, 0]]
    with pytest.raises(
        ValueError, match=r"holds the colour #ff0000; no label is ignored, the 2 classes are colours #0"
    ):
        classes.to_classes(np.array([[0xFF0000]]))


def test_classes_come_from_names_or_a_file(tmp_path):
    (tmp_path / "classes.txt").write_bytes(b"\xef\xbb\xbfsky\r\n tall tree \r\n\r\n")  # as editors of Windows store it
    assert spell_out(str(tmp_path / "classes.txt")) == "sky,tall tree"
    (tmp_path / "labels.json").write_text('{"sky": 3, "tree": 7}')
    options = DataConfig(root="x", classes=str(tmp_path / "labels.json"), ignore_label=(0,))
    assert classes_in(options).of_label == {3: 0, 7: 1}
    (tmp_path / "list.json").write_text('["sky", "tree"]')
    assert classes_in(DataConfig(classes=str(tmp_path / "list.json"), label_offset=1)).of_label == {1: 0, 2: 1}


@pytest.mark.parametrize(
    ("text", "ignored", "message"),
    [
        ("sky,,tree", (), "give names, all different"),
        ("sky,sky", (), "give names, all different"),
        ("sky=3,tree", (), "every name with its label"),
        ("sky=x,tree=4", (), "'x' is not a label"),
        ("sky=#00f,tree=#008000", (), "'#00f' is not a colour like #00ffff"),
        ("sky=3,tree=70000", (), "labels are 0 to 65535, the ones here 3 to 70000"),
        ("sky=3,tree=3", (), "more than one class has the label 3"),
        ("sky=3,tree=4", (4,), "data.ignore_label: the label 4 is also that of class 'tree'$"),
        ("sky,tree", (0,), "the label 0 is also that of class 'sky'; .* --data.label-offset 1"),
        ("sky,tree", (70000,), "data.ignore_label is 70000; allowed: 0 to 65535"),
        (",".join(f"c{i}" for i in range(255)), (), "255 classes, more than the 254"),
        ("nowhere.txt", (), "nowhere.txt cannot be read"),
    ],
)
def test_classes_that_cannot_be_understood_are_refused(text, ignored, message):
    with pytest.raises(ConfigError, match=message) as caught:
        classes_in(DataConfig(classes=text, ignore_label=ignored))
    assert "data." in str(caught.value)


def test_a_file_of_another_form_is_refused(tmp_path):
    for content in ('{"a": ', "[1, 2]", '"sky"'):
        (tmp_path / "x.json").write_text(content)
        with pytest.raises(ConfigError, match=r"x\.json"):
            spell_out(str(tmp_path / "x.json"))
    (tmp_path / "x.txt").write_text("sky, tree\n")
    with pytest.raises(ConfigError, match="one class a line"):
        spell_out(str(tmp_path / "x.txt"))


def test_a_data_set_that_uses_a_part_of_ade20ks_labels_names_them_and_colours_tell_them_apart(tmp_path):
    """So that the generated scenes' arrow is an arrow in segmentation too, and none of ADE20K's 150 shades of it."""
    head, rows = "Idx\tRatio\tTrain\tVal\tStuff\tName\n", ["1\t.5\t.5\t.5\t1\tsky", "141\t.2\t.2\t.2\t0\tarrow"]
    (tmp_path / "objectInfo150.txt").write_text(head + "\n".join(rows) + "\n")
    named = classes_in(DataConfig(root=str(tmp_path)))
    assert (named.names[0], named.names[140]) == ("sky", "arrow")
    assert named.names[2] == "sky of ADE20K" and named.names[4] == ade20k().names[4]
    assert named.of_label == ade20k().of_label
    assert np.abs(named.palette[0].astype(int) - named.palette[140]).sum() > 200
    for text in ("nothing\nx\n", head + "\n".join(f"{n}\t.1\t.1\t.1\t1\tc{n}" for n in range(1, 151))):
        (tmp_path / "objectInfo150.txt").write_text(text)
        assert classes_in(DataConfig(root=str(tmp_path))).names == ade20k().names, "the published table changes nothing"


def test_made_up_colours_differ():
    palette = classes_of(",".join(f"c{i}" for i in range(60)), (), 0).palette
    assert len({tuple(colour) for colour in palette.tolist()}) == 60
