"""Which stored label is which class, and label maps with the values their files store.

H W size of a map; K classes.
"""

import colorsys
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from engine.data.decode import looks_like, read_bytes
from engine.data.images import UnreadableImageError
from engine.errors import ConfigError, DataError
from segmentation.config import DataConfig

ADE20K, NUM_ADE20K = "ade20k", 150
TABLE = "objectInfo150.txt"
"""ADE20K's table of classes, in the folder of the data set; one of a part of the labels names that part anew."""
IGNORED = 255
"""Label of the pixels that do not count: unlabelled ones, and padding."""

Stored = npt.NDArray[np.int32]
"""A label map (H, W) as its file holds it: grey values or palette positions, or 0xRRGGBB of a coloured map."""

_ORIENTATION_TAG = 0x0112
_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP")  # to name them; others include some that start programs
_GREY, _RGB, _INDEXED = 0, 2, 3  # PNG's colour types


@dataclass(frozen=True)
class Classes:
    """The classes of a data set.

    Args:
        names: of the K classes.
        of_label: stored label -> class, 0 to K - 1.
        ignored: stored labels that do not count.
        coloured: whether the labels are colours, 0xRRGGBB.
        colours: RGB of each class in pictures; made up where there are none.
    """

    names: tuple[str, ...]
    of_label: Mapping[int, int]
    ignored: tuple[int, ...] = ()
    coloured: bool = False
    colours: tuple[tuple[int, int, int], ...] = ()

    @cached_property
    def palette(self) -> npt.NDArray[np.uint8]:
        """RGB of each class in pictures, (K, 3)."""
        if self.coloured:
            codes = [self.label_of[number] for number in range(len(self.names))]
            return np.array([[code >> 16, code >> 8 & 255, code & 255] for code in codes], dtype=np.uint8)
        return np.array(self.colours or [_made_up(number) for number in range(len(self.names))], dtype=np.uint8)

    @cached_property
    def label_of(self) -> dict[int, int]:
        """Class -> stored label, the first one where several are the same class."""
        return {number: label for label, number in reversed(list(self.of_label.items()))}

    def unknown(self, labels: Iterable[int]) -> list[int]:
        """Those that are no class and not ignored."""
        return sorted(label for label in labels if label not in self.of_label and label not in self.ignored)

    def to_classes(self, stored_hw: Stored) -> npt.NDArray[np.uint8]:
        """Stored labels to classes, 255 where ignored.

        Raises:
            ValueError: a label is neither a class nor ignored.
        """
        if self.coloured:
            known, classes = self._colours
            place = np.searchsorted(known, stored_hw).clip(max=len(known) - 1)
            found, numbers = known[place] == stored_hw, classes[place]
        else:
            numbers = self._table[stored_hw]
            found = numbers >= 0
        if not found.all():
            unknown = sorted({int(label) for label in stored_hw[~found]})
            raise ValueError(f"holds the {self.text_of(unknown)}; {self}")
        result: npt.NDArray[np.uint8] = numbers.astype(np.uint8)
        return result

    def to_stored(self, classes_hw: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
        """Classes to stored labels: uint8 or uint16 (H, W), or RGB uint8 (H, W, 3) of a coloured set."""
        labels = np.array([self.label_of[number] for number in range(len(self.names))])[classes_hw]
        if self.coloured:
            return np.stack([labels >> 16, labels >> 8 & 255, labels & 255], axis=-1).astype(np.uint8)
        return labels.astype(np.uint8 if labels.max() < 256 else np.uint16)

    @cached_property
    def _colours(self) -> tuple[Stored, Stored]:
        """Sorted stored labels, and the class of each."""
        pairs = sorted({**dict.fromkeys(self.ignored, IGNORED), **self.of_label}.items())
        return np.array([p[0] for p in pairs], dtype=np.int32), np.array([p[1] for p in pairs], dtype=np.int32)

    @cached_property
    def _table(self) -> npt.NDArray[np.int16]:
        """The class of every 16-bit label, -1 for none."""
        known, classes = self._colours
        table = np.full(1 << 16, -1, dtype=np.int16)
        table[known] = classes
        return table

    def text_of(self, labels: Iterable[int]) -> str:
        """Labels for people: "label 0", "labels 1 to 4, 255", "colours #00ffff, #ff0000"."""
        found = sorted(labels)
        shown = [f"#{label:06x}" for label in found] if self.coloured else ranges(found)
        more = f" and {len(shown) - 10} more" if len(shown) > 10 else ""
        return f"{'colour' if self.coloured else 'label'}{'s' * (len(found) != 1)} {', '.join(shown[:10])}{more}"

    def __str__(self) -> str:
        verb = "is" if len(self.ignored) == 1 else "are"
        ignored = f"{self.text_of(self.ignored)} {verb} ignored" if self.ignored else "no label is ignored"
        classes = f"{len(self.names)} classes are" if len(self.names) > 1 else "one class is"
        return f"{ignored}, the {classes} {self.text_of(self.of_label)}"


def ranges(numbers: Iterable[int]) -> list[str]:
    """[1, 2, 3, 7] -> ["1 to 3", "7"]."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return [str(first) if first == last else f"{first} to {last}" for first, last in runs]


def ade20k(ignored: tuple[int, ...] = ()) -> Classes:
    """The 150 classes of ADE20K's scene parsing benchmark: stored labels 1 to 150, 0 is unlabelled."""
    from segmentation.framework import import_mmsegmentation

    import_mmsegmentation()
    from mmseg.datasets.ade import ADE20KDataset

    names = tuple(name.strip() for name in ADE20KDataset.METAINFO["classes"])  # some end in a blank
    colours = tuple((red, green, blue) for red, green, blue in ADE20KDataset.METAINFO["palette"])
    return Classes(names, {number + 1: number for number in range(len(names))}, (0, *ignored), colours=colours)


def classes_of(text: str, ignored: tuple[int, ...], offset: int) -> Classes:
    """The classes that `data.classes`, `data.ignore_label` and `data.label_offset` describe.

    Args:
        text: "" or "ade20k", or names with or without labels: "sky,tree", "sky=3,tree=7", "sky=#00ffff,tree=#008000".
            The same name twice is one class of two labels.
        ignored: labels that do not count.
        offset: label of the first name, where they have none.

    Raises:
        ConfigError: it cannot be understood, or no label says which class is meant.
    """
    if text in ("", ADE20K):
        return ade20k(ignored)
    entries = [entry.strip().partition("=") for entry in text.split(",")]
    names = list(dict.fromkeys(name.strip() for name, _, _ in entries))
    labels = [label.strip() for _, _, label in entries]
    if "" in names or (any(labels) and not all(labels)) or (not any(labels) and len(names) < len(entries)):
        raise ConfigError(
            f"data.classes: {text!r}: give names, all different (sky,tree), or every name with its label "
            "(sky=3,tree=7) or its colour (sky=#00ffff,tree=#008000)"
        )
    coloured = any(label.startswith("#") for label in labels)
    form = re.compile(r"#[0-9a-fA-F]{6}" if coloured else r"\d{1,5}")
    if any(labels) and (wrong := [label for label in labels if not form.fullmatch(label)]):
        raise ConfigError(f"data.classes: {wrong[0]!r} is not {'a colour like #00ffff' if coloured else 'a label'}")
    if len(names) >= IGNORED:
        raise ConfigError(f"data.classes: {len(names)} classes, more than the {IGNORED - 1} that can be told apart")
    numbers = [int(label.removeprefix("#"), 16 if coloured else 10) for label in labels if label]
    numbers = numbers or list(range(offset, offset + len(names)))
    if not coloured and not 0 <= min(numbers) <= max(numbers) < 1 << 16:
        raise ConfigError(
            f"data.classes: {text!r}: labels are 0 to 65535, the ones here {min(numbers)} to {max(numbers)}"
        )
    of_label = {number: names.index(name.strip()) for number, (name, _, _) in zip(numbers, entries, strict=True)}
    found = Classes(tuple(names), of_label, ignored, coloured)
    if twice := [number for number, count in Counter(numbers).items() if count > 1]:
        raise ConfigError(f"data.classes: {text!r}: more than one class has the {found.text_of(twice)}")
    if both := sorted(of_label.keys() & set(ignored)):
        shifted = "; if the first name is of another label, say of which: --data.label-offset 1" * (not any(labels))
        raise ConfigError(
            f"data.ignore_label: the {found.text_of(both)} is also that of class {names[of_label[both[0]]]!r}{shifted}"
        )
    if not coloured and max(ignored, default=0) >= 1 << 16:
        raise ConfigError(f"data.ignore_label is {max(ignored)}; allowed: 0 to 65535, unless the classes have colours")
    return found


def described(options: DataConfig) -> Classes:
    """The classes that the options describe, wherever the data set is.

    Raises:
        ConfigError: they cannot be understood.
    """
    return classes_of(spell_out(options.classes), options.ignore_label, options.label_offset)


def classes_in(options: DataConfig) -> Classes:
    """The classes that the options describe; of ADE20K's labels some mean something else in a data set that says so.

    Raises:
        ConfigError: they cannot be understood.
    """
    classes = described(options)
    return _renamed(classes, _own_names(Path(options.root))) if options.classes in ("", ADE20K) else classes


def _own_names(root: Path) -> dict[int, str]:
    """Label -> name of a data set's own objectInfo150.txt, where it lists a part of ADE20K's labels; else {}."""
    try:
        rows = [line.split("\t") for line in (root / TABLE).read_text().splitlines()[1:]]
        names = {int(row[0]): row[-1].strip() for row in rows}
    except (OSError, ValueError, IndexError):
        return {}
    return names if len(names) < NUM_ADE20K and all(names.values()) else {}


def _renamed(classes: Classes, names: Mapping[int, str]) -> Classes:
    """The classes with some names and their colours, far apart, in place of those that the labels have in ADE20K."""
    own = {classes.of_label[label]: name for label, name in names.items() if label in classes.of_label}
    taken, colours = set(own.values()), list(classes.colours)
    for place, number in enumerate(sorted(own)):
        colours[number] = _made_up(place)
    kept = [f"{name} of ADE20K" if name in taken else name for name in classes.names]
    return replace(
        classes, names=tuple(own.get(number, name) for number, name in enumerate(kept)), colours=tuple(colours)
    )


def _made_up(number: int) -> tuple[int, int, int]:
    """RGB: hues a golden angle apart, in three brightnesses."""
    red, green, blue = colorsys.hsv_to_rgb(number * 0.381966 % 1, 0.75, (1.0, 0.75, 0.5)[number % 3])
    return round(255 * red), round(255 * green), round(255 * blue)


def spell_out(text: str) -> str:
    """`data.classes` with the content of the file that it may name: one class a line, or a JSON list or object.

    Raises:
        ConfigError: the file is missing, or of another form.
    """
    path = Path(text)
    if not text.endswith((".txt", ".json")):
        return text
    try:
        content = path.read_text(encoding="utf-8-sig")
        found = json.loads(content) if path.suffix == ".json" else content.splitlines()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"data.classes: {path} cannot be read ({reason})") from error
    if isinstance(found, dict):
        found = [f"{name}={label}" for name, label in found.items()]
    if not isinstance(found, list) or not all(isinstance(line, str) for line in found):
        raise ConfigError(f'data.classes: {path} is neither a list of names nor an object of labels: ["sky", "tree"]')
    lines = [line.strip() for line in found if line.strip()]
    if not lines or any("," in line for line in lines):
        raise ConfigError(f"data.classes: {path}: expected one class a line, its name without a comma")
    return ",".join(lines)


