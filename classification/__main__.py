"""`python -m classification RECIPE --run-dir DIR --data.root DIR --init FILE|RUN_DIR|none`."""

from classification.recipes import RECIPES
from engine.cli import main

if __name__ == "__main__":
    main("classification", RECIPES)
