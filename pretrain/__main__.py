"""`python -m pretrain RECIPE --run-dir DIR --data.root DIR`."""

from engine.cli import guard, main

if __name__ == "__main__":
    with guard():  # MIM_METHODS may name what is no method
        from pretrain.recipes import RECIPES
    main("pretrain", RECIPES)
