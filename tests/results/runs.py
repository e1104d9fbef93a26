"""Run folders as the engine writes them, with measurements chosen by the test."""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

from engine import config
from engine.data.index import index_images
from engine.run import storage
from engine.run.open import open_run


@dataclass(frozen=True, kw_only=True)
class Data:
    root: str = "scenes"
    num_workers: int = 0


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """What the results ask of any task's configuration, classification's, detection's or segmentation's."""

    model: str = "r50"
    init: str = "none"
    epochs: int = 3
    seed: int = 0
    learning_rate: float = 0.1
    data: Data = field(default_factory=Data)


@dataclass(frozen=True, kw_only=True)
class Pretraining:
    model: str = "r50"
    method: str = "a2mim"
    epochs: int = 300
    seed: int = 0
    mask_ratio: float = 0.6
    data: Data = field(default_factory=Data)


IMAGENET = {"num_train": 1281167, "num_val": 50000, "num_classes": 1000}
"""What a classification run on ImageNet-1K says of its data in finished.json."""


def tuned(
    run_dir: Path, *, task="classification", recipe="demo", metrics=None, images: Path | None = None, counts=None,
    **changes,
):  # fmt: skip
    """A finished run that measured `metrics` at its end (and half of that before), on `counts` images."""
    metrics = metrics or {"top1": 60.0}
    with open_run(run_dir, Tuning(**changes), package=task, recipe=recipe) as run:
        if images is not None:
            run.pin_data("train", index_images(images, labelled=False))
        if run.config["init"] != "none":
            origin = Path(run.config["init"])
            description = {
                "config_hash": config.config_hash(json.loads((origin / "config.json").read_text())["config"])
            }
            storage.write_json(run.dir / "initialisation.json", {"source": str(origin), "description": description})
        run.log("val", 5, 1.5, {name: value / 2 for name, value in metrics.items()})
        run.log("train", 9, 2.9, {"loss": 0.25})
        run.log("val", 10, 3.0, metrics)
        run.time(10, {"images_per_second": 40.0, "seconds": 1800.0})
        pin(run.dir, **(counts or {}))
        run.finish({f"{name}_last": value for name, value in metrics.items()}, unreadable=0, **(counts or {}))
    return run_dir


def pin(run_dir: Path, **counts) -> None:
    """data.json of as many images, and classes.json, as real runs have them beside what they say in finished.json."""
    names = {"num_train": "train", "num_images": "train", "num_val": "val"}
    path = run_dir / "data.json"
    known = json.loads(path.read_text()) if path.is_file() else {}
    pinned = {names[name]: {"num_images": count, "digest": "0"} for name, count in counts.items() if name in names}
    path.write_text(json.dumps(pinned | known))
    if "num_classes" in counts:
        (run_dir / "classes.json").write_text(json.dumps([f"class {place}" for place in range(counts["num_classes"])]))


def pretrained(run_dir: Path, *, recipe="a2mim-r50-300e", num_images=1281167, **changes):
    """A finished pre-training run of half an hour, on ImageNet's number of images."""
    with open_run(run_dir, Pretraining(**changes), package="pretrain", recipe=recipe) as run:
        run.log("train", 5, 150.0, {"loss": 0.25})
        run.log("train", 10, 300.0, {"loss": 0.125})
        run.time(10, {"images_per_second": 100.0, "seconds": 1800.0})
        pin(run.dir, num_images=num_images)
        run.finish({"loss": 0.125}, unreadable=2, num_images=num_images)
    return run_dir


def edit(path: Path, **changes):
    """Change values of a JSON file by hand, and every hash that would tell, as whoever knows of them could."""
    path.write_text(json.dumps({**(json.loads(path.read_text()) if path.is_file() else {}), **changes}))
    seal(path.parent)


def seal(run_dir: Path) -> None:
    """Make the hashes in finished.json, if it has any, those of what it and the files beside it say now."""
    path = run_dir / "finished.json"
    values = json.loads(path.read_text()) if path.is_file() else {}
    if "sha256" in values:
        there = [name for name in values["files"] if (run_dir / name).is_file()]
        values = {name: value for name, value in values.items() if name != "sha256"}
        values["files"] = {name: hashlib.sha256((run_dir / name).read_bytes()).hexdigest() for name in there}
        content = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
        path.write_text(json.dumps({**values, "sha256": content}))
