"""`python -m pretrain RECIPE --run-dir DIR --data.root DIR`."""

from engine.cli import main
from pretrain.recipes import RECIPES

if __name__ == "__main__":
    main("pretrain", RECIPES)
