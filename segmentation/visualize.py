"""`python -m segmentation.visualize RUN_DIR [IMAGE ...]` draws the given images, or the first validation images of the
run, with its newest checkpoint. The pictures are panels.py's."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from engine.cli import guard
from engine.errors import DataError
from segmentation.framework import import_mmsegmentation
from segmentation.layout import find_pairs


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw images with the newest checkpoint of a run and print the paths of the pictures."""
    parser = argparse.ArgumentParser(prog="python -m segmentation.visualize", description=main.__doc__)
    parser.add_argument("run_dir", type=Path, help="folder of a segmentation run")
    parser.add_argument("images", type=Path, nargs="*", help="images; by default the run's first validation images")
    parser.add_argument("--out", type=Path, help="where the pictures go; RUN_DIR/panels by default")
    options = parser.parse_args(arguments)
    with guard():
        import_mmsegmentation()
        from segmentation.panels import draw_panel, predict_labels
        from segmentation.use import load_run

        segmentor, config = load_run(options.run_dir)
        try:
            pairs = find_pairs(config.data)
        except DataError:  # the data set is not on this machine, which images given by name do not need
            if not options.images:
                raise
            pairs = {}
        truths = {Path(image).absolute(): Path(path) for part in pairs.values() for image, path in part.matched()}
        images = (
            options.images
            or [Path(image) for image, _ in pairs["validation"].matched()][: config.evaluation.num_panels]
        )
        for image in images:
            path = (options.out or options.run_dir / "panels") / f"{image.stem}.png"
            predicted = predict_labels(segmentor, config, image)
            print(draw_panel(config, image, predicted, path, truths.get(image.absolute())))


if __name__ == "__main__":
    main()
