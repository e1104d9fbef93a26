"""The measurements of each robustness set, with its own masking rule.

N images, K classes of the classifier. Rules: ImageNet-A and R take the best among their 200 classes, as do the images
of those classes in ImageNet ("clean"); V2 and Sketch the best of all classes; ReaL counts a prediction that is among an
image's labels, and leaves out images without one; ImageNet-C is the mCE over its pictures as they are.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.data.index import ImageIndex, index_images
from engine.data.options import DEFAULT_OPTIONS, ImageOptions
from engine.data.scan import some
from engine.errors import DataError
from evaluation.robustness.classifier import LoadedClassifier
from evaluation.robustness.corruption import corruption_error, mce_interval
from evaluation.robustness.facts import CORRUPTIONS, SEVERITIES, imagenet_classes, real_labels, subset_classes
from evaluation.robustness.folders import find_corruptions
from evaluation.robustness.measure import Accuracy, accuracy, judge, predict

_RESAMPLES = 2000

log = logging.getLogger("mim")


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How images are read.

    Args:
        batch_size: images at once.
        num_workers: reader processes.
        options: which images are left out, and how they are decoded.
        seed: of the bootstrap of the mCE.
    """

    batch_size: int = 125
    num_workers: int = 8
    options: ImageOptions = DEFAULT_OPTIONS
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A number with its interval, in percent, and how it was made.

    Args:
        value: top-1 accuracy, or the mCE; None where it cannot be said.
        low: lower end of the bootstrap interval over images.
        high: its upper end.
        num_images: how many counted.
        rule: what a prediction may be and when it is right.
        more: further numbers: top5, ce of each corruption, what was left out.
    """

    value: float | None
    low: float | None
    high: float | None
    num_images: int
    rule: str
    more: dict[str, Any]


def measure_sets(classifier: LoadedClassifier, folders: dict[str, Path], reading: Reading) -> dict[str, Measured]:
    """Every measurement that the folders allow, by the keys of folders.TITLES.

    Raises:
        DataError: a set is not as its authors ship it, or has classes that the classifier does not know.
        DivergedError: the classifier's scores are not finite.
    """
    found: dict[str, Measured] = {}
    if "imagenet" in folders:
        found |= _imagenet(classifier, folders, reading)
    for name in ("a", "r"):
        if name in folders:
            found[name] = _masked(classifier, name, folders[name], reading)
    for name in ("sketch", "v2", "v2_threshold", "v2_top"):
        if name in folders:
            found[name] = _plain(classifier, name, folders[name], reading)
    if "c" in folders:
        found["c"] = _corrupted(classifier, folders["c"], reading)
    return found


def class_numbers(classifier: LoadedClassifier, names: Sequence[str], where: str) -> npt.NDArray[np.int64]:
    """The classifier's numbers of classes that are given by name (wnid), or, where all are whole numbers and it knows
    none of them by that name, by their place among ImageNet's classes (ImageNet-V2's folders).

    Raises:
        DataError: it does not know one.
    """
    number_of = {name: number for number, name in enumerate(classifier.classes)}
    if all(name.isascii() and name.isdecimal() for name in names) and not set(names) <= number_of.keys():
        order = imagenet_classes() if _knows_wnids(classifier) else classifier.classes
        if beyond := [name for name in names if int(name) >= len(order)]:
            raise DataError(f"{where}: no class has the number {some(beyond)}: they go from 0 to {len(order) - 1}")
        names = [order[int(name)] for name in names]
    if unknown := [name for name in names if name not in number_of]:
        raise DataError(
            f"{where}: {len(unknown):,} of its {len(names):,} classes are not among the {len(classifier.classes):,} of "
            f"{classifier.source}: {some(unknown)}; it knows {some(classifier.classes)}"
        )
    return np.array([number_of[name] for name in names], dtype=np.int64)


def _knows_wnids(classifier: LoadedClassifier) -> bool:
    return bool(set(classifier.classes) & set(imagenet_classes()))


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
            *(name.upper(), classifier.source, len(known), len(published)),
        )
    return known, f"best of the {len(known)} classes of ImageNet-{name.upper()}"


def _labelled(classifier: LoadedClassifier, folder: Path, reading: Reading) -> tuple[ImageIndex, tuple[str, ...]]:
    """The images of a folder of class folders with the classifier's labels, and the folders' names."""
    index = index_images(folder, labelled=True, options=reading.options, unreadable="stop")
    numbers = class_numbers(classifier, index.classes, str(folder))
    assert index.labels is not None
    return replace(index, labels=numbers[index.labels], classes=classifier.classes), index.classes


def _predict(
    classifier: LoadedClassifier, index: ImageIndex, masks: dict[str, list[int] | None], reading: Reading, title: str
) -> dict[str, npt.NDArray[np.int64]]:
    how = {"batch_size": reading.batch_size, "num_workers": reading.num_workers}
    return predict(classifier, index, masks, classifier.transform, title=title, **how)


def _said(found: Accuracy, rule: str, **more: Any) -> Measured:
    return Measured(
        value=found.top1,
        low=found.low,
        high=found.high,
        num_images=found.num_images,
        rule=rule,
        more={**({} if found.top5 is None else {"top5": found.top5}), **more},
    )


def _plain(classifier: LoadedClassifier, name: str, folder: Path, reading: Reading) -> Measured:
    index, _ = _labelled(classifier, folder, reading)
    best = _predict(classifier, index, {"all": None}, reading, name)["all"]
    assert index.labels is not None
    return _said(judge(best, index.labels), f"best of all {len(classifier.classes)} classes", data=index.digest)


def _masked(classifier: LoadedClassifier, name: str, folder: Path, reading: Reading) -> Measured:
    index, classes = _labelled(classifier, folder, reading)
    allowed, rule = mask_of(classifier, name, classes)
    best = _predict(classifier, index, {"mask": allowed}, reading, name)["mask"]
    assert index.labels is not None
    return _said(judge(best, index.labels), rule, data=index.digest)


def _imagenet(classifier: LoadedClassifier, folders: dict[str, Path], reading: Reading) -> dict[str, Measured]:
    """Plain accuracy on ImageNet's validation images, by ReaL's labels, and on those of A's and R's classes."""
    folder = folders["imagenet"]
    index, classes = _labelled(classifier, folder, reading)
    assert index.labels is not None
    partners = {
        name: mask_of(classifier, name, subset_classes(name))
        for name in ("a", "r")
        if set(classes) & set(subset_classes(name))
    }
    masks: dict[str, list[int] | None] = {"all": None, **{name: allowed for name, (allowed, _) in partners.items()}}
    best = _predict(classifier, index, masks, reading, "imagenet")
    plain = judge(best["all"], index.labels)
    found = {"imagenet": _said(plain, f"best of all {len(classifier.classes)} classes", data=index.digest)}
    for name, (allowed, rule) in partners.items():
        inside = np.isin(index.labels, allowed)
        found[f"{name}_clean"] = _said(judge(best[name][inside], index.labels[inside]), rule)
    if "real" in folders or all(Path(path).name.startswith("ILSVRC2012_val_") for path in index.paths):
        found |= _real(classifier, folders.get("real"), index, best["all"][:, 0])
    return found


def _real(
    classifier: LoadedClassifier, path: Path | None, index: ImageIndex, predicted_n: npt.NDArray[np.int64]
) -> dict[str, Measured]:
    order = imagenet_classes() if _knows_wnids(classifier) else classifier.classes
    place = {name: number for number, name in enumerate(order)}
    in_order = np.array([place.get(name, -1) for name in classifier.classes], dtype=np.int64)
    labels = real_labels(path)
    kept, right = labels.right([name.rpartition("/")[2] for name in index.paths], in_order[predicted_n])
    if not kept:
        raise DataError(f"{labels.source}: no image of {index.root} has a label in it")
    rule = "right if among ReaL's labels; images without one left out"
    facts = {"left_out": len(index) - len(kept), "labels": labels.source, "labels_sha256": labels.sha256}
    return {"real": _said(accuracy(right), rule, **facts)}


def _corrupted(classifier: LoadedClassifier, root: Path, reading: Reading) -> Measured:
    wrong: dict[str, npt.NDArray[np.bool_]] = {}
    names: list[str] = []
    for corruption, folder in find_corruptions(root).items():
        wrong[corruption], its_names = _wrong(classifier, folder, reading)
        if names and its_names != names:
            differing = sorted(set(names) ^ set(its_names))
            raise DataError(
                f"{folder}: its images are not those of {next(iter(wrong))}: {len(differing):,} are in one alone: "
                f"{some(differing)}; the archive is not whole"
            )
        names = its_names
    errors = {name: wrong[name].mean(axis=1).tolist() for name in wrong}
    found = corruption_error(errors)
    low, high = (None, None)
    if found.mce is not None:
        low, high = mce_interval(wrong, resamples=_RESAMPLES, seed=reading.seed)
    elif missing := [name for name in CORRUPTIONS if name not in wrong]:
        log.warning("%s: no mCE: %d of the 15 corruptions are not there: %s", root, len(missing), some(missing))
    extra = {name: 100 * float(np.mean(values)) for name, values in errors.items() if name not in CORRUPTIONS}
    return Measured(
        value=found.mce,
        low=low,
        high=high,
        num_images=len(names),
        rule="mean over the 15 corruptions of the error over AlexNet's; pictures as they are, uncropped",
        more={
            "ce": found.ce,
            "mean_error": found.mean_error,
            "errors": {name: [100 * value for value in values] for name, values in errors.items()},
            "extra_mean_error": extra,
        },
    )


def _wrong(classifier: LoadedClassifier, folder: Path, reading: Reading) -> tuple[npt.NDArray[np.bool_], list[str]]:
    """Whether each image is predicted wrong at each severity (5, N), and the images' paths below a severity."""
    index = index_images(folder, labelled=False, options=reading.options, unreadable="stop")
    parts = [path.split("/", 2) for path in index.paths]
    if loose := [path for path, part in zip(index.paths, parts, strict=True) if len(part) < 3]:
        raise DataError(f"{folder}: {some(loose)}: not <severity>/<class>/<image>, as ImageNet-C has them")
    of_severity: dict[str, list[int]] = {}
    for position, part in enumerate(parts):
        of_severity.setdefault(part[0], []).append(position)
    names = {severity: [f"{parts[i][1]}/{parts[i][2]}" for i in where] for severity, where in of_severity.items()}
    first = names.get("1", [])
    for severity in map(str, SEVERITIES):
        if differing := sorted(set(names.get(severity, [])) ^ set(first)):
            raise DataError(
                f"{folder}: the severities 1 and {severity} differ in {len(differing):,} images: {some(differing)}; "
                "the archive is not whole"
            )
    classes = sorted({part[1] for part in parts})
    numbers = dict(zip(classes, class_numbers(classifier, classes, str(folder)).tolist(), strict=True))
    labels = np.array([numbers[part[1]] for part in parts], dtype=np.int64)
    how = {"batch_size": reading.batch_size, "num_workers": reading.num_workers}
    labelled = replace(index, labels=labels)
    best = predict(classifier, labelled, {"all": None}, classifier.as_it_is, title=folder.name, **how)["all"]
    wrong = best[:, 0] != labels
    return np.stack([wrong[of_severity[str(severity)]] for severity in SEVERITIES]), first
