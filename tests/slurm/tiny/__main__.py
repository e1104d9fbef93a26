from engine import cli
from tests.slurm.tiny.recipes import RECIPES
from tests.slurm.tiny.train import PACKAGE, train

cli.main(PACKAGE, RECIPES, train)
