"""What a curve is expected to end at: the number published for the same training."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from results.figures.style import PAPER, Look
from results.metrics import HEADLINES
from results.published import load_published
from results.tables.comparison import compare_with_published
from results.tables.text import records, start

Key = tuple[str, ...]
"""Model, recipe, variant, data and label."""
CAPTION = (
    " Dotted, with a hollow marker: the number published for the same data set, architecture, method, recipe and "
    "lengths of training."
)


def published_for(rows: pd.DataFrame) -> dict[Key, float]:
    """The published number of the main metric for every kind of run that has one.

    Args:
        rows: of collect, without pre-training.
    """
    main = rows[rows["metric"].isin(HEADLINES)]
    if not len(main):
        return {}
    lines = compare_with_published(main, load_published())
    known = lines[(lines["origin"] == "measured") & lines["published"].notna()]
    return {_key({**line, "label": start({**line, "target": ""})}): float(line["published"]) for line in records(known)}


def draw_expected(
    ax: Axes, group: pd.DataFrame, published: Mapping[Key, float], seen: Mapping[str, Look]
) -> list[float]:
    """A dotted line across the panel for each kind of run that has a published number; returns these numbers.

    Args:
        ax: the panel.
        group: its runs, labelled.
        published: of published_for.
        seen: how each label is drawn.
    """
    values = {
        str(line["label"]): published[_key(line)]
        for line in records(group.drop_duplicates("label"))
        if _key(line) in published
    }
    edge = ax.get_yaxis_transform()
    for place, (label, value) in enumerate(sorted(values.items(), key=lambda item: item[1])):
        look = seen[label]
        # Numbers a tenth of a percent apart would lie on each other: every other marker and number stands further out.
        out = 0.02 + 0.1 * (place % 2)
        ax.axhline(value, color=look.color, linewidth=0.9, linestyle=":")
        ax.plot([1 + out], [value], **look.points() | {"markerfacecolor": PAPER}, transform=edge, clip_on=False)
        ax.annotate(f"{value:g}", (1.02 + out, value), xycoords=edge, va="center", fontsize=7)
    return list(values.values())


def _key(line: Mapping[str, Any]) -> Key:
    return tuple(str(line[name]) for name in ("model", "recipe", "variant", "data", "label"))
