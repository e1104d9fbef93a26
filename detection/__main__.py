"""`python -m detection RECIPE --run-dir DIR --data.root DIR --init FILE|RUN_DIR|none`, and what a finished run is used
for: predict, evaluate and export."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from detection.config import DetectionConfig
from detection.recipes import RECIPES
from engine import use

_HELP = """
       python -m detection export RUN FILE.pth the detector in Detectron2's names (ResNets)
       python -m detection.visualize RUN_DIR [IMAGE ...]
                                              draw annotations beside detections"""


_EXPORT = "Write a detector on a ResNet in Detectron2's names, for its own tools and configurations."


def _export(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m detection export", description=_EXPORT)
    parser.add_argument("run", type=Path, help="folder of a finished run of framework detectron2")
    parser.add_argument("file", type=Path, help="file to write, *.pth: Detectron2 takes it as MODEL.WEIGHTS")
    options = parser.parse_args(arguments)
    from detection.export import export

    print(export(options.run, options.file))


WORDS = use.Words(
    results="boxes, masks and scores as COCO's JSON, and pictures",
    config=DetectionConfig,
    options={
        "image-dir": "for a COCO file that lists images, instead of images: their folder (by default where it lies)",
        "min-score": "leave out detections below this score, beside those below the run's own heads.score_threshold",
    },
    further={"export": _export},
    help=_HELP,
)


def main(arguments: Sequence[str]) -> NoReturn:
    """Run a recipe or a word; leaves with the exit code."""
    use.main("detection", RECIPES, WORDS, arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
