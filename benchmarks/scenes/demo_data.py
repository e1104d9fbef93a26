"""Write generated scenes as three small data sets: an image folder, COCO instances and ADE20K segmentation.

The same pictures in each, so that the whole suite runs with no download. Every file is a function of (seed, split,
index): the same request gives the same bytes, with any number of worker processes. What is in a scene: scenes.py.
"""

import fcntl
import io
import json
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.scenes.outlines import outline_polygons, run_lengths
from benchmarks.scenes.scene import SPLITS, Scene, draw_scene
from benchmarks.scenes.textures import CLASSES, GROUNDS
from engine.errors import ConfigError, DataError

MANIFEST = "manifest.json"
FORMAT = 1  # raise when the same parameters would give other files
MAX_SCENES = 1_000_000

# As in COCO, category ids are not 1..n: 6 is left out, so code that takes an id for a class index fails here already.
COCO_CATEGORY_IDS = (1, 2, 3, 4, 5, 7, 8, 9, 10, 11)
# As in ADE20K, masks hold 0 for unlabelled pixels and 1..150 for classes. Only these are used; 150 is among them.
ADE_GROUND_IDS = dict(zip(GROUNDS, (1, 2, 3, 10, 22, 47), strict=True))
ADE_THING_IDS = dict(zip(CLASSES, range(141, 151), strict=True))
ADE_BORDER_PX = 2  # a frame of unlabelled pixels, so that ignoring 0 is exercised

ADE_FOLDERS = {"train": "training", "val": "validation"}
INFO_HEAD = "Idx\tRatio\tTrain\tVal\tStuff\tName"


@dataclass(frozen=True)
class _Sample:
    """One scene as the files and annotations it becomes. The annotations lack their ids; shares are of all pixels."""

    files: dict[str, bytes]
    image: dict[str, Any]
    annotations: list[dict[str, Any]]
    ade_shares: dict[int, float]


def write_demo_data(
    directory: Path | str,
    *,
    num_train: int = 800,
    num_val: int = 200,
    seed: int = 0,
    num_workers: int = 1,
    say: Callable[[str], None] = print,
) -> Path:
    """Write the demo data sets below `directory` and return it; a directory that already holds them is reused.

    The result appears whole or not at all: it is written beside `directory` and renamed. A second process asked for the
    same directory waits for the first one and then reuses its result. About 15 ms a scene on one core.

    Layout: imagenet/{train,val}/<class>/*.jpg, labelled by the main object (scenes.py); coco/annotations/
    instances_{train,val}2017.json with coco/{train,val}2017/*.jpg; ADEChallengeData2016/{images,annotations}/
    {training,validation}/ with the used class ids in objectInfo150.txt; manifest.json with parameters and file sizes.

    Raises:
        ConfigError: a number is out of range, or the directory holds something else.
        DataError: the directory holds this data set, but a file of it is missing or has another size.
    """
    wanted = {"format": FORMAT, "num_train": num_train, "num_val": num_val, "seed": seed}
    problems = [
        f"{k} {wanted[k]}: must be 10..{MAX_SCENES}" for k in ("num_train", "num_val") if not _in_range(wanted[k])
    ]
    if problems or seed < 0 or num_workers < 1:
        extra = [f"seed {seed}: must be 0 or more"] * (seed < 0)
        extra += [f"num_workers {num_workers}: must be 1 or more"] * (num_workers < 1)
        raise ConfigError("demo data: " + "; ".join(problems + extra))
    root = Path(directory).resolve()
    partial_dir = root.with_name(f"{root.name}.partial")
    with _locked(root.with_name(f".{root.name}.lock"), say):
        if root.exists() and any(root.iterdir()):
            _check_same(root, wanted)
            say(f"{root}: already holds this data set, reused")
            return root
        shutil.rmtree(partial_dir, ignore_errors=True)  # left behind by a killed process
        partial_dir.mkdir(parents=True)
        sizes = _write_all(partial_dir, num_train=num_train, num_val=num_val, seed=seed, num_workers=num_workers)
        (partial_dir / MANIFEST).write_text(json.dumps({**wanted, "files": sizes}, indent=0, sort_keys=True))
        partial_dir.rename(root)
    say(f"{root}: {num_train} training and {num_val} validation scenes written")
    return root


def _in_range(count: int) -> bool:
    return len(CLASSES) <= count <= MAX_SCENES


