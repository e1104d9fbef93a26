"""What a resumed run must find again of its annotations: what it has used of them, not the files' every byte."""

import logging
from typing import Any

from detection.coco import CocoSplit
from engine.errors import CheckpointError, DataError
from engine.run import storage
from engine.run.folder import Run

log = logging.getLogger("mim")


def pin_annotations(run: Run, train: CocoSplit, val: CocoSplit) -> None:
    """Remember at the start what is used of both annotation files, and compare when resuming.

    A corrected file may be resumed with as long as nothing the run has used is changed: of the training file, images,
    boxes, labels and masks; of the validation file everything, from the first evaluation on.

    Raises:
        DataError: something used has changed; says what can be done.
        CheckpointError: data.json, which remembers them, cannot be read.
    """
    path = run.dir / "data.json"  # where pin_data has just read or written which images there are
    now = {"train": train.digest, "val": val.digest}
    stored: dict[str, Any] = {}
    try:
        stored = storage.read_object(path)
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} does not say which annotations the run was started with ({error}): put it back as it was, or "
            "start a new run"
        ) from error
    known = stored.get("annotations", now)
    if not isinstance(known, dict) or known.keys() != now.keys():
        raise CheckpointError(f"{path} does not say which annotations the run was started with: {known!r}")
    if known["train"] != now["train"]:
        raise DataError(
            f"{train.annotation_path}: images, boxes, classes or masks that the run trains on are not those it "
            "started with. Put the file back as it was to continue, or start a new run with the corrected one "
            "(--run-dir NEW). Changes of anything else (areas, crowds, texts) would not matter"
        )
    evaluations = [row["step"] for row in run.read_metrics("val")]
    if known["val"] != now["val"] and evaluations:
        steps = ", ".join(map(str, evaluations[:5]))
        raise DataError(
            f"{val.annotation_path}: the run has been evaluated (step {steps}) with other annotations than these, and "
            "its numbers would not be comparable. Put the file back as it was to continue, or start a new run with the "
            "corrected one (--run-dir NEW)"
        )
    if known["val"] != now["val"]:
        log.warning("%s: another content than at the start, which nothing has used so far", val.annotation_path)
    if run.main and stored.get("annotations") != now:
        with storage.storage_errors(run.dir):
            storage.write_json(path, {**stored, "annotations": now})
