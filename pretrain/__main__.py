"""`python -m pretrain RECIPE --run-dir DIR --data.root DIR`."""

from engine.cli import main
from pretrain.recipes import RECIPES
from pretrain.train import train

if __name__ == "__main__":
    main("pretrain", RECIPES, train)
