"""Class activation maps of several encoders over the same images."""

from collections.abc import Iterator, Mapping
from pathlib import Path

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
_CELL_INCHES = 1.3
_OPAQUE = 0.45  # of the map over the image

Floats = npt.NDArray[np.float32]


def activation_maps(folders: Mapping[str, Path]) -> Iterator[Drawing]:
    """One figure: a column for each encoder, a row for each image, the map in colours over the image.

    Args:
        folders: run folder of each encoder; those without maps are left out.
    """
    found = {label: maps for label, folder in folders.items() if (maps := _read(folder)) is not None}
    kept, left_out = first_of(list(found.items()), _MOST_ENCODERS)
    if kept:
        caption = (
            "Where the evidence for the true class is, dark for none and bright for most of each image." + left_out
        )
        yield Drawing("cam", "Class activation maps", caption, (_figure(dict(kept)),))


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
    figure = Figure(figsize=(_CELL_INCHES * columns + 0.1, _CELL_INCHES * rows + 0.35), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    colors = colormaps["inferno"]
    for ax in grid.flat:
        ax.set_axis_off()
    for row in range(rows):
        grid[row, 0].imshow(first["images"][row].transpose(1, 2, 0))
        for column, maps in enumerate(found.values(), start=1):
            image = maps["images"][row].transpose(1, 2, 0)
            heat = colors(maps["maps"][row])[..., :3]
            grid[row, column].imshow((1 - _OPAQUE) * image + _OPAQUE * heat)
    for column, label in enumerate(["image", *found]):
        grid[0, column].set_title(clipped(label, 18), fontsize=8)
    return figure
