"""The measurements of each robustness set, with its own masking rule.

N images, K classes of the classifier. Rules: ImageNet-A and R take the best among their 200 classes, as do the images
of those classes in ImageNet ("clean"); V2 and Sketch the best of all classes; ReaL counts a prediction that is among an
image's labels, and leaves out images without one; ImageNet-C is the mCE over its pictures as they are.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.data.index import ImageIndex, index_images
from engine.data.scan import some
from engine.errors import DataError
from evaluation.robustness.classifier import LoadedClassifier
from evaluation.robustness.config import RobustnessConfig
from evaluation.robustness.corruption import corruption_error, of_each_image
from evaluation.robustness.facts import CORRUPTIONS, SEVERITIES, imagenet_classes, real_labels, subset_classes
from evaluation.robustness.folders import find_corruptions, find_folders
from evaluation.robustness.measure import TOP, Best, Predictor

log = logging.getLogger("mim")


@dataclass(frozen=True)
class Sets:
    """The sets that are there.

    Args:
        folders: set -> its folder; real: its file.
        indices: "val <set>" -> its images; "val c <corruption>" each with all severities.
    """

    folders: dict[str, Path]
    indices: dict[str, ImageIndex]


@dataclass(frozen=True, kw_only=True)
class Found:
    """A number in percent, and how it was made.

    Args:
        value: top-1 accuracy, or the mCE; None where it cannot be said.
        per_image: of which `value` is 100 times the mean: right or wrong of each image, or what it adds to the mCE.
        rule: what a prediction may be and when it is right.
        more: further numbers: top5, ce of each corruption, what was left out.
    """

    value: float | None
    per_image: npt.NDArray[Any] | None
    rule: str
    more: dict[str, Any] = field(default_factory=dict)


def open_sets(config: RobustnessConfig) -> Sets:
    """The sets that are given, or found below data.root.

    Raises:
        DataError: there is none, or one is not as its authors ship it.
    """
    folders, indices = find_folders(config.data), {}
    for name, folder in folders.items():
        if name == "c":
            for corruption, place in find_corruptions(folder).items():
                indices[f"val c {corruption}"] = index_images(
                    place, labelled=False, options=config.data, unreadable="stop"
                )
        elif name != "real":
            indices[f"val {name}"] = index_images(folder, labelled=True, options=config.data, unreadable="stop")
    return Sets(folders, indices)


def measure_sets(predictor: Predictor, sets: Sets) -> dict[str, Found]:
    """Every measurement that the sets allow: imagenet, real, a_clean, r_clean, a, r, sketch, v2, ..., c.

    Raises:
        DataError: a set has classes that the classifier does not know, or images without what its rule needs.
        DivergedError: the classifier's scores are not finite.
    """
    found: dict[str, Found] = {}
    for name in sets.folders:
        if name == "imagenet":
            found |= _imagenet(predictor, sets)
        elif name == "c":
            found[name] = _corrupted(predictor, sets)
        elif name != "real":
            found[name] = _one_label(predictor, name, sets.indices[f"val {name}"])
    return found


def class_numbers(classifier: LoadedClassifier, names: Sequence[str], where: str) -> npt.NDArray[np.int64]:
    """The classifier's numbers of classes that are given by name (wnid), or, where all are whole numbers and it does
    not know them by that name, by their place among ImageNet's classes (ImageNet-V2's folders).

    Raises:
        DataError: it does not know one.
    """
    number_of = {name: number for number, name in enumerate(classifier.classes)}
    if all(name.isascii() and name.isdecimal() for name in names) and not set(names) <= number_of.keys():
        order = _order(classifier)
        if beyond := [name for name in names if int(name) >= len(order)]:
            raise DataError(f"{where}: no class has the number {some(beyond)}: they go from 0 to {len(order) - 1}")
        names = [order[int(name)] for name in names]
    if unknown := [name for name in names if name not in number_of]:
        raise DataError(
            f"{where}: {len(unknown):,} of its {len(names):,} classes are not among the {len(classifier.classes):,} of "
            f"{classifier.reference}: {some(unknown)}; it knows {some(classifier.classes)}"
        )
    return np.array([number_of[name] for name in names], dtype=np.int64)


def _order(classifier: LoadedClassifier) -> tuple[str, ...]:
    """The classes that numbers in ImageNet-V2's folders and ReaL's file mean: ImageNet's, or of a classifier that knows
    none of those its own."""
    return imagenet_classes() if set(classifier.classes) & set(imagenet_classes()) else classifier.classes


def mask_of(classifier: LoadedClassifier, name: str, folders: Sequence[str]) -> tuple[list[int], str]:
    """The numbers of the classes that a prediction on ImageNet-A or R may be, and the rule in words.

    The 200 published ones that the classifier has; for a set of other classes in the same layout, its own.
    """
    published = subset_classes(name)
    if not set(folders) <= set(published):
        numbers = class_numbers(classifier, folders, f"ImageNet-{name.upper()}")
        return sorted(
            numbers.tolist()
        ), f"best of the {len(numbers)} classes of the folder, which are not the set's 200"
    known = [number for number, wnid in enumerate(classifier.classes) if wnid in set(published)]
    if len(known) < len(published):
        log.warning(
            "ImageNet-%s: %s has %d of its %d classes: not to be compared with published numbers",
            *(name.upper(), classifier.reference, len(known), len(published)),
        )
    return known, f"best of the {len(known)} classes of ImageNet-{name.upper()}"


def _labels(classifier: LoadedClassifier, index: ImageIndex) -> npt.NDArray[np.int64]:
    """The images' labels in the classifier's numbers."""
    assert index.labels is not None
    labels: npt.NDArray[np.int64] = class_numbers(classifier, index.classes, str(index.root))[index.labels]
    return labels


def _judge(best: Best, labels_n: npt.NDArray[np.int64], rule: str) -> Found:
    hits = best == labels_n[:, None]
    top5 = {"top5": 100 * float(hits.any(axis=1).mean())} if best.shape[1] == TOP else {}
    return _accuracy(hits[:, 0], rule, **top5)


def _accuracy(right_n: npt.NDArray[np.bool_], rule: str, **more: Any) -> Found:
    return Found(value=100 * float(right_n.mean()), per_image=right_n, rule=rule, more=more)


def _one_label(predictor: Predictor, name: str, index: ImageIndex) -> Found:
    """A, R, Sketch and V2."""
    classifier = predictor.classifier
    labels = _labels(classifier, index)
    allowed, rule = None, f"best of all {len(classifier.classes)} classes"
    if name in ("a", "r"):
        allowed, rule = mask_of(classifier, name, index.classes)
    best = predictor(name, index, {"mask": allowed}, classifier.transform)["mask"]
    return _judge(best, labels, rule)


def _imagenet(predictor: Predictor, sets: Sets) -> dict[str, Found]:
    """Plain accuracy on ImageNet's validation images, by ReaL's labels, and on those of A's and R's classes."""
    classifier, index = predictor.classifier, sets.indices["val imagenet"]
    labels = _labels(classifier, index)
    partners = {
        name: mask_of(classifier, name, subset_classes(name))
        for name in ("a", "r")
        if set(index.classes) & set(subset_classes(name))
    }
    masks: dict[str, list[int] | None] = {"all": None, **{name: allowed for name, (allowed, _) in partners.items()}}
    best = predictor("imagenet", index, masks, classifier.transform)
    found = {"imagenet": _judge(best["all"], labels, f"best of all {len(classifier.classes)} classes")}
    if "real" in sets.folders or all(Path(path).name.startswith("ILSVRC2012_val_") for path in index.paths):
        found["real"] = _real(classifier, sets.folders.get("real"), index, best["all"][:, 0])
    for name, (allowed, rule) in partners.items():
        inside = np.isin(labels, allowed)
        found[f"{name}_clean"] = _judge(best[name][inside], labels[inside], rule)
    return found


def _real(
    classifier: LoadedClassifier, path: Path | None, index: ImageIndex, predicted_n: npt.NDArray[np.int64]
) -> Found:
    place = {name: number for number, name in enumerate(_order(classifier))}
    in_order = np.array([place.get(name, -1) for name in classifier.classes], dtype=np.int64)
    labels = real_labels(path)
    kept, right = labels.right([name.rpartition("/")[2] for name in index.paths], in_order[predicted_n])
    if not kept:
        raise DataError(f"{labels.source}: no image of {index.root} has a label in it")
    facts = {"left_out": len(index) - len(kept), "labels": labels.source, "labels_sha256": labels.sha256}
    return _accuracy(right, "right if among ReaL's labels; images without one left out", **facts)


def _corrupted(predictor: Predictor, sets: Sets) -> Found:
    wrong: dict[str, npt.NDArray[np.bool_]] = {}
    names: list[str] = []
    for key, index in sets.indices.items():
        corruption = key.removeprefix("val c ")
        if corruption == key:
            continue
        wrong[corruption], its_names = _wrong(predictor, corruption, index)
        if names and its_names != names:
            differing = sorted(set(names) ^ set(its_names))
            raise DataError(
                f"{index.root}: its images are not those of {next(iter(wrong))}: {len(differing):,} are in one alone: "
                f"{some(differing)}; the archive is not whole"
            )
        names = its_names
    errors = {name: wrong[name].mean(axis=1).tolist() for name in wrong}
    found = corruption_error(errors)
    if missing := [name for name in CORRUPTIONS if name not in wrong]:
        log.warning("ImageNet-C: no mCE: %d of the 15 corruptions are not there: %s", len(missing), some(missing))
    return Found(
        value=found.mce,
        per_image=None if missing else of_each_image(wrong),
        rule="mean over the 15 corruptions of the error over AlexNet's; pictures as they are, uncropped",
        more={
            "num_images": len(names),
            "ce": found.ce,
            "mean_error": found.mean_error,
            "errors": {name: [100 * value for value in values] for name, values in errors.items()},
            "not_counted": [name for name in errors if name not in CORRUPTIONS],
        },
    )


def _wrong(predictor: Predictor, corruption: str, index: ImageIndex) -> tuple[npt.NDArray[np.bool_], list[str]]:
    """Whether each image is predicted wrong at each severity (5, N), and the images' paths below a severity."""
    parts = [path.split("/", 2) for path in index.paths]
    if loose := [path for path, part in zip(index.paths, parts, strict=True) if len(part) < 3]:
        raise DataError(f"{index.root}: {some(loose)}: not <severity>/<class>/<image>, as ImageNet-C has them")
    of_severity: dict[str, list[int]] = {}
    for position, part in enumerate(parts):
        of_severity.setdefault(part[0], []).append(position)
    names = {severity: [f"{parts[i][1]}/{parts[i][2]}" for i in where] for severity, where in of_severity.items()}
    first = names.get("1", [])
    for severity in map(str, SEVERITIES):
        if differing := sorted(set(names.get(severity, [])) ^ set(first)):
            raise DataError(
                f"{index.root}: the severities 1 and {severity} differ in {len(differing):,} images: "
                f"{some(differing)}; the archive is not whole"
            )
    classes = sorted({part[1] for part in parts})
    numbers = class_numbers(predictor.classifier, classes, str(index.root)).tolist()
    number_of = dict(zip(classes, numbers, strict=True))
    labels = np.array([number_of[part[1]] for part in parts], dtype=np.int64)
    best = predictor(f"c-{corruption}", index, {"all": None}, predictor.classifier.as_it_is)["all"]
    wrong = best[:, 0] != labels
    return np.stack([wrong[of_severity[str(severity)]] for severity in SEVERITIES]), first
