"""`python -m segmentation.visualize RUN_DIR [IMAGE ...]` draws the given images, or the first validation images of the
run, with its newest checkpoint. The pictures are panels.py's."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from engine.cli import guard
from engine.config import from_dict, read_config_file
from engine.distributed import pick_device
from engine.errors import CheckpointError, ConfigError, DataError
from engine.run import checkpoint
from segmentation.config import SegmentationConfig
from segmentation.framework import import_mmsegmentation
from segmentation.layout import find_pairs


def load_run(run_dir: Path) -> tuple[nn.Module, SegmentationConfig]:
    """The segmentor of a run with its newest checkpoint, in evaluation mode on this machine's device, and the
    configuration.

    Raises:
        ConfigError: the folder holds no segmentation run.
        CheckpointError: it holds no checkpoint.
    """
    stored = read_config_file(run_dir / "config.json")
    if stored.get("package") != "segmentation":
        raise ConfigError(f"{run_dir} holds a {stored.get('package')} run, not a segmentation run")
    config = from_dict(SegmentationConfig, stored["config"])
    newest = checkpoint.newest(run_dir)
    if newest is None:
        raise CheckpointError(f"{run_dir} holds no checkpoint to draw from")
    from segmentation.mmseg_adapter import build_segmentor  # imports MMSegmentation, which may be absent

    segmentor = build_segmentor(config)
    segmentor.load_state_dict(checkpoint.load(newest).model)
    return segmentor.to(pick_device()).eval(), config


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw images with the newest checkpoint of a run and print the paths of the pictures."""
    parser = argparse.ArgumentParser(prog="python -m segmentation.visualize", description=main.__doc__)
    parser.add_argument("run_dir", type=Path, help="folder of a segmentation run")
    parser.add_argument("images", type=Path, nargs="*", help="images; by default the run's first validation images")
    parser.add_argument("--out", type=Path, help="where the pictures go; RUN_DIR/panels by default")
    options = parser.parse_args(arguments)
    with guard():
        import_mmsegmentation()
        from segmentation.panels import draw_panel

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
            out = options.out or options.run_dir / "panels"
            print(draw_panel(segmentor, config, image, out, truth=truths.get(image.absolute())))


if __name__ == "__main__":
    main()
