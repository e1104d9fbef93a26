"""`python -m detection RECIPE --run-dir DIR --data.root DIR --init FILE|RUN_DIR|none`, and what a finished run is used
for: predict, evaluate and export."""

import argparse
import json
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


def _use(word: str, arguments: list[str]) -> None:
    if word == "predict":
        from detection import predict  # with all that takes seconds to import

        predict.predict(use.predict_command("detection", arguments, predict.MORE))
    elif word == "evaluate":
        command = use.evaluate_command("detection", arguments, DetectionConfig)
        from detection.evaluate import evaluate

        print(json.dumps(evaluate(command)))
    else:
        parser = argparse.ArgumentParser(prog="python -m detection export", description=_EXPORT)
        parser.add_argument("run", type=Path, help="folder of a finished run of framework detectron2")
        parser.add_argument("file", type=Path, help="file to write, *.pth: Detectron2 takes it as MODEL.WEIGHTS")
        options = parser.parse_args(arguments)
        from detection.export import export

        print(export(options.run, options.file))


_EXPORT = "Write a detector on a ResNet in Detectron2's names, for its own tools and configurations."


WORDS = use.Words(
    results="boxes, masks and scores as COCO's JSON, and pictures",
    use=_use,
    known=("predict", "evaluate", "export"),
    help=_HELP,
)


def main(arguments: Sequence[str]) -> NoReturn:
    """Run a recipe or a word; leaves with the exit code."""
    use.main("detection", RECIPES, WORDS, arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
