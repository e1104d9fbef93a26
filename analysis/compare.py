"""Several encoders in one figure, with a CSV beside it."""

import dataclasses
import logging
from pathlib import Path

import pandas as pd

from analysis.command import Asked
from analysis.config import CkaConfig
from analysis.runs import Done, analyse, curve
from engine.errors import ConfigError
from engine.run import storage
from results.figures.analysis import draw_analysis, other_name
from results.figures.style import Drawing, lay_out, png, style, svg

log = logging.getLogger("mim")


def compare(asked: Asked) -> list[Path]:
    """Analyse every encoder that is not known yet, and draw all of them.

    Args:
        asked: the command.

    Returns:
        The files written: figures and their CSV. The same results give the same bytes.

    Raises:
        SuiteError: with the exit code of what went wrong; what was done is kept.
    """
    done: list[Done] = []
    beside: dict[str, str] = {}
    for label, reference in asked.encoders:
        config = asked.config
        if isinstance(config, CkaConfig):
            first, other = asked.encoders[0]
            if len(asked.encoders) > 1 and reference == other:
                continue  # what the others are compared with
            beside = {"other": first or other_name(config.other or other)}
            config = dataclasses.replace(config, other=config.other or other)
        done.append(_distinct(analyse(asked.name, config, reference, label, asked.out), done))
    frame = pd.concat(
        [
            pd.DataFrame([{"encoder": one.label, **beside, "method_place": place, **row} for row in curve(one)])
            for place, one in enumerate(done)
        ],
        ignore_index=True,
    )
    with storage.storage_errors(asked.out):
        written = [asked.out / f"{asked.name}.csv"]
        storage.write_atomic(written[0], frame.drop(columns="method_place").to_csv(index=False))
        with style():
            for drawing in draw_analysis(asked.name, frame, {one.label: one.folder for one in done}):
                written += write(drawing, asked.out)
    return written


def write(drawing: Drawing, folder: Path) -> list[Path]:
    """A figure as SVG and PNG."""
    (figure,) = drawing.figures
    lay_out(figure)
    paths = [folder / f"{drawing.name}.svg", folder / f"{drawing.name}.png"]
    storage.write_atomic(paths[0], svg(figure, drawing.title))
    storage.write_atomic(paths[1], png(figure))
    return paths


def _distinct(one: Done, others: list[Done]) -> Done:
    """Two run folders may have one name: each of its own line needs its own."""
    if any(one.folder == other.folder for other in others):
        raise ConfigError(f"{one.config.init} holds the same weights as {_same(one, others).config.init}: name it once")
    if all(one.label != other.label for other in others):
        return one
    return Done(f"{one.label} ({one.config.digest[:6]})", one.folder, one.config)


def _same(one: Done, others: list[Done]) -> Done:
    return next(other for other in others if other.folder == one.folder)
