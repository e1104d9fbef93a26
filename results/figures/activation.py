"""Class activation maps of several encoders over the same images."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.figure import Figure
from safetensors import SafetensorError
from safetensors.numpy import load_file

from results.figures.data import first_of
from results.figures.style import Drawing, clipped
from results.runs.runfiles import is_file

_FILE = "maps.safetensors"
_MOST_ENCODERS, _MOST_IMAGES = 6, 8
_IN_A_ROW = 4  # images of one encoder's own figure
_CELL_INCHES = 1.3
_OPAQUE = 0.45  # of the map over the image

Floats = npt.NDArray[np.float32]


def activation_maps(folders: Mapping[str, Path], *, apart: bool = False) -> Iterator[Drawing]:
    """One figure: a column for each encoder, a row for each image, the map in colours over the image.

    Args:
        folders: run folder of each encoder; those without maps are left out.
        apart: a figure for each encoder, the map below each image.
    """
    found = {label: maps for label, folder in folders.items() if (maps := _read(folder)) is not None}
    kept, left_out = first_of(list(found.items()), _MOST_ENCODERS)
    if kept:
        caption = (
            "Where the evidence for the true class is, dark for none and bright for most of each image." + left_out
        )
        figures = tuple(_figure_of(*one) for one in kept) if apart else (_figure(dict(kept)),)
        yield Drawing("cam", "Class activation maps", caption, figures)


def _read(folder: Path) -> dict[str, Floats] | None:
    path = folder / _FILE
    if not is_file(path):
        return None
    try:
        content = load_file(path)
        return {name: content[name][:_MOST_IMAGES] for name in ("images", "maps")}
    except (OSError, SafetensorError, KeyError):
        return None


def _figure(found: Mapping[str, dict[str, Floats]]) -> Figure:
    first = next(iter(found.values()))
    rows, columns = len(first["images"]), 1 + len(found)
    figure, grid = _grid(rows, columns)
    for row in range(rows):
        grid[row, 0].imshow(_image(first, row))
        for column, maps in enumerate(found.values(), start=1):
            grid[row, column].imshow(_overlaid(maps, row))
    for column, label in enumerate(["image", *found]):
        grid[0, column].set_title(clipped(label, 18), fontsize=8)
    return figure


def _figure_of(label: str, maps: dict[str, Floats]) -> Figure:
    count = len(maps["images"])
    columns = min(count, _IN_A_ROW)
    figure, grid = _grid(2 * -(-count // columns), columns)
    figure.suptitle(clipped(label), fontsize=9)
    for number in range(count):
        row, column = divmod(number, columns)
        grid[2 * row, column].imshow(_image(maps, number))
        grid[2 * row + 1, column].imshow(_overlaid(maps, number))
    return figure


def _grid(rows: int, columns: int) -> tuple[Figure, Any]:
    figure = Figure(figsize=(_CELL_INCHES * columns + 0.1, _CELL_INCHES * rows + 0.35), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for ax in grid.flat:
        ax.set_axis_off()
    return figure, grid


def _image(maps: Mapping[str, Floats], number: int) -> Floats:
    image: Floats = maps["images"][number].transpose(1, 2, 0)
    return image


def _overlaid(maps: Mapping[str, Floats], number: int) -> Floats:
    heat = colormaps["inferno"](maps["maps"][number])[..., :3]
    return np.asarray((1 - _OPAQUE) * _image(maps, number) + _OPAQUE * heat, np.float32)
