"""`python -m segmentation RECIPE --run-dir DIR --data.root DIR --init FILE|RUN_DIR|none`.

`python -m segmentation RECIPE --dump-config FILE.py ...` writes the same run for MMSegmentation's own tools instead.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from engine import cli, use
from engine.errors import ConfigError
from segmentation.config import SegmentationConfig
from segmentation.framework import import_mmsegmentation
from segmentation.recipes import RECIPES

_DUMP = "--dump-config"
_HELP = f"""
       python -m segmentation export RUN DIR   the segmentor and its configuration for MMSegmentation
       python -m segmentation RECIPE {_DUMP} FILE.py ...
                                              write the run as a configuration for MMSegmentation's own tools
       python -m segmentation.check DIR       look for faults in a data set, and which labels it has
       python -m segmentation.visualize RUN_DIR [IMAGE ...]
                                              draw image, truth and prediction"""


def main(arguments: Sequence[str]) -> NoReturn:
    """Run a recipe, or write it as a configuration for MMSegmentation's tools; leaves with the exit code."""
    if _DUMP in arguments and arguments[0] not in _WORDS.known:
        with cli.guard():
            _dump(list(arguments))
        sys.exit(0)
    use.main("segmentation", RECIPES, _WORDS, arguments)


def _train(*values: Any, **options: Any) -> dict[str, float]:
    import_mmsegmentation()
    from segmentation.train import train  # needs its stand-in for compiled operators, which is gone after the import

    return train(*values, **options)


def _export(arguments: list[str]) -> None:
    from segmentation import export

    export.main(arguments)


_WORDS = use.Words(
    results="label maps and pictures",
    config=SegmentationConfig,
    further={"export": _export},
    help=_HELP,
    prepare=import_mmsegmentation,
    train=_train,
)


def _dump(arguments: list[str]) -> None:
    import_mmsegmentation()
    from segmentation.dump import dump_config

    place = arguments.index(_DUMP)
    path = Path(arguments[place + 1]) if place + 1 < len(arguments) else Path()
    if path.suffix != ".py":
        raise ConfigError(f"{_DUMP} needs the name of a Python file to write, such as {_DUMP} upernet_r50.py")
    rest = arguments[:place] + arguments[place + 2 :]
    command = cli.parse("segmentation", RECIPES, [*rest, "--run-dir", path.stem])
    dump_config(command.config, path)
    print(f"{path}: run it with MMSegmentation's tools/train.py, this folder on PYTHONPATH")


if __name__ == "__main__":
    main(sys.argv[1:])
