"""`python -m classification RECIPE --run-dir DIR --data.root DIR --init FILE|RUN_DIR|none`, and what a run is used for:
`python -m classification predict RUN IMAGE...|FOLDER`, `python -m classification evaluate RUN --data.root DIR`."""

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import NoReturn

from classification.config import ClassificationConfig
from classification.recipes import RECIPES
from engine import cli, use


def main(arguments: Sequence[str]) -> NoReturn:
    """Run a recipe, or use a finished run; leaves with the exit code."""
    if not arguments or arguments[0] in ("-h", "--help"):
        with cli.guard():  # the reader of a pipe may have seen enough
            head, _, recipes = cli.describe("classification", RECIPES).partition("\n\n")
            print(f"{head}{use.HELP.format(package='classification', results='classes')}\n\n{recipes}", flush=True)
        sys.exit(0 if arguments else 2)
    if arguments[0] not in ("predict", "evaluate"):
        cli.main("classification", RECIPES, argv=arguments)
    with cli.guard("--debug" in arguments):
        _use(arguments[0], [argument for argument in arguments[1:] if argument != "--debug"])
    sys.exit(0)


def _use(word: str, arguments: list[str]) -> None:
    from classification import use as this  # imports torch, which --help does without

    if word == "predict":
        this.predict(use.predict_command("classification", arguments))
    else:
        alone = replace(RECIPES["rsb-a2"](), init="none")  # a file says how images are prepared, not how they are read
        asked = use.evaluate_command("classification", arguments, ClassificationConfig, alone)
        print(json.dumps(this.evaluate(asked)))


if __name__ == "__main__":
    main(sys.argv[1:])
