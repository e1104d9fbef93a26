"""What a resumed run must find again of its annotations: what it has used of them, not the files' every byte."""

import json
import logging

from detection.coco import CocoSplit
from engine.errors import DataError
from engine.run import storage
from engine.run.folder import Run

log = logging.getLogger("mim")


def pin_annotations(run: Run, train: CocoSplit, val: CocoSplit) -> None:
    """Remember at the start what is used of both annotation files, and compare when resuming.

    A corrected file may be resumed with as long as nothing the run has used is changed: of the training file, images,
    boxes, labels and masks; of the validation file everything, from the first evaluation on.

    Raises:
        DataError: something used has changed; says what can be done.
    """
    path = run.dir / "annotations.json"
    now = {"train": train.digest, "val": val.digest}
    known = json.loads(path.read_text()) if path.is_file() else now
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
    if run.main:
        with storage.storage_errors(run.dir):
            storage.write_json(path, now)
