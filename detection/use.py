"""`python -m detection predict RUN IMAGE...|FOLDER|FILE.json`: what a run's detector finds in any images;
`python -m detection evaluate RUN --data.root DIR`: COCO's numbers of it on another annotated set."""

import dataclasses
import json
import logging
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pycocotools import mask as run_lengths

from detection.coco import check_image_sizes, read_split
from detection.evaluation import coco_numbers, predict_all, with_category_ids
from detection.finished import FinishedDetector, load_detector
from detection.frameworks.contract import Result
from detection.values import whole_number
from detection.visualize import draw, shown
from engine import use
from engine.data.images import read_image
from engine.errors import ConfigError, DataError
from engine.run import storage

log = logging.getLogger("mim")


def predict(command: use.Predict) -> None:
    """Write `<out>/detections.json`, a COCO document whose annotations have scores, and a picture of each image.

    Where the images are those of a COCO file, ids and names are its own, and there are also the result files that
    COCO's evaluation server takes.

    Raises:
        ConfigError: the folder holds no finished run, or an option makes no sense.
        DataError: some images could not be read; what was found in the others is written.
    """
    least = _score(command.more.get("min-score", "0"))
    listed = command.images[0].path if len(command.images) == 1 and command.images[0].path.suffix == ".json" else None
    ids, images = images_of(listed, command.more.get("image-dir")) if listed else ({}, command.images)
    detector = load_detector(command.run)
    known: list[dict[str, Any]] = []
    results: list[Result] = []

    def detect(image: use.Image) -> None:
        array = read_image(image.path, command.as_asked(detector.config.data))
        number = ids.get(image.name, len(known) + 1)
        found = [{**result, "image_id": number} for result in detector.detect(array) if result["score"] >= least]
        if command.pictures:
            path = command.out / "pictures" / f"{image.name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            draw(array, shown(found), detector.names).save(path)
        height, width = array.shape[:2]
        known.append({"id": number, "file_name": _file_name(image), "width": width, "height": height})
        results.extend(found)

    with storage.storage_errors(command.out):
        command.out.mkdir(parents=True, exist_ok=True)
        try:
            use.predict_each(images, detect, command.options)
        finally:
            if known:
                _write(command, detector, known, results)
                what = f"{use.counted(len(results), 'detection')} in {use.counted(len(known), 'image')}"
                log.info("%s: %s", what, command.out / "detections.json")
        if listed:
            for kind in ("bbox", "segm") if detector.config.has_masks else ("bbox",):
                write_results(command.out / kind, listed.stem, command.run.absolute().name, results)


def _score(text: str) -> float:
    try:
        score = float(text)
    except ValueError:
        score = -1.0
    if not 0 <= score <= 1:
        raise ConfigError(f"--min-score {text} is no number from 0 to 1")
    return score


def _file_name(image: use.Image) -> str:
    """With the suffix, which the name of an image's results may lack."""
    return image.name if image.name.endswith(image.path.suffix) else f"{image.name}{image.path.suffix}"


def images_of(path: Path, image_dir: str | None) -> tuple[Mapping[str, int | str], list[use.Image]]:
    """({name: id}, images) of a COCO file that lists images; an id that is no number stays as it is.

    Raises:
        DataError: it lists none, or some are not there.
    """
    folder = Path(image_dir) if image_dir else path.parent
    try:
        entries = {str(entry["file_name"]): _id(entry["id"]) for entry in json.loads(path.read_bytes())["images"]}
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise DataError(
            f"{path}: no COCO file with a list of images, each with id and file_name ({error!r})"
        ) from error
    missing = [name for name in entries if not (folder / name).is_file()]
    if missing or not entries:
        which = f"{len(missing):,} of its {len(entries):,} images are not in {folder}, such as {missing[:1]}"
        raise DataError(f"{path}: {which if entries else 'it lists no image'} (--image-dir DIR says where they are)")
    return entries, [use.Image(folder / name, name) for name in entries]


def _id(value: Any) -> int | str:
    number = whole_number(value)
    return str(value) if number is None else number


def _write(
    command: use.Predict, detector: FinishedDetector, images: list[dict[str, Any]], results: list[Result]
) -> None:
    annotations = [
        {"id": number, **result, "area": _area(result), "iscrowd": 0} for number, result in enumerate(results, 1)
    ]
    document = {
        "info": {"description": f"detections of {command.run.absolute()}, not annotations: each has a score"},
        "images": images,
        "annotations": annotations,
        "categories": detector.categories,
    }
    storage.write_atomic(command.out / "detections.json", json.dumps(document, allow_nan=False))


def write_results(folder: Path, listed: str, name: str, results: list[Result]) -> Path:
    """One result file as COCO's evaluation server takes it, detections_<set>_<name>_results.json in a zip of that name.

    Args:
        folder: "bbox" or "segm", of which the last part says which of the two the results keep.
        listed: stem of the file that listed the images; image_info_test-dev2017 stands for test-dev2017.
        name: of the algorithm: here the run's.
        results: with image_id and category_id of the data set.
    """
    other = "segmentation" if folder.name == "bbox" else "bbox"
    kept = [{key: value for key, value in result.items() if key != other} for result in results]
    stem = f"detections_{listed.removeprefix('image_info_').removeprefix('instances_')}_{name}_results"
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(kept, allow_nan=False)
    storage.write_atomic(folder / f"{stem}.json", text)
    with zipfile.ZipFile(folder / f"{stem}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{stem}.json", text)
    return folder / f"{stem}.zip"


def _area(result: Result) -> float:
    """Pixels of the mask, or of the box."""
    if "segmentation" in result:
        return float(run_lengths.area(result["segmentation"]))
    return float(result["bbox"][2] * result["bbox"][3])


def evaluate(command: use.Evaluate) -> dict[str, float]:
    """COCO's numbers in percent, by pycocotools. The classes of the set are found by their names, whatever their ids.

    Raises:
        ConfigError: the folder holds no finished run.
        DataError: the annotations cannot be used, or lack a class of the run.
    """
    detector = load_detector(command.run)
    config = detector.config
    names = tuple(detector.names.values())
    data = dataclasses.replace(command.config.data, classes=names if len(set(names)) == len(names) else ())
    split = read_split(data, "val", training=False, masks=config.has_masks)
    check_image_sizes(split)
    results = predict_all(
        detector,
        detector.model,
        detector.framework.samples(split, dataclasses.replace(config, data=data), False, None),
        batch_size=data.evaluation_batch_size,
        num_workers=data.num_workers,
        check_stop=lambda: None,
    )
    kinds = ("box", "mask") if config.has_masks else ("box",)
    found = with_category_ids(results, split.category_ids)
    return coco_numbers(split.ground_truth(), found, kinds, official=True)
