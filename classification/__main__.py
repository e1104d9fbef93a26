"""`python -m classification RECIPE --run-dir DIR --data.root DIR --init FILE|RUN_DIR|none`, and what a run is used for:
`python -m classification predict RUN IMAGE...|FOLDER`, `python -m classification evaluate RUN --data.root DIR`."""

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import NoReturn

from classification.config import ClassificationConfig
from classification.recipes import RECIPES
from engine import use


def _use(word: str, arguments: list[str]) -> None:
    from classification import use as this  # imports torch, which --help does without

    if word == "predict":
        this.predict(use.predict_command("classification", arguments))
    else:
        alone = replace(RECIPES["rsb-a2"](), init="none")  # a file says how images are prepared, not how they are read
        asked = use.evaluate_command("classification", arguments, ClassificationConfig, alone)
        print(json.dumps(this.evaluate(asked)))


def main(arguments: Sequence[str]) -> NoReturn:
    """Run a recipe, or use a finished run; leaves with the exit code."""
    use.main("classification", RECIPES, use.Words(results="classes", use=_use), arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
