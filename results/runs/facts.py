"""What a run was trained and evaluated on, by all its files together: a number that one of them contradicts is none."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engine.config import config_hash
from results.runs.runfiles import UnusableRun, is_count, optional_number
from suite_tasks import find

# (training images, validation images, classes where the run records them) -> name in results/published.
DATASETS: dict[tuple[float | None, ...], str] = {
    (1281167, None, None): "ImageNet-1K",
    (1281167, 50000, 1000): "ImageNet-1K",
    (117266, 5000, None): "COCO 2017",  # training images with an object
    (118287, 5000, None): "COCO 2017",
    (20210, 2000, None): "ADE20K",
    (20210, 2000, 150): "ADE20K",
}
FRACTION = "train_fraction"
OF_A_PART = "data.full_epochs"
"""A setting that says something of a run on a part of the labels only."""
# The part of data.json that holds a number of finished.json. That of older detectors counts the annotation file too.
_PINNED = {
    "num_images": ("train",),
    "num_train": ("train", "training images", "train images"),
    "num_val": ("val", "validation images", "val images"),
}
_MONITOR = "monitor"  # what is looked at during pre-training changes nothing of it
_WHOLE = "train before train_fraction"  # the set that a fraction was taken from


@dataclass(frozen=True)
class Facts:
    """The data of a run.

    Args:
        name: the published data set with as many images (and classes), if the run's own files agree on them, else
            those counts as text.
        key: tells image sets apart, and nothing else: a digest of names and sizes, of the whole set even where a run
            trained on a fraction of it; the folder where a run recorded no digest.
        evaluated: a digest of what it was evaluated on.
        whole: whether `key` is of the whole training set; False where only the evaluated images are known of it.
    """

    name: str
    key: str
    evaluated: str
    whole: bool


def read_facts(
    task: str,
    config: Mapping[str, Any],
    summary: dict[str, Any],
    data: Mapping[str, Any],
    classes: Any,
) -> Facts:
    """The data of a run, from finished.json and the files that it has to agree with.

    Args:
        task: of the run.
        config: config.json's.
        summary: finished.json.
        data: data.json, {} without one.
        classes: what classes.json holds, None without one.

    Raises:
        UnusableRun: two files disagree.
    """
    pinned = _pinned(data)
    train = "num_train" if "num_train" in summary else "num_images"
    counts = tuple(optional_number(summary, name) for name in (train, "num_val", "num_classes"))
    shown = " + ".join(f"{count}" for count in counts[:2] if count is not None)
    certain = all(
        _agrees(task, summary, name, pinned) for name in (train, "num_val") if summary.get(name) is not None
    ) and _classes_agree(summary, classes)
    name = DATASETS.get(counts) if certain else None
    key, whole = _key(config, pinned)
    evaluated = digest_of({name: pinned[name] for name in pinned if name.startswith("val")})
    return Facts(name or (f"{shown} images" if shown else ""), key, evaluated, whole)


def check_evaluated(lines: list[Mapping[str, Any]], summary: Mapping[str, Any]) -> None:
    """Whether every evaluation in metrics.jsonl is of as many images as finished.json says.

    Raises:
        UnusableRun: one is not.
    """
    expected = summary.get("num_val")
    for line in lines:
        found = line.get("num_images", expected)
        if line.get("split") == "val" and expected is not None and found != expected:
            raise UnusableRun(
                f"finished.json: num_val is {expected}, an evaluation in metrics.jsonl has {found} images"
            )


def _pinned(data: Mapping[str, Any]) -> dict[str, tuple[int, str]]:
    """{name: (number of images, digest)}; of what pins something else than images 0 and all that it says."""
    found = {}
    for name, entry in data.items():
        if name.startswith(_MONITOR):
            continue
        if isinstance(entry, dict) and is_count(entry.get("num_images")):
            found[name] = (entry["num_images"], str(entry.get("digest", "")))
        elif any(name in places for places in _PINNED.values()):
            raise UnusableRun(f"data.json: {name} is {json.dumps(entry)[:80]}, which says no number of images")
        else:
            found[name] = (0, json.dumps(entry, sort_keys=True))
    return found


def _agrees(task: str, summary: Mapping[str, Any], name: str, pinned: Mapping[str, tuple[int, str]]) -> bool:
    """Whether data.json has the same number; False: it has none to compare with."""
    there = next((place for place in _PINNED[name] if place in pinned), None)
    if there is None:
        return False
    count = pinned[there][0]
    # Older detectors pinned the annotation file too; skipped images are left out.
    partly = find(task).trains_on_part
    smallest = 0 if partly and name == "num_train" else count - int(summary.get("unreadable") or 0)
    if not smallest - partly <= summary[name] <= count:
        raise UnusableRun(f"finished.json: {name} is {summary[name]}, data.json has {count} images")
    return True


def _classes_agree(summary: Mapping[str, Any], classes: Any) -> bool:
    expected = summary.get("num_classes")
    if expected is None:
        return True
    if not isinstance(classes, list):
        return False
    if len(classes) != expected:
        raise UnusableRun(f"finished.json: num_classes is {expected}, classes.json has {len(classes)}")
    return True


def _key(config: Mapping[str, Any], pinned: Mapping[str, tuple[int, str]]) -> tuple[str, bool]:
    options = config.get("data", {})
    if not pinned:
        return str(options.get("root", "")), True
    if options.get(FRACTION, 1) == 1:
        return digest_of(pinned), True
    if _WHOLE in pinned:
        return digest_of({"train": pinned[_WHOLE], "val": pinned.get("val", (0, ""))}), True
    return digest_of({"val": pinned.get("val", (0, ""))}), False


def digest_of(pinned: Mapping[str, tuple[int, str]]) -> str:
    """A few characters for image sets, each {name: (number of images, digest)}."""
    plain = {name: {"num_images": count, "digest": digest} for name, (count, digest) in pinned.items()}
    return config_hash(plain)[:8]
