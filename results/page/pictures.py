"""Pictures of the page: panels of the run folders, made small, as many as keep the page a page."""

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from PIL import Image

from results.figures.data import on_data, with_labels
from results.metrics import PRETRAINING
from results.runs.runfiles import is_file
from results.tables.text import records, settings

MOST_PICTURES = 60  # in the page; all others are links to the run folders
PER_RUN = 2
_WIDTH_PX, _HEIGHT_PX, _QUALITY = 1000, 1000, 78
_SHOWN_PX = 640  # a smaller picture is shown as wide as this, where the page has the room
_MOST_PIXELS = 50_000_000  # of a file that is opened at all
_HALF, _FULL = 2.0, 3.0  # widths of a picture in its heights, from which it needs half a page or all of it
_MOST_COMPARISONS, _IMAGES = 8, 2  # experiments, and pictures of each method in one


@dataclass(frozen=True)
class Picture:
    """An image inside the page; `file` is what it was made from, `data` its content as a data address."""

    file: Path
    data: str
    width: int
    height: int


def panel_files(run_dir: Path) -> list[Path]:
    """The panels of a run, the newest of pre-training first."""
    files = sorted(file for file in (run_dir / "panels").glob("*.png") if is_file(file))
    return files[::-1] if files and files[0].name.startswith(("epoch_", "step_")) else files


def choose(groups: Iterable[tuple[str, Path]]) -> list[Path]:
    """The files that go into the page: each group's first run before any second one, up to MOST_PICTURES.

    Args:
        groups: (what the run has in common with others, run folder), in order.
    """
    seen: dict[str, int] = {}
    ranked = []
    for place, (group, run_dir) in enumerate(groups):
        turn = seen.setdefault(group, 0)
        seen[group] += 1
        ranked += [(turn, place, file) for file in panel_files(run_dir)[:PER_RUN]]
    return [file for _, _, file in sorted(ranked)[:MOST_PICTURES]]


@dataclass(frozen=True)
class Comparison:
    """The same picture by several methods: what of, and for each method how people write it and the picture."""

    title: str
    columns: list[tuple[str, Picture]]

    @property
    def width(self) -> str:
        """What room each picture needs: "" a third of the page, "wide" half of it, "widest" all."""
        widest = max(picture.width / picture.height for _, picture in self.columns)
        return "widest" if widest > _FULL else "wide" if widest > _HALF else ""


def by_method(rows: pd.DataFrame) -> list[Comparison]:
    """What the methods made of the same images, task by task, each by its run with the lowest seed.

    Pre-training is not among them: its reconstructions are a figure.

    Args:
        rows: of collect.
    """
    found = []
    runs = with_labels(rows[~rows["task"].isin(PRETRAINING)].drop_duplicates("run").sort_values("seed", kind="stable"))
    keys = ["task", "model", "recipe", "variant", "data"]
    for (task, model, recipe, variant, _), group in runs.groupby(keys, sort=True):
        where = on_data(group, runs[runs["task"] == task])
        folders = {str(row["label"]): Path(str(row["run"])) for row in records(group.drop_duplicates("label"))}
        files = {label: {file.name: file for file in panel_files(folder)} for label, folder in folders.items()}
        shared = [name for name in next(iter(files.values())) if all(name in there for there in files.values())]
        for name in shared[:_IMAGES]:
            drawn = pictures([there[name] for there in files.values()])
            columns = [(label, drawn[there[name]]) for label, there in files.items() if there[name] in drawn]
            title = ", ".join(filter(None, (f"{task}: {model}", str(recipe), settings(variant), where, name)))
            if columns:
                found.append(Comparison(title, columns))
    return found[: _MOST_COMPARISONS * _IMAGES]


def pictures(files: Sequence[Path]) -> dict[Path, Picture]:
    """Each file as a picture; one that cannot be read is left out, the page has a link to it anyway."""
    found = {}
    for file in files:
        picture = _picture(file)
        if picture is not None:
            found[file] = picture
    return found


def _picture(file: Path) -> Picture | None:
    try:
        with Image.open(file) as image:
            if image.width * image.height > _MOST_PIXELS:
                return None
            small = image.convert("RGB")
    except Exception:  # whatever a decoder says of it: a page does not end for want of a picture
        return None
    small.thumbnail((_WIDTH_PX, _HEIGHT_PX), Image.Resampling.LANCZOS)
    content = io.BytesIO()
    small.save(content, format="WEBP", quality=_QUALITY)
    data = "data:image/webp;base64," + base64.b64encode(content.getvalue()).decode()
    width = max(small.width, _SHOWN_PX)
    return Picture(file, data, width, round(small.height * width / small.width))
