from tests.engine.tiny_task import tiny

RECIPES = {"tiny": lambda: tiny()}
