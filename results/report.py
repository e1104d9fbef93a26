"""The page: everything the run folders hold in one HTML file that needs nothing else."""

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup

from engine.storage import write_atomic
from results.collect import Rejected, collect
from results.figures import curves_of, draw
from results.figures_data import Curves, main_metric, metric_label, thinned, with_labels
from results.figures_style import Drawing, svg
from results.report_pictures import choose, pictures
from results.report_runs import link, names, section, short
from results.report_tables import PageTable, page_table
from results.tables import LEGEND, benchmark_table, readable
from results.tables_files import all_sheets
from results.tables_text import data_names, records, start

_HERE = Path(__file__).parent
_WIDE_PT = 400  # a figure that a phone shows in its own width, to be moved sideways
_LEAST_POINTS, _MOST_POINTS, _ALL_POINTS = 30, 100, 20_000  # of the curves of a run, and of all runs together


_NUMBERS = {
    "task": "task", "model": "model", "recipe": "recipe", "variant": "settings", "data": "data",
    "framework": "framework", "method": "method", "metric": "metric", "mean": "mean", "std": "± std", "n": "n",
    "low": "from", "high": "to", "difference": "difference", "difference_low": "difference from",
    "difference_high": "difference to", "hours": "hours", "pretrain_hours": "pre-training hours",
    "images_per_second": "images/s",
}  # fmt: skip
_NUM_TEXTS = 8  # of _NUMBERS, before the numbers


def write_report(runs_dirs: Iterable[Path | str], path: Path) -> Path:
    """Write the page.

    Args:
        runs_dirs: run folders, or folders that hold run folders at any depth.
        path: the HTML file; its folder is made. Links to run folders are relative to it.

    Returns:
        The path. The same runs give the same bytes.

    Raises:
        DataError: a folder does not exist.
        ConfigError: two runs are the same seed of the same experiment with different results.
    """
    folders = [Path(folder) for folder in runs_dirs]
    rows, rejected = collect(folders)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, _render(_context(rows, rejected, folders, path)))
    return path


def _render(context: Mapping[str, Any]) -> str:
    script = (_HERE / "report.js").read_text()
    # Only this script runs: should a name from a run folder ever come through as HTML, it stays dead.
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    template = environment.get_template("report.html.j2")
    css = Markup((_HERE / "report.css").read_text())
    return template.render(**context, css=css, script=Markup(script), script_hash=f"sha256-{digest}")


