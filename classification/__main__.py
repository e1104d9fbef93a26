"""`python -m classification RECIPE --run-dir DIR --data.root DIR --init FILE|RUN_DIR|none`, and what a run is used for:
`python -m classification predict RUN IMAGE...|FOLDER`, `python -m classification evaluate RUN --data.root DIR`."""

import json
import sys
from dataclasses import replace

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


if __name__ == "__main__":
    use.main("classification", RECIPES, use.Words(results="classes", use=_use), sys.argv[1:])
