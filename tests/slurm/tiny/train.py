import functools

from tests.engine import tiny_task

PACKAGE = "tests.slurm.tiny"
train = functools.partial(tiny_task.train, package=PACKAGE)
