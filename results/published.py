"""The published numbers in results/published/: one file per topic, their sources, and where they contradict each other.

published/<topic>.csv, one number per line:
  protocol      fine-tuned | from scratch | linear | knn | svm
  model         the suite's name of the architecture; empty if it has none
  method        a name of methods.csv (or the title there), "supervised", or another method as it calls itself
  printed_recipe  the fine-tuning as the source calls it
  recipe        the suite's recipe of the same protocol; empty: none, so no measurement is compared with the number
  match         stated | inferred: whether the source says that it used that protocol (if inferred, `note` says how)
  epochs        of fine-tuning (iterations in detection and segmentation), where the source says so, links a
                configuration or names a recipe that says so
  test_size     pixels, where the source says so
  variant       what tells two numbers of a source apart: run, configuration, batch
  value         percent, as printed
  source        key in sources.csv; a number without a source is refused
  contradiction key in contradictions.csv, shared by the numbers that contradict each other

published/methods.csv: names of methods in run folders, and titles, in the order of tables and figures.
published/sources.csv: `preferred` says which source is cited where several have a number, 1 first; 1 is the summary's.
"""

import functools
from pathlib import Path

import pandas as pd

from engine.errors import DataError
from results.metrics import topics

FOLDER = Path(__file__).parent / "published"
COLUMNS = (
    "protocol", "dataset", "architecture", "model", "params_m", "method", "target", "pretrain_epochs",
    "printed_recipe", "recipe", "match", "epochs", "test_size", "variant", "metric", "value", "source",
    "contradiction", "note",
)  # fmt: skip
NUMBERS = ("params_m", "pretrain_epochs", "epochs", "test_size")


@functools.cache
def load_published(folder: Path = FOLDER) -> pd.DataFrame:
    """Every published number: `task` (the topic), COLUMNS and `printed`, the value's digits as they were printed.

    Texts are "" where a source says nothing, the columns of NUMBERS NaN. The order is that of the files.

    Raises:
        DataError: a line has no source or an unknown one, no number, or an unknown contradiction; names file and line.
    """
    known, contradictions = set(load_sources(folder)["key"]), set(load_contradictions(folder)["id"])
    methods = load_methods(folder)
    names = dict(zip(methods["title"], methods["method"], strict=True))
    parts = []
    for topic in topics():
        path = folder / f"{topic.name}.csv"
        table = _read(path, COLUMNS)
        for line, row in enumerate(table.to_dict("records"), start=2):
            where = f"{path.name} line {line}: {row['architecture']} {row['method']} {row['value']}"
            if not row["source"].strip():
                raise DataError(f"{where}: no source: say where the number was published, or remove it")
            if row["source"] not in known:
                raise DataError(f"{where}: source {row['source']!r} is not in sources.csv")
            if row["contradiction"] and row["contradiction"] not in contradictions:
                raise DataError(f"{where}: contradiction {row['contradiction']!r} is not in contradictions.csv")
        table.insert(0, "task", topic.name)
        table["method"] = table["method"].replace(names)
        table["printed"] = table["value"]
        for name in (*NUMBERS, "value"):
            table[name] = _numbers(table[name], path)
        if table["value"].isna().any():
            raise DataError(f"{path.name} line {int(table['value'].isna().argmax()) + 2}: no value")
        parts.append(table)
    return pd.concat(parts, ignore_index=True)


def load_sources(folder: Path = FOLDER) -> pd.DataFrame:
    """`key`, `title`, `url`, `commit` ("" where the number was not read at a known one) and `preferred` of a source."""
    return _read(folder / "sources.csv", ("key", "title", "url", "commit", "preferred"))


def load_methods(folder: Path = FOLDER) -> pd.DataFrame:
    """`method`, its name in run folders, and `title` of the methods that papers print numbers of, in order."""
    return _read(folder / "methods.csv", ("method", "title"))


def load_contradictions(folder: Path = FOLDER) -> pd.DataFrame:
    """`id`, `kind` (value, label, budget, re-run) and `explanation` of every contradiction."""
    return _read(folder / "contradictions.csv", ("id", "kind", "explanation"))


def _read(path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    if tuple(table.columns) != columns:
        raise DataError(f"{path}: has the columns {', '.join(table.columns)}; expected {', '.join(columns)}")
    return table


def _numbers(texts: "pd.Series[str]", path: Path) -> "pd.Series[float]":
    numbers = pd.to_numeric(texts.replace("", None), errors="coerce")
    wrong = numbers.isna() & (texts != "")
    if wrong.any():
        line = int(wrong.argmax())
        raise DataError(f"{path.name} line {line + 2}: {texts.name} is {texts.iloc[line]!r}, not a number")
    return numbers.astype(float)
