"""The reconstruction grid: what each pre-training run made of the same images, from its first panel to its last."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from results.figures_data import records, with_labels
from results.figures_style import Drawing

Pixels = npt.NDArray[np.uint8]

# Of the panels that pre-training draws: columns original, masked, prediction, composite; a line of titles above.
_COLUMNS, _MARGIN_PX, _TITLE_PX = 4, 4, 22
_NUM_IMAGES = 3  # rows for each run
_MOST_RUNS = 6  # of one figure
_CELL_INCHES, _CELL_PX = 1.15, 128


def reconstruction_grids(rows: pd.DataFrame) -> Iterator[Drawing]:
    """A figure for each model with panels: rows are images, one block for each way to pre-train, its lowest seed.

    Args:
        rows: of collect.
    """
    runs = rows[rows["task"] == "pretrain"].drop_duplicates("run").sort_values("seed", kind="stable")
    runs = with_labels(runs.assign(pretrain_epochs=runs["epochs"], pretrain_variant=runs["variant"]))
    for model, group in runs.drop_duplicates(["model", "data", "label"]).groupby("model", sort=True):
        blocks = [(str(row["label"]), _block(Path(str(row["run"])))) for row in records(group)]
        drawn = [(label, block) for label, block in blocks if block is not None][:_MOST_RUNS]
        if drawn:
            caption = (
                "The first images of each run's panels, the same ones and the same hidden cells for runs with the same "
                "data, seed and mask. Predictions from the start of training to its end; last, the final prediction in "
                "the hidden cells of the original."
            )
            yield Drawing(f"reconstructions-{model}", f"Reconstructions, {model}", caption, _figure(drawn))


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
    files = sorted((run_dir / "panels").glob("epoch_*.png"))
    steps = [files[place] for place in sorted({0, len(files) // 2, len(files) - 1})] if files else []
    cut = [(file.stem.partition("_")[2].lstrip("0") or "0", split_panel(_read(file))) for file in steps]
    known = [(epoch, pictures[:_NUM_IMAGES]) for epoch, pictures in cut if pictures is not None]
    if not known:
        return None
    last = known[-1][1]
    predictions = {f"epoch {epoch}": pictures[:, 2] for epoch, pictures in known}
    return {"original": last[:, 0], "masked": last[:, 1], **predictions, "composite": last[:, 3]}


def _read(file: Path) -> Pixels:
    with Image.open(file) as image:
        return np.asarray(image.convert("RGB"))


def _figure(blocks: list[tuple[str, dict[str, Pixels]]]) -> Figure:
    columns = max(len(block) for _, block in blocks)
    num_rows = sum(len(block["original"]) for _, block in blocks)
    size = (columns * _CELL_INCHES + 0.3, num_rows * _CELL_INCHES + 0.35 * len(blocks))
    figure = Figure(figsize=size, layout="constrained")
    for part, (label, block) in zip(figure.subfigures(len(blocks), 1, squeeze=False)[:, 0], blocks, strict=True):
        part.supylabel(label, fontsize=9)
        grid = part.subplots(len(block["original"]), len(block), squeeze=False)
        for column, (title, pictures) in enumerate(block.items()):
            grid[0, column].set_title(title)
            for ax, picture in zip(grid[:, column], pictures, strict=True):
                ax.imshow(_small(picture), interpolation="nearest")
                ax.set_axis_off()
    return figure


def _small(picture: Pixels) -> Pixels:
    if picture.shape[0] <= _CELL_PX:
        return picture
    return np.asarray(Image.fromarray(picture).resize((_CELL_PX, _CELL_PX), Image.Resampling.LANCZOS))