def _context(rows: pd.DataFrame, rejected: Sequence[Rejected], folders: Sequence[Path], page: Path) -> dict[str, Any]:
    curves = curves_of(rows)
    called = names(list(curves), folders)
    table = benchmark_table(rows)
    by_run = [group for _, group in rows.groupby("run", sort=False)]
    drawn = pictures(choose((_experiment(group), Path(str(group["run"].iloc[0]))) for group in by_run))
    sections = [
        section(number, group, called[str(group["run"].iloc[0])], page, drawn) for number, group in enumerate(by_run)
    ]
    points = min(max(_ALL_POINTS // max(len(curves), 1), _LEAST_POINTS), _MOST_POINTS)
    return {
        "facts": _facts(rows, rejected),
        "summary": [page_table(lines, title, sortable=False) for title, lines in readable(table)],
        "legend": LEGEND if len(table) else "No finished run to show.",
        "figures": [_inline(drawing) for drawing in draw(rows, curves)],
        "sheets": [page_table(sheet.shown, sheet.title, filters=(), notes=sheet.notes) for sheet in all_sheets(rows)],
        "numbers": _numbers(table),
        "runs": _runs(by_run, [f"#{part.id}" for part in sections], called),
        "sections": sections,
        "curves": [_rounded(thinned(curve, points)) for curve in curves.values()],
        "left_out": _left_out(rejected, folders, page),
    }


def _experiment(rows: pd.DataFrame) -> str:
    first = rows.iloc[0]
    return " ".join(str(first[key]) for key in ("task", "model", "recipe", "variant", "data", "method"))


def _facts(rows: pd.DataFrame, rejected: Sequence[Rejected]) -> list[tuple[str, str]]:
    def values(column: str) -> str:
        found = [str(value) for value in rows[column].dropna().unique() if str(value)]
        return ", ".join(found[:12]) + (f" and {len(found) - 12} more" if len(found) > 12 else "")

    facts = {
        "finished runs": str(rows["run"].nunique()),
        "left out": str(len(rejected)),
        "models": values("model"),
        "tasks": values("task"),
        "methods": values("method"),
        "data": values("dataset"),
        "devices": values("device"),
        "suite's commits": ", ".join(value[:10] for value in values("commit").split(", ")),
    }
    return [(name, value) for name, value in facts.items() if value]


def _numbers(table: pd.DataFrame) -> PageTable:
    shown = with_labels(table).sort_index()
    shown = shown.assign(data=data_names(shown), method=shown["label"])[list(_NUMBERS)].rename(columns=_NUMBERS)
    shown = shown[[name for name in shown if shown[name].astype(str).str.strip().any()]]
    decimals = {name: 1 if name == "images/s" else 2 for name in list(_NUMBERS.values())[_NUM_TEXTS:] if name != "n"}
    title = "Every metric: mean, standard deviation and 95 % interval over seeds, and difference to scratch"
    return page_table(shown, title, filters=("task", "model", "recipe", "method", "metric"), decimals=decimals)


def _runs(by_run: Sequence[pd.DataFrame], targets: Sequence[str], called: Mapping[str, str]) -> PageTable:
    lines = []
    for rows in by_run:
        first, metric = records(rows)[0], main_metric(rows)
        lines.append(
            {
                "run": called[str(first["run"])],
                "task": first["task"],
                "model": first["model"],
                "recipe": first["recipe"],
                "method": start({**first, "target": ""}),
                "seed": first["seed"],
                "metric": metric_label(str(first["task"]), metric),
                "value": float(rows.loc[rows["metric"] == metric, "value"].iloc[0]),
                "hours": first["seconds"] / 3600,
                "images/s": first["images_per_second"],
                "memory, GB": first["peak_memory_bytes"] / 1e9 if first["peak_memory_bytes"] else None,
                "configuration": str(first["config_hash"])[:8],
                "commit": str(first["commit"])[:8],
                "device": first["device"],
            }
        )
    names_of_columns = ["run", "task", "model", "recipe", "method", "seed", "metric", "value", "hours",
                        "images/s", "memory, GB", "configuration", "commit", "device"]  # fmt: skip
    return page_table(
        pd.DataFrame(lines, columns=names_of_columns),
        "Finished runs",
        filters=("task", "model", "recipe", "method", "seed"),
        decimals={"value": 2, "hours": 3, "images/s": 1, "memory, GB": 2},
        links={"run": targets},
    )


def _left_out(rejected: Sequence[Rejected], folders: Sequence[Path], page: Path) -> PageTable:
    frame = pd.DataFrame(
        [(short(str(run.run_dir), folders), short(run.reason, folders)) for run in rejected], columns=["run", "reason"]
    )
    return page_table(frame, "Runs left out", links={"run": [link(run.run_dir, page) for run in rejected]})


def _inline(drawing: Drawing) -> dict[str, Any]:
    """A figure as part of the page: without a prologue, its ids its own."""
    text = svg(drawing)
    text = text[text.index("<svg") :]
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{drawing.name}-", text)
    width = re.search(r'width="([\d.]+)pt"', text)
    kind = "wide" if width and float(width[1]) > _WIDE_PT else "narrow"
    text = text.replace("<svg ", f'<svg class="{kind}" role="img" ', 1)
    return {
        "id": f"figure-{drawing.name}", "title": drawing.title, "caption": drawing.caption, "svg": Markup(text)
    }  # fmt: skip


def _rounded(curves: Curves) -> Curves:
    """Four significant digits, which a small curve does not show more of."""
    return {
        split: {name: [None if v is None else float(f"{v:.4g}") for v in values] for name, values in columns.items()}
        for split, columns in curves.items()
    }
