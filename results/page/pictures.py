"""Pictures of the page: panels of the run folders, made small, as many as keep the page a page."""

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

MOST_PICTURES = 60  # in the page; all others are links to the run folders
PER_RUN = 2
_WIDTH_PX, _HEIGHT_PX, _QUALITY = 560, 640, 78


@dataclass(frozen=True)
class Picture:
    """An image inside the page; `file` is what it was made from, `data` its content as a data address."""

    file: Path
    data: str
    width: int
    height: int


def panel_files(run_dir: Path) -> list[Path]:
    """The panels of a run, the newest of pre-training first."""
    files = sorted((run_dir / "panels").glob("*.png"))
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


def pictures(files: Sequence[Path]) -> dict[Path, Picture]:
    """Each file as a picture; one that cannot be read is left out, the page has a link to it anyway."""
    found = {}
    for file in files:
        try:
            found[file] = _picture(file)
        except (OSError, ValueError):  # a page does not end for want of a picture
            continue
    return found


def _picture(file: Path) -> Picture:
    with Image.open(file) as image:
        small = image.convert("RGB")
    small.thumbnail((_WIDTH_PX, _HEIGHT_PX), Image.Resampling.LANCZOS)
    content = io.BytesIO()
    small.save(content, format="WEBP", quality=_QUALITY)
    data = "data:image/webp;base64," + base64.b64encode(content.getvalue()).decode()
    return Picture(file, data, small.width, small.height)
