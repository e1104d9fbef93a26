"""Reconstruction panels: what the encoder saw of an image, what was predicted, and the two together.

During a run train.py draws the same images every few epochs; afterwards `python -m pretrain.visualize RUN_DIR
[IMAGE ...] [--output FILE]` draws them, or any others, from the newest checkpoint. A panel is a function of the run's
configuration and the weights: the same run gives the same bytes.

Shapes: B images, H W pixels, g cells along a side.
"""

import argparse
import io
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from engine.cli import guard
from engine.data.decode import read_image
from engine.data.images import ImageIndex, read_sample
from engine.data.order import SampleKey, generator
from engine.distributed import pick_device
from engine.errors import CheckpointError, ConfigError
from engine.run import storage
from engine.run.checkpoint import load_model_state
from engine.use import stored_config
from pretrain.build import build_model
from pretrain.config import PretrainConfig
from pretrain.data import centred, training_images
from pretrain.masking import cell_mask, expand_mask
from pretrain.methods.method import PretrainModel

NUM_IMAGES = 8
"""Rows of the panels a run draws."""
COLUMNS = ("original", "masked", "prediction", "composite")

_MASK_STREAM = 0x9A7E1  # of generator(): apart from the streams that training draws from
_MARGIN_PX, _TITLE_PX = 4, 22

log = logging.getLogger("mim")


def panel_batch(config: PretrainConfig, index: ImageIndex) -> tuple[Tensor, Tensor]:
    """The images and masks that every panel of a run shows: spread evenly over the index, cropped at the centre.

    Returns:
        uint8 (B, 3, H, W) and uint8 (B, g, g), 1 where hidden; B = NUM_IMAGES or the whole of a smaller index.

    Raises:
        DataError: an image cannot be read, see `read_sample`.
    """
    positions = np.linspace(0, len(index) - 1, min(NUM_IMAGES, len(index))).round().astype(int)
    keys = [SampleKey(0, int(position)) for position in positions]
    arrays = [read_sample(index, key, policy=config.data.unreadable, seed=config.seed)[0] for key in keys]
    images = torch.stack([centred(array, config.image_size) for array in arrays])
    return images, _masks(config, keys)


def _masks(config: PretrainConfig, keys: Sequence[SampleKey]) -> Tensor:
    geometry = (config.image_size, config.mask.cell_size, config.mask.mask_ratio)
    masks = [cell_mask(generator(config.seed, key, _MASK_STREAM), *geometry) for key in keys]
    return torch.from_numpy(np.stack(masks))


def save_panel(path: Path, model: PretrainModel, images_bchw: Tensor, mask_bgg: Tensor) -> bool:
    """Reconstruct the images and write the panel as a PNG: a row for each image, the columns titled.

    The prediction is the decoder's whole output; the composite has it in the hidden cells and the image elsewhere. If
    the file cannot be written, a warning says so: a run does not end for want of a picture.

    Args:
        path: the file; its folder is made.
        model: in evaluation mode.
        images_bchw: uint8 (B, 3, H, W), on the model's device.
        mask_bgg: (B, g, g), non-zero where hidden, on the model's device.

    Returns:
        Whether the file was written.
    """
    original, masked, prediction = model.reconstruct(images_bchw, mask_bgg)
    composite = torch.where(expand_mask(mask_bgg, original.shape[-2:]), prediction, original)
    columns = [shown(column.cpu()) for column in (original, masked, prediction, composite)]
    content = io.BytesIO()
    draw_panel(columns).save(content, format="PNG")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        storage.write_atomic(path, content.getvalue())
    except OSError as error:
        log.warning("cannot write the panel %s: %s", path, error.strerror or error)
        return False
    return True


def shown(images_bchw: Tensor) -> Tensor:
    """What can be seen of images (B, C, H, W): RGB; the first three of more channels; the first of two in grey."""
    if images_bchw.shape[1] >= 3:
        return images_bchw[:, :3]
    return images_bchw[:, :1].expand(-1, 3, -1, -1)


def draw_panel(columns: Sequence[Tensor]) -> Image.Image:
    """A grid of pictures under the titles of COLUMNS.

    Args:
        columns: for each title, uint8 images (B, 3, H, W).
    """
    rows, _, height, width = columns[0].shape
    step_x, step_y = width + _MARGIN_PX, height + _MARGIN_PX
    size = (len(columns) * step_x + _MARGIN_PX, _TITLE_PX + rows * step_y + _MARGIN_PX)
    panel = Image.new("RGB", size, "white")
    pen, font = ImageDraw.Draw(panel), ImageFont.load_default(size=min(14, max(width // 6, 8)))
    for x, (title, column) in enumerate(zip(COLUMNS, columns, strict=True)):
        left = _MARGIN_PX + x * step_x
        pen.text((left + width / 2, _TITLE_PX / 2 + 1), title, fill="black", font=font, anchor="mm")
        for y, picture in enumerate(column.permute(0, 2, 3, 1).numpy()):
            panel.paste(Image.fromarray(picture), (left, _TITLE_PX + y * step_y))
    return panel


def load_run(run_dir: Path) -> tuple[Any, PretrainConfig, int]:
    """A run's model with the weights of its newest checkpoint, in evaluation mode, its configuration and the step.

    Raises:
        ConfigError: this is no pre-training run, or only the exported encoder of one.
        CheckpointError: no checkpoint is intact.
    """
    is_bare_encoder = (run_dir / "backbone.safetensors").is_file() and not (run_dir / "checkpoints").is_dir()
    if run_dir.is_file() or is_bare_encoder:
        raise ConfigError(
            f"{run_dir}: an exported encoder has no decoder, so it cannot reconstruct anything: give the folder of the "
            "pre-training run, whose checkpoints hold the decoder"
        )
    config = stored_config(run_dir, "pretrain", PretrainConfig)  # others have no decoder to draw
    state, step = load_model_state(run_dir)
    model = build_model(config)
    model.load_state_dict(state)
    return model.eval(), config, step


def main(argv: Sequence[str] | None = None) -> None:
    """Draw a panel of a run and print where it is; leaves with the suite's exit codes."""
    parser = argparse.ArgumentParser(prog="python -m pretrain.visualize", description=__doc__)
    parser.add_argument("run_dir", type=Path, help="folder of a pre-training run")
    parser.add_argument("images", type=Path, nargs="*", metavar="IMAGE", help="files to show (default: the run's own)")
    parser.add_argument("--output", type=Path, help="file to write (default: RUN_DIR/panels/step_<step>.png)")
    options = parser.parse_args(argv)
    with guard():
        model, config, step = load_run(options.run_dir)
        if options.images:
            images = torch.stack([centred(read_image(path, config.data), config.image_size) for path in options.images])
            mask = _masks(config, [SampleKey(0, position) for position in range(len(images))])
        else:
            index = training_images(config.data)
            images, mask = panel_batch(config, index)
        path = options.output or options.run_dir / "panels" / f"step_{step:08d}.png"
        device = pick_device()
        if not save_panel(path, model.to(device), images.to(device), mask.to(device)):
            raise CheckpointError(f"{path} could not be written: choose another place with --output")
        print(path)


if __name__ == "__main__":
    main()
