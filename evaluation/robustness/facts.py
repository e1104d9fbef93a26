"""What the robustness sets are: class lists, corruptions, AlexNet's errors and the ReaL labels.

Class lists and ReaL labels are those that timm carries (timm/data/_info), which equal the authors' files.
"""

import functools
import hashlib
import importlib.resources
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from engine.errors import DataError

SEVERITIES = (1, 2, 3, 4, 5)

ALEXNET_ERRORS: dict[str, tuple[float, ...]] = {
    "gaussian_noise": (0.69528, 0.82542, 0.93554, 0.98138, 0.99452),
    "shot_noise": (0.71224, 0.85108, 0.93574, 0.98182, 0.99146),
    "impulse_noise": (0.78374, 0.89808, 0.94870, 0.98720, 0.99548),
    "defocus_blur": (0.65624, 0.73202, 0.85036, 0.91364, 0.94714),
    "glass_blur": (0.64308, 0.75054, 0.88806, 0.91622, 0.93344),
    "motion_blur": (0.58430, 0.70048, 0.82108, 0.89750, 0.92638),
    "zoom_blur": (0.70008, 0.76992, 0.80784, 0.84198, 0.87198),
    "snow": (0.71726, 0.88392, 0.86468, 0.91870, 0.94952),
    "frost": (0.61390, 0.79734, 0.88790, 0.89942, 0.93430),
    "fog": (0.67474, 0.76050, 0.84378, 0.87260, 0.94500),
    "brightness": (0.45140, 0.48502, 0.54048, 0.62166, 0.72440),
    "contrast": (0.64548, 0.76150, 0.88874, 0.97760, 0.99270),
    "elastic_transform": (0.52596, 0.70116, 0.55686, 0.64076, 0.80554),
    "pixelate": (0.52218, 0.54620, 0.73728, 0.87092, 0.91262),
    "jpeg_compression": (0.51002, 0.54718, 0.57294, 0.65458, 0.74778),
}
"""Top-1 error of AlexNet at the severities 1 to 5 of the 15 corruptions (Hendrycks and Dietterich 2019)."""
CORRUPTIONS = tuple(ALEXNET_ERRORS)
EXTRA_CORRUPTIONS = ("speckle_noise", "gaussian_blur", "spatter", "saturate")
"""The four of the archive extra.tar: for validation, and no part of the mCE."""


@functools.cache
def imagenet_classes() -> tuple[str, ...]:
    """The 1000 wnids of ImageNet-1k in the order of its labels, which is the sorted one."""
    return _lines("imagenet_synsets.txt")


@functools.cache
def subset_classes(name: str) -> tuple[str, ...]:
    """The 200 wnids of ImageNet-A ("a") or ImageNet-R ("r")."""
    return _lines(f"imagenet_{name}_synsets.txt")


@dataclass(frozen=True)
class RealLabels:
    """ReaL's labels (Beyer et al. 2020).

    Args:
        answers: of the validation image 1, 2, ...: the numbers of all right classes; empty where there is none.
        source: the file they are from.
        sha256: of that file.
    """

    answers: tuple[tuple[int, ...], ...]
    source: str
    sha256: str

    def right(self, names: list[str], predicted_n: npt.NDArray[np.int64]) -> tuple[list[int], npt.NDArray[np.bool_]]:
        """Which images count, and which of those are predicted right.

        Args:
            names: of the n images, ILSVRC2012_val_00000001.JPEG and so on: the number finds the labels.
            predicted_n: class numbers in ImageNet's order, -1 for a class that is none of ImageNet's.

        Returns:
            Positions of the images with a label at all, and for each whether the prediction is among its labels.

        Raises:
            DataError: a name has no number, or one beyond the labels.
        """
        kept, right = [], []
        for position, name in enumerate(names):
            answers = self.answers[self._number(name) - 1]
            if answers:
                kept.append(position)
                right.append(int(predicted_n[position]) in answers)
        return kept, np.array(right, dtype=bool)

    def _number(self, name: str) -> int:
        digits = Path(name).stem.rpartition("_")[2]
        number = int(digits) if digits.isascii() and digits.isdecimal() else 0
        if not 1 <= number <= len(self.answers):
            raise DataError(
                f"{name}: ReaL's labels are found by the number at the end of a name, as in "
                f"ILSVRC2012_val_00000001.JPEG, from 1 to {len(self.answers):,}: {self.source} has none for this"
            )
        return number


def real_labels(path: Path | None = None) -> RealLabels:
    """ReaL's labels from the authors' real.json; without one, from timm's copy of it.

    Raises:
        DataError: the file cannot be read, or is no list of lists of class numbers.
    """
    try:
        content = path.read_bytes() if path else _bytes("imagenet_real_labels.json")
    except OSError as error:
        raise DataError(f"{path}: ReaL's labels cannot be read: {error.strerror}") from error
    source = str(path) if path else "timm's copy of real.json"
    try:
        answers = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{source}: no JSON: {error}") from error
    if not (isinstance(answers, list) and answers and all(_are_classes(labels) for labels in answers)):
        raise DataError(
            f"{source}: ReaL's file is a list with a list of class numbers (0 to 999) for each validation image"
        )
    return RealLabels(tuple(map(tuple, answers)), source, hashlib.sha256(content).hexdigest())


def _are_classes(labels: object) -> bool:
    return isinstance(labels, list) and all(type(label) is int and 0 <= label < 1000 for label in labels)


def _lines(name: str) -> tuple[str, ...]:
    return tuple(_bytes(name).decode().split())


def _bytes(name: str) -> bytes:
    return importlib.resources.files("timm.data").joinpath("_info", name).read_bytes()