def read_label_map(path: str | Path, *, coloured: bool = False) -> Stored:
    """The labels (H, W) with the values the file stores: of 1, 2, 4, 8 or 16 bits, or positions in its palette.

    Args:
        path: of a PNG.
        coloured: whether the labels are the colours of an RGB picture, to be returned as 0xRRGGBB.

    Raises:
        UnreadableImageError: not a whole image.
        DataError: it is no such label map, or the file is missing.
    """
    data = read_bytes(path)
    try:
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
        array = np.array(image)
        turned = image.getexif().get(_ORIENTATION_TAG, 1)
    except UnidentifiedImageError as error:
        what = looks_like(data) if data else "0 bytes"
        raise UnreadableImageError(f"{path}: not a readable image ({what})") from error
    except Exception as error:  # Pillow raises nearly anything on damaged bytes
        raise UnreadableImageError(f"{path}: cannot be decoded ({error or type(error).__name__})") from error
    reason = _why_no_map(image, data, coloured)
    if not reason and turned != 1:
        reason = f"has an EXIF orientation ({turned}), so its pixels are not stored as they are meant to lie"
    if reason:
        raise DataError(f"{path}: {reason}")
    if coloured:
        red, green, blue = np.moveaxis(array[..., :3].astype(np.int32), -1, 0)
        codes: Stored = red << 16 | green << 8 | blue
        return codes
    bits, colours = data[24], data[25]
    if colours == _GREY and bits < 8:  # Pillow stretches these to 0 to 255
        array = array.astype(np.uint8) if image.mode == "1" else array // (255 // (2**bits - 1))
    return array.astype(np.int32)


def _why_no_map(image: Image.Image, data: bytes, coloured: bool) -> str:
    """What is against taking a picture as a label map; "" for nothing."""
    if image.format == "JPEG":
        return "a label map stored as JPEG, which changes labels: store it as PNG"
    if image.format != "PNG":
        return f"a label map has to be a PNG, this one is {image.format}: convert it without changing its values"
    bits, colours = data[24], data[25]
    if coloured:
        opaque = image.mode == "RGB" or (image.mode == "RGBA" and np.array(image)[..., 3].min() == 255)
        if opaque and bits == 8:
            return ""
        return f"a label map of colours is RGB with 8 bits, this one is {image.mode} with {bits}"
    if colours in (_GREY, _INDEXED):
        return ""
    advice = ": give every class its colour, --data.classes sky=#00ffff,tree=#008000" if colours & _RGB else ""
    return f"a label map has one channel, this one is {image.mode}{advice}"
