"""What `python -m detection` does: a recipe, or with a finished run predict, evaluate and export."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from detection.config import DetectionConfig
from detection.recipes import RECIPES
from engine import cli, use

WORDS = ("predict", "evaluate", "export")
_HELP = (
    use.HELP.format(package="detection", results="boxes, masks and scores as COCO's JSON, and pictures")
    + """
       python -m detection export RUN FILE.pth the detector in Detectron2's names (ResNets)
       python -m detection.visualize RUN_DIR [IMAGE ...]
                                              draw annotations beside detections"""
)


def main(arguments: Sequence[str]) -> NoReturn:
    """Run a recipe or a word; leaves with the exit code."""
    if not arguments or arguments[0] in ("-h", "--help"):
        with cli.guard():  # the reader of a pipe may have seen enough
            head, _, recipes = cli.describe("detection", RECIPES).partition("\n\n")
            print(f"{head}{_HELP}\n\n{recipes}", flush=True)
        sys.exit(0 if arguments else 2)
    if arguments[0] not in WORDS:
        cli.main("detection", RECIPES, argv=arguments)
    with cli.guard("--debug" in arguments):
        _use(arguments[0], [argument for argument in arguments[1:] if argument != "--debug"])
    sys.exit(0)


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