@contextmanager
def _locked(path: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Hold an advisory lock; the system releases it when the process ends, however it ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"{path}: another process is writing this data set, waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _check_same(root: Path, wanted: dict[str, int]) -> None:
    try:
        manifest = json.loads((root / MANIFEST).read_text())
        found = {key: manifest[key] for key in wanted}
        files: dict[str, int] = manifest["files"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{root}: not empty and no demo data set; choose an empty or a new directory") from error
    if found != wanted:
        raise ConfigError(f"{root}: holds the demo data set of {found}, asked for {wanted}; choose another directory")
    for name, size in files.items():
        path = root / name
        if not path.is_file() or path.stat().st_size != size:
            raise DataError(f"{path}: missing or changed since it was written; remove {root} and write it again")


def _write_all(root: Path, *, num_train: int, num_val: int, seed: int, num_workers: int) -> dict[str, int]:
    """Write everything but the manifest below root; returns the size of every file by its relative path."""
    sizes: dict[str, int] = {}

    def write(name: str, data: bytes) -> None:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        sizes[name] = len(data)

    shares: dict[str, dict[int, float]] = {}
    for split, count in zip(SPLITS, (num_train, num_val), strict=True):
        images, annotations = [], []
        shares[split] = dict.fromkeys([*ADE_GROUND_IDS.values(), *ADE_THING_IDS.values()], 0.0)
        for sample in _samples(seed, split, count, num_workers):
            for name, data in sample.files.items():
                write(name, data)
            images.append(sample.image)
            annotations += sample.annotations
            for label, share in sample.ade_shares.items():
                shares[split][label] += share / count
        coco = _coco_document(images, annotations)
        write(f"coco/annotations/instances_{split}2017.json", json.dumps(coco, separators=(",", ":")).encode())
    write("ADEChallengeData2016/objectInfo150.txt", _object_info(shares).encode())
    return sizes


def _samples(seed: int, split: str, count: int, num_workers: int) -> Iterator[_Sample]:
    make = partial(_make_sample, seed, split)
    if num_workers == 1:
        yield from map(make, range(count))
        return
    # spawn: the caller may hold threads (torch's), which forked children must not inherit
    with ProcessPoolExecutor(num_workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(make, range(count), chunksize=16)


def _make_sample(seed: int, split: str, index: int) -> _Sample:
    scene = draw_scene(seed, split, index)
    height, width = scene.ground_hw.shape
    image_id = index + 1 + MAX_SCENES * SPLITS.index(split)
    jpeg, ade_map = _encode(scene.image_hw3, "JPEG"), _ade_map(scene)
    main_class = CLASSES[scene.things[0].class_index]
    ade_name = f"{ADE_FOLDERS[split]}/ADE_{split}_{index + 1:08d}"
    labels, counts = np.unique(ade_map[ade_map > 0], return_counts=True)
    return _Sample(
        files={
            f"imagenet/{split}/{main_class}/{index + 1:06d}.jpg": jpeg,
            f"coco/{split}2017/{image_id:012d}.jpg": jpeg,
            f"ADEChallengeData2016/images/{ade_name}.jpg": jpeg,
            f"ADEChallengeData2016/annotations/{ade_name}.png": _encode(ade_map, "PNG"),
        },
        image={"id": image_id, "file_name": f"{image_id:012d}.jpg", "height": height, "width": width},
        annotations=[_annotation(thing.visible_hw, thing.class_index, thing.crowd, image_id) for thing in scene.things],
        ade_shares={int(label): float(count) / ade_map.size for label, count in zip(labels, counts, strict=True)},
    )


def _encode(image: NDArray[np.uint8], kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind, **({"quality": 85} if kind == "JPEG" else {}))
    return buffer.getvalue()


def _ade_map(scene: Scene) -> NDArray[np.uint8]:
    """ADE20K labels (h, w): things over ground, unlabelled at the border of the image."""
    labels = np.array(list(ADE_GROUND_IDS.values()), dtype=np.uint8)[scene.ground_hw]
    for thing in scene.things:
        labels[thing.visible_hw] = ADE_THING_IDS[CLASSES[thing.class_index]]
    framed = np.zeros_like(labels)
    inside = (slice(ADE_BORDER_PX, -ADE_BORDER_PX),) * 2
    framed[inside] = labels[inside]
    return framed


def _annotation(mask_hw: NDArray[np.bool_], class_index: int, crowd: bool, image_id: int) -> dict[str, Any]:
    rows, columns = np.nonzero(mask_hw.any(axis=1))[0], np.nonzero(mask_hw.any(axis=0))[0]
    x, y = int(columns[0]), int(rows[0])
    segmentation = {"counts": run_lengths(mask_hw), "size": list(mask_hw.shape)} if crowd else outline_polygons(mask_hw)
    return {
        "image_id": image_id,
        "category_id": COCO_CATEGORY_IDS[class_index],
        "iscrowd": int(crowd),
        "area": int(mask_hw.sum()),
        "bbox": [x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y],
        "segmentation": segmentation,
    }


def _coco_document(images: list[dict[str, Any]], annotations: list[dict[str, Any]]) -> dict[str, Any]:
    categories = [
        {"id": number, "name": name, "supercategory": "shape"}
        for number, name in zip(COCO_CATEGORY_IDS, CLASSES, strict=True)
    ]
    return {
        "info": {"description": "generated scenes", "version": str(FORMAT)},
        "licenses": [],
        "images": images,
        "annotations": [{"id": number, **annotation} for number, annotation in enumerate(annotations, start=1)],
        "categories": categories,
    }


def _object_info(shares: dict[str, dict[int, float]]) -> str:
    """The used rows of ADE20K's class table: id, share of all pixels (mean, train, val), ground or not, name."""
    rows = [(number, 1, name) for name, number in ADE_GROUND_IDS.items()]
    rows += [(number, 0, name) for name, number in ADE_THING_IDS.items()]
    lines = [INFO_HEAD]
    for number, stuff, name in rows:
        train, val = shares["train"][number], shares["val"][number]
        lines.append(f"{number}\t{(train + val) / 2:.4f}\t{train:.4f}\t{val:.4f}\t{stuff}\t{name}")
    return "\n".join(lines) + "\n"
