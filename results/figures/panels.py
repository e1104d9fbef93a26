"""The reconstruction grid: what each pre-training run made of the same images, from its first panel to its last."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from results.figures.data import as_starts, first_of
from results.figures.style import Drawing, clipped
from results.metrics import PRETRAINING
from results.runs.runfiles import is_file
from results.tables.text import records

Pixels = npt.NDArray[np.uint8]

# Of the panels that pre-training draws: columns original, masked, prediction, composite; a line of titles above.
_COLUMNS, _MARGIN_PX, _TITLE_PX = 4, 4, 22
_CAPTION = (
    "The first images of each run's panels, the same ones and the same hidden cells for runs with the same data, seed "
    "and mask. Predictions from the start of training to its end; last, the final prediction where the original was "
    "hidden."
)
_NUM_IMAGES = 3  # rows for each run
_MOST_RUNS = 6  # of one figure
_CELL_INCHES, _CELL_PX, _GAP_PX = 1.15, 128, 4


def reconstruction_grids(rows: pd.DataFrame, *, apart: bool = False) -> Iterator[Drawing]:
    """A figure for each model with panels: rows are images, one block for each way to pre-train, its lowest seed.

    Args:
        rows: of collect.
        apart: every block as a figure of its own.
    """
    runs = rows[rows["task"].isin(PRETRAINING)].drop_duplicates("run").sort_values("seed", kind="stable")
    for model, group in as_starts(runs).drop_duplicates(["model", "data", "label"]).groupby("model", sort=True):
        kept, left_out = first_of(records(group), _MOST_RUNS)
        blocks = [(str(row["label"]), _block(Path(str(row["run"])))) for row in kept]
        drawn = [(label, block) for label, block in blocks if block is not None]
        if drawn:
            name, title = f"reconstructions-{model}", f"Reconstructions, {model}"
            figures = tuple(_figure([block]) for block in drawn) if apart else (_figure(drawn),)
            yield Drawing(name, title, _CAPTION + left_out, figures)


def split_panel(panel: Pixels) -> Pixels | None:
    """Cut a panel of pre-training into its pictures.

    Args:
        panel: (H, W, 3).

    Returns:
        (rows, 4, height, width, 3), or None if this is not such a panel.
    """
    height, width = panel.shape[:2]
    side, rest = divmod(width - _MARGIN_PX, _COLUMNS)
    if rest or side <= _MARGIN_PX or (height - _TITLE_PX - _MARGIN_PX) % side:
        return None
    grid = panel[_TITLE_PX : height - _MARGIN_PX, _MARGIN_PX:]
    cells = grid.reshape(-1, side, _COLUMNS, side, 3).transpose(0, 2, 1, 3, 4)
    return cells[:, :, : side - _MARGIN_PX, : side - _MARGIN_PX]


def _block(run_dir: Path) -> dict[str, Pixels] | None:
    """Title -> pictures (images, height, width, 3) of a run, or None without panels."""
    files = sorted(file for file in (run_dir / "panels").glob("epoch_*.png") if is_file(file))
    steps = [files[place] for place in sorted({0, len(files) // 2, len(files) - 1})] if files else []
    cut = [(file.stem.partition("_")[2].lstrip("0") or "0", _pictures(file)) for file in steps]
    known = [(epoch, pictures[:_NUM_IMAGES]) for epoch, pictures in cut if pictures is not None]
    if not known:
        return None
    last = known[-1][1]
    predictions = {f"epoch {epoch}": pictures[:, 2] for epoch, pictures in known}
    return {"original": last[:, 0], "masked": last[:, 1], **predictions, "composite": last[:, 3]}


def _pictures(file: Path) -> Pixels | None:
    try:
        with Image.open(file) as image:
            return split_panel(np.asarray(image.convert("RGB")))
    except Exception:  # whatever a decoder says of it: a figure does not end for want of a picture
        return None


def _figure(blocks: list[tuple[str, dict[str, Pixels]]]) -> Figure:
    columns = max(len(block) for _, block in blocks)
    heights = [len(block["original"]) * _CELL_INCHES + 0.3 for _, block in blocks]
    figure = Figure(figsize=(columns * _CELL_INCHES + 0.3, sum(heights)), layout="constrained")
    grid = figure.subplots(len(blocks), 1, squeeze=False, height_ratios=heights)
    for ax, (label, block) in zip(grid[:, 0], blocks, strict=True):
        picture = _mosaic([[_small(cell) for cell in row] for row in zip(*block.values(), strict=True)])
        step = picture.shape[1] / len(block)
        ax.imshow(picture, interpolation="nearest")  # one picture for the block: an axes for each takes seconds
        ax.set_xticks([(column + 0.5) * step for column in range(len(block))], list(block))
        ax.tick_params(top=False, bottom=False, labeltop=True, labelbottom=False, labelsize=11)
        ax.set_yticks([])
        ax.set_ylabel(clipped(label), fontsize=11)
        ax.grid(visible=False)
        ax.spines[:].set_visible(False)
    return figure


def _mosaic(rows: list[list[Pixels]]) -> Pixels:
    opaque = [[np.dstack([cell, np.full(cell.shape[:2], 255, np.uint8)]) for cell in row] for row in rows]
    framed = [[np.pad(cell, ((_GAP_PX, 0), (_GAP_PX, 0), (0, 0))) for cell in row] for row in opaque]  # nothing between
    return np.concatenate([np.concatenate(row, axis=1) for row in framed], axis=0)


def _small(picture: Pixels) -> Pixels:
    if picture.shape[0] <= _CELL_PX:
        return picture
    return np.asarray(Image.fromarray(picture).resize((_CELL_PX, _CELL_PX), Image.Resampling.LANCZOS))
