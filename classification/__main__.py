"""`python -m classification RECIPE --run-dir DIR --data.root DIR --init FILE|RUN_DIR|none`, and what a run is used for:
`python -m classification predict RUN IMAGE...|FOLDER`, `python -m classification evaluate RUN --data.root DIR`."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import NoReturn

from classification.config import ClassificationConfig
from classification.recipes import RECIPES
from engine import use

_WORDS = use.Words(
    results="classes",
    config=ClassificationConfig,
    alone=lambda: replace(RECIPES["rsb-a2"](), init="none"),  # a file says how images are prepared, not how read
)


def main(arguments: Sequence[str]) -> NoReturn:
    """Run a recipe, or use a finished run; leaves with the exit code."""
    use.main("classification", RECIPES, _WORDS, arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
